package llamacpp

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/process"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// An adapter is one sealed LoRA.
type adapter struct {
	weights *seal.Weights
	name    string // of its only file
	scale   float64
}

// magic begins each GGUF file.
const magic = "GGUF"

// addAdapter checks an adapter and takes a reference of its own.
func (p *parts) addAdapter(a backends.Adapter) error {
	if !a.Weights.Valid() {
		return errors.New("an adapter is not sealed: only verified weights are served")
	}
	names := a.Weights.Names()
	if err := trust.CheckAdapter(Kind, names); err != nil {
		return fmt.Errorf("adapter %s: %w", a.Weights.Root(), err)
	}
	f, err := a.Weights.Dup(names[0])
	if err != nil {
		return fmt.Errorf("adapter %s: %w", a.Weights.Root(), err)
	}
	defer f.Close()
	if !isGGUF(f) {
		return fmt.Errorf("adapter %s: is no GGUF file, which is all that llama-server takes: convert it, and sign and release the result", a.Weights.Root())
	}
	w, err := a.Weights.Share()
	if err != nil {
		return fmt.Errorf("adapter %s: %w", a.Weights.Root(), err)
	}
	p.adapters = append(p.adapters, adapter{w, names[0], a.Scale})
	return nil
}

// checkModel refuses weights of another kind, of which llama-server would only say that it can't load them.
func (p *parts) checkModel() error {
	f, err := p.weights.Dup(p.names[0])
	if err != nil {
		return err
	}
	defer f.Close()
	if !isGGUF(f) {
		return fmt.Errorf("%s is no GGUF file, and llama-server takes no others: %s", p.names[0], convert)
	}
	return nil
}

func isGGUF(f *os.File) bool {
	head := make([]byte, len(magic))
	_, err := f.ReadAt(head, 0)
	return err == nil && string(head) == magic
}

// sealed returns the weights and the adapters.
func (p *parts) sealed() []*seal.Weights {
	all := []*seal.Weights{p.weights}
	for _, a := range p.adapters {
		all = append(all, a.weights)
	}
	return all
}

// opened are the files of weights and adapters that one launch shows to llama-server.
type opened struct {
	files []*os.File
	links map[string]int // by the number that they have there
}

func (o *opened) close() {
	for _, f := range o.files {
		f.Close()
	}
}

// open opens what a launch loads, as the files of the runtime from number first on, and sets where it finds them.
func (p *parts) open(first int, at *paths) (*opened, error) {
	o := &opened{links: map[string]int{}}
	add := func(w *seal.Weights, name, link string) error { // each launch looks at the seals again
		f, err := w.Dup(name)
		if err != nil {
			return fmt.Errorf("%w: %w", process.ErrPermanent, err)
		}
		if link != "" {
			o.links[link] = first + len(o.files)
		}
		o.files = append(o.files, f)
		return nil
	}
	at.model = process.Path(first)
	if len(p.names) > 1 { // which llama.cpp finds by the first one's name
		at.model = "./" + path.Join(modelDir, path.Base(p.names[0]))
	}
	for _, name := range p.names {
		link := ""
		if len(p.names) > 1 {
			link = path.Join(modelDir, path.Base(name))
		}
		if err := add(p.weights, name, link); err != nil {
			return o, err
		}
	}
	for i, a := range p.adapters {
		// A link, since in an argument that holds more than a path no lent file can be named.
		link := path.Join(adapterDir, strconv.Itoa(i))
		if err := add(a.weights, a.name, link); err != nil {
			return o, err
		}
		at.adapters = append(at.adapters, "./"+link+":"+strconv.FormatFloat(a.scale, 'f', -1, 64))
	}
	return o, nil
}

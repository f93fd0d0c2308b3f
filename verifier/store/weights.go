package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

// FindWeights returns the paths, files or directories, whose signature beside them claims the root: X for X.sig, and a
// directory for the model.sig in it. The claim is only an index, so there may be several, all of them wrong; what
// is read from them counts only after verifier.Admit. It looks in dirs themselves and one level below.
func FindWeights(dirs []string, root string) ([]string, error) {
	var found []string
	var errs []error
	for _, dir := range dirs {
		candidates, err := signatures(dir)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for sig, model := range candidates {
			if claimedRoot(sig) == root {
				found = append(found, model)
			}
		}
	}
	if len(found) == 0 {
		return nil, errors.Join(append(errs, fmt.Errorf("weights not found: nothing in %v is signed as root %s: bring the weights and their signature there", dirs, root))...)
	}
	return found, nil
}

// signatures maps each signature file under dir to the model it would belong to.
func signatures(dir string) (map[string]string, error) {
	all := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("look for weights: %w", err)
	}
	if len(entries) > maxWeightEntries {
		return nil, fmt.Errorf("look for weights: %s holds more than %d entries", dir, maxWeightEntries)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") { // what is being written
			continue
		}
		path := filepath.Join(dir, e.Name())
		switch model, signed := strings.CutSuffix(path, ".sig"); {
		case e.Name() == "model.sig":
			all[path] = dir
			if exists(model) { // a model named "model" beside its signature
				all[path] = model
			}
		case signed && e.Type().IsRegular() && exists(model):
			all[path] = model
		case e.IsDir() && exists(filepath.Join(path, "model.sig")):
			all[filepath.Join(path, "model.sig")] = path
		}
	}
	return all, nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil || !errors.Is(err, fs.ErrNotExist)
}

// claimedRoot reads the root that a signature file says it is about, "" if it is not one.
func claimedRoot(sig string) string {
	data, err := ReadFile(sig, statement.MaxBundle)
	if err != nil {
		return ""
	}
	s, err := statement.Parse(data)
	if err != nil || s.PredicateType() != oms.PredicateType {
		return ""
	}
	_, sum := s.Subject()
	return "sha256:" + sum
}

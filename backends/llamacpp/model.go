package llamacpp

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// splitName is how llama.cpp names the files of a model that is split: it finds the others by the first one's name.
var splitName = regexp.MustCompile(`^(.*)-([0-9]{5})-of-([0-9]{5})\.gguf$`)

// convert is what to do with weights of another kind.
const convert = "convert to GGUF, and sign and release the result"

// ModelFiles picks, from the listed names of weights, the files that are the model: the only file, the only GGUF among
// others, or all parts of one split GGUF, in order. Other files are not shown to the runtime at all.
func ModelFiles(names []string) ([]string, error) {
	if len(names) == 1 {
		return names, nil
	}
	var models []string
	for _, n := range names {
		if strings.HasSuffix(n, ".gguf") {
			models = append(models, n)
		}
	}
	switch len(models) {
	case 0:
		return nil, fmt.Errorf("no GGUF file among the %d files of the weights, and llama-server takes no others: %s", len(names), convert)
	case 1:
		return models, nil
	}
	slices.Sort(models)
	for i, n := range models {
		m := splitName.FindStringSubmatch(n)
		first := splitName.FindStringSubmatch(models[0])
		if m == nil || first == nil || m[1] != first[1] || m[2] != fmt.Sprintf("%05d", i+1) || m[3] != fmt.Sprintf("%05d", len(models)) {
			return nil, fmt.Errorf("%d GGUF files are not the parts of one model (%s)", len(models),
				strings.Join([]string{path.Base(models[0]), path.Base(n), "want …-" + strconv.Itoa(i+1)}, ", "))
		}
	}
	return models, nil
}

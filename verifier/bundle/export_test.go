package bundle

// Bounds that tests go up to.
const (
	MaxManifest = maxManifest
	MaxSmall    = maxSmall
)

// Spans returns where each file of weights lies in the archive: its start and its size.
func (b *Bundle) Spans() (all [][2]int64, err error) {
	for root, files := range b.weights {
		for name := range files {
			at, _, err := b.find(root, name)
			if err != nil {
				return nil, err
			}
			all = append(all, [2]int64{at.start, at.size})
		}
	}
	return all, nil
}

// Reserve makes room for what is read after so many bytes were.
func Reserve(read, size int64) error { return (&Bundle{small: read}).reserve(size, size) }

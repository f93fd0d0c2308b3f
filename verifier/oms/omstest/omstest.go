// Package omstest unpacks the shared vectors of OMS bundles: models, keys, and signatures with the verdict that is owed
// on each.
//
// The one rule: a vector says what is right, whatever any implementation does. When one fails, the code is wrong.
package omstest

import (
	"archive/tar"
	"compress/gzip"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A Case is one line of INDEX.tsv. Its paths are relative to the unpacked directory.
type Case struct {
	Name   string
	Model  string
	Bundle string
	How    map[string]string // public_key, roots: files; flags: as given to model_signing
	Accept bool
	Note   string
}

// Open unpacks the vectors and returns where they are and the cases. testdata is the directory that holds INDEX.tsv and
// vectors.tar.gz (verifier/oms/testdata).
func Open(t testing.TB, testdata string) (dir string, cases []Case) {
	t.Helper()
	dir = t.TempDir()
	if err := unpack(filepath.Join(testdata, "vectors.tar.gz"), dir); err != nil {
		t.Fatalf("unpack vectors: %v", err)
	}
	index, err := os.ReadFile(filepath.Join(testdata, "INDEX.tsv"))
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range strings.Split(strings.TrimSpace(string(index)), "\n")[1:] {
		f := strings.Split(line, "\t")
		if len(f) < 6 || f[5] != "accept" && f[5] != "refuse" {
			t.Fatalf("INDEX.tsv: line %q is not a case", line)
		}
		c := Case{Name: f[0], Model: f[2], Bundle: f[3], How: map[string]string{}, Accept: f[5] == "accept"}
		if len(f) > 6 {
			c.Note = f[6]
		}
		for _, pair := range strings.Fields(f[4]) {
			key, value, _ := strings.Cut(pair, "=")
			c.How[key] = value
		}
		cases = append(cases, c)
	}
	return dir, cases
}

func unpack(archive, dir string) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		path := filepath.Join(dir, h.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeDir:
			err = os.MkdirAll(path, 0o755)
		case tar.TypeSymlink:
			err = os.Symlink(h.Linkname, path)
		case tar.TypeLink:
			err = os.Link(filepath.Join(dir, h.Linkname), path) // the same bytes: tests that write make their own copy
		default:
			err = writeFile(path, r, h.FileInfo().Mode().Perm())
		}
		if err != nil {
			return err
		}
	}
}

func writeFile(path string, r io.Reader, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

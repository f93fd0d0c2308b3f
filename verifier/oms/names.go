package oms

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// CheckName returns nil if name is a path as OMS v1.0 section 6.1.2 wants it: relative, slash-separated, with no part
// that is empty, "." or "..". All else is an ordinary character, a backslash and a newline too, and nothing is
// normalized: names are compared byte for byte.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("the name is empty")
	case len(name) > maxName:
		return fmt.Errorf("the name has %d bytes, want at most %d", len(name), maxName)
	case !utf8.ValidString(name):
		return errors.New("the name is not valid UTF-8")
	case strings.ContainsRune(name, 0):
		return errors.New("the name contains a NUL character")
	case name[0] == '/':
		return errors.New("the name is absolute")
	case strings.Count(name, "/") >= MaxDepth:
		return fmt.Errorf("the name has more than %d parts", MaxDepth)
	}
	for part := range strings.SplitSeq(name, "/") {
		switch {
		case part == "" || part == ".":
			return errors.New("the name is not canonical")
		case part == "..":
			return errors.New("the name leads out of the model")
		case len(part) > maxComponent:
			return fmt.Errorf("a part of the name has %d bytes, want at most %d", len(part), maxComponent)
		}
	}
	return nil
}

// cleanIgnore returns the name that an entry of ignore_paths covers. OMS v1.0 section 6.2.1 rules out glob characters,
// absolute paths and "..", but not what is merely not clean, and signers write "./model.sig" or "cache/" as they were told.
func cleanIgnore(name string) (string, error) {
	if strings.ContainsAny(name, "*?[") {
		return "", errors.New("glob characters are not allowed: a path covers itself and what is below it")
	}
	if !slices.Contains(strings.Split(name, "/"), "..") {
		name = path.Clean(name)
	}
	return name, CheckName(name)
}

// covered reports whether set holds the path or a directory above it.
func covered(set map[string]bool, path string) bool {
	for p := path; p != ""; p = parent(p) {
		if set[p] {
			return true
		}
	}
	return false
}

// parent returns the directory of a clean relative path, "" at the top.
func parent(path string) string {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)]
}

// splitShard takes "path:start:end" apart. A path may contain colons itself: the last two decide.
func splitShard(name string) (path string, start, end int64, err error) {
	rest, last, ok := cutLast(name)
	path, first, ok2 := cutLast(rest)
	if !ok || !ok2 {
		return "", 0, 0, errors.New("not of the form path:start:end")
	}
	if start, err = parseOffset(first); err != nil {
		return "", 0, 0, err
	}
	if end, err = parseOffset(last); err != nil {
		return "", 0, 0, err
	}
	if end <= start {
		return "", 0, 0, errors.New("the shard is empty")
	}
	return path, start, end, nil
}

func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+1:], true
}

// parseOffset reads a byte offset in its one spelling: no sign, no leading zero, no underscore, no space.
func parseOffset(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || strconv.FormatInt(n, 10) != s || n < 0 || n > MaxFileSize {
		return 0, fmt.Errorf("%q is not a byte offset", s)
	}
	return n, nil
}

package oms

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/verifier/digest"
)

// The predicate on the wire (OMS v1.0 section 5.2, predicate.schema.json). Unknown members are refused here and in
// serialization.
type wirePredicate struct {
	Resources     []wireResource    `json:"resources"`
	Serialization wireSerialization `json:"serialization"`
}

type wireResource struct {
	Name      string `json:"name"`
	Algorithm string `json:"algorithm"`
	Digest    string `json:"digest"`

	// in-toto descriptors may say more (uri, annotations, …), which verifiers MUST ignore (section 5.2.1).
	Unknown map[string]jsontext.Value `json:",embed"`
}

// check refuses a member that only its case tells from one of the three: some verifiers would read that one.
func (w *wireResource) check() error {
	for other := range w.Unknown {
		for _, known := range []string{"name", "algorithm", "digest"} {
			if strings.EqualFold(other, known) {
				return fmt.Errorf("member %q beside %q", other, known)
			}
		}
	}
	return nil
}

// wireSerialization keeps values raw where absent, null and the zero value must not be taken for one another.
type wireSerialization struct {
	Method        string         `json:"method"`
	HashType      string         `json:"hash_type"`
	ShardSize     jsontext.Value `json:"shard_size,omitzero"`
	AllowSymlinks jsontext.Value `json:"allow_symlinks"`
	IgnorePaths   jsontext.Value `json:"ignore_paths,omitzero"`
}

func newWire(resources []Resource, ser Serialization) wirePredicate {
	w := wirePredicate{Serialization: wireSerialization{
		Method:        ser.Method,
		HashType:      string(ser.HashType),
		AllowSymlinks: jsontext.Value(strconv.FormatBool(ser.AllowSymlinks)),
	}}
	if ser.Method == MethodShards {
		w.Serialization.ShardSize = jsontext.Value(strconv.FormatInt(ser.ShardSize, 10))
	}
	if len(ser.IgnorePaths) > 0 {
		paths := slices.Clone(ser.IgnorePaths)
		slices.Sort(paths)
		raw, err := json.Marshal(slices.Compact(paths))
		if err != nil {
			panic("oms: internal error: checked paths don't marshal: " + err.Error())
		}
		w.Serialization.IgnorePaths = raw
	}
	for _, r := range resources {
		w.Resources = append(w.Resources, wireResource{Name: r.Name, Algorithm: r.Algorithm, Digest: r.Digest})
	}
	return w
}

func (w *wireSerialization) parse() (Serialization, error) {
	var s Serialization
	var err error
	s.Method = w.Method
	if s.HashType, err = digest.ParseAlgorithm(w.HashType); err != nil {
		return s, fmt.Errorf("hash_type: %w", err)
	}
	switch {
	case w.Method == MethodFiles && w.ShardSize != nil:
		return s, errors.New("shard_size: files have none")
	case w.Method == MethodShards:
		if s.ShardSize, err = parseShardSize(w.ShardSize); err != nil {
			return s, fmt.Errorf("shard_size: %w", err)
		}
	}
	switch string(w.AllowSymlinks) {
	case "true":
		s.AllowSymlinks = true
	case "false":
	default:
		return s, errors.New("allow_symlinks is neither true nor false")
	}
	if w.IgnorePaths == nil {
		return s, nil
	}
	var paths []*string
	if err := json.Unmarshal(w.IgnorePaths, &paths); err != nil || w.IgnorePaths.Kind() != jsontext.KindBeginArray {
		return s, errors.New("ignore_paths is not a list of strings")
	}
	for _, p := range paths {
		if p == nil {
			return s, errors.New("ignore_paths: null is not a path")
		}
		s.IgnorePaths = append(s.IgnorePaths, *p)
	}
	return s, nil
}

// parseShardSize takes any number literal whose value is a whole number of bytes: model_signing writes 1000000.0.
func parseShardSize(v jsontext.Value) (int64, error) {
	if v.Kind() != jsontext.KindNumber {
		return 0, errors.New("is missing or not a number")
	}
	f, err := strconv.ParseFloat(string(v), 64)
	// Up to MaxFileSize every whole number is exact in a float64.
	if err != nil || !(f >= 1 && f <= MaxFileSize) || f != math.Trunc(f) {
		return 0, fmt.Errorf("%.40s is not a whole number from 1 to %d", v, int64(MaxFileSize))
	}
	return int64(f), nil
}

// check returns the ignored paths as a set, or what is wrong.
func (s *Serialization) check() (map[string]bool, error) {
	switch {
	case s.HashType.Size() == 0:
		return nil, fmt.Errorf("hash_type: unknown hash algorithm %q", string(s.HashType))
	case s.Method != MethodFiles && s.Method != MethodShards:
		return nil, fmt.Errorf("unknown method %q, want files or shards", s.Method)
	case s.Method == MethodFiles && s.ShardSize != 0:
		return nil, errors.New("shard_size: files have none")
	case s.Method == MethodShards && (s.ShardSize < 1 || s.ShardSize > MaxFileSize):
		return nil, fmt.Errorf("shard_size: %d is not from 1 to %d", s.ShardSize, int64(MaxFileSize))
	case len(s.IgnorePaths) > MaxIgnorePaths:
		return nil, fmt.Errorf("ignore_paths: %d entries, want at most %d", len(s.IgnorePaths), MaxIgnorePaths)
	}
	ignored := map[string]bool{}
	for _, p := range s.IgnorePaths {
		name, err := cleanIgnore(p)
		if err != nil {
			return nil, fmt.Errorf("ignore_paths: %q: %w", p, err)
		}
		ignored[name] = true
	}
	return ignored, nil
}

// parse returns the file that the resource is a part of, and the part.
func (r *Resource) parse(ser Serialization) (name string, part digest.Part, err error) {
	part = digest.Part{Name: r.Name, End: digest.ToEnd}
	name = r.Name
	if ser.Method == MethodShards {
		if name, part.Start, part.End, err = splitShard(r.Name); err != nil {
			return "", part, err
		}
	}
	if name != SingleFile {
		if err := CheckName(name); err != nil {
			return "", part, err
		}
	}
	if part.Sum, err = parseSum(r.Digest, ser.HashType); err != nil {
		return "", part, err
	}
	// Section 6.3.2 wants the algorithm to be the hash_type; model_signing writes sha256-sharded-1000000 for shards.
	sharded := fmt.Sprintf("%s-sharded-%d", ser.HashType, ser.ShardSize)
	if r.Algorithm != string(ser.HashType) && (ser.Method != MethodShards || r.Algorithm != sharded) {
		return "", part, fmt.Errorf("algorithm is %q, but hash_type is %q", r.Algorithm, string(ser.HashType))
	}
	return name, part, nil
}

func parseSum(s string, alg digest.Algorithm) ([]byte, error) {
	sum, err := hex.DecodeString(s)
	if err != nil || len(sum) != alg.Size() || s != strings.ToLower(s) {
		return nil, fmt.Errorf("digest %.140q is not %d lower-case hex digits", s, 2*alg.Size())
	}
	return sum, nil
}

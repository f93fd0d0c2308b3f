package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/verifier"
	"github.com/weighbridge/weighbridge/verifier/digest"
	"github.com/weighbridge/weighbridge/verifier/digest/lanes"
	"github.com/weighbridge/weighbridge/verifier/seal"
)

var metrics = []bench.Metric{{Name: "seconds", Unit: "s", Digits: 3}, {Name: "cpu", Unit: "s", Digits: 2}}

// inMemory is how many bytes are hashed from memory by each core: shards that stay out of its caches.
const (
	memoryShards = 8
	memoryShard  = 16 << 20
)

// cases are, from memory: crypto/sha256 and our lanes, on one core and on all; from page cache: reading, hashing and
// sealing, and our command beside those of others.
func (s *site) cases() []bench.Case {
	cores := runtime.GOMAXPROCS(0)
	data := make([]byte, cores*memoryShards*memoryShard)
	for i := range data {
		data[i] = byte(i)
	}
	cases := []bench.Case{
		inMemory("crypto/sha256, 1 core", data, 1, standard),
		inMemory("lanes, 1 core", data, 1, pairs),
		inMemory("crypto/sha256, all cores", data, cores, standard),
		inMemory("lanes, all cores", data, cores, pairs),
		{Name: "read+hash+seal", Run: s.pipeline},
		s.command("verify shards", false, "bin/weighbridge", s.verify("shards")...),
		s.command("verify files", false, "bin/weighbridge", s.verify("files")...),
		s.command("verify blake3", false, "bin/weighbridge", s.verify("blake3")...),
		s.command("openssl", true, "openssl", "dgst", "-sha256", s.model),
		s.command("sha256sum", true, "sha256sum", s.model),
		s.command("b3sum", true, s.b3sum, s.model),
		s.command("b3sum, 1 thread", true, s.b3sum, "--num-threads", "1", s.model),
		s.command("model_signing", true, s.signing, "verify", "key", s.model,
			"--public_key", filepath.Join(s.dir, "key.pub"), "--signature", filepath.Join(s.dir, "files.sig")),
	}
	return cases
}

func (s *site) verify(signature string) []string {
	return []string{"model", "verify", s.model, "--quiet", "--public-key", filepath.Join(s.dir, "key.pub"), "--signature", filepath.Join(s.dir, signature+".sig")}
}

// inMemory hashes a share of data on each of so many cores.
func inMemory(name string, data []byte, cores int, hash func(shards [][]byte)) bench.Case {
	return bench.Case{Name: name, Peer: name[0] == 'c', Run: func(context.Context) (bench.Values, error) {
		return timed(func() error {
			var all sync.WaitGroup
			for core := range cores {
				var shards [][]byte
				for i := range memoryShards {
					at := (core*memoryShards + i) * memoryShard
					shards = append(shards, data[at:at+memoryShard])
				}
				all.Go(func() { hash(shards) })
			}
			all.Wait()
			return nil
		})
	}}
}

func standard(shards [][]byte) {
	for _, shard := range shards {
		sha256.Sum256(shard)
	}
}

func pairs(shards [][]byte) {
	for i := 0; i < len(shards); i += 2 {
		a, b := lanes.New(), lanes.New()
		lanes.WritePair(a, shards[i], b, shards[i+1])
		a.Sum(nil)
		b.Sum(nil)
	}
}

// pipeline loads the model from page cache into sealed memory. Memory is present before, and let go outside the time.
func (s *site) pipeline(ctx context.Context) (bench.Values, error) {
	if err := bench.Present(2 * modelSize); err != nil {
		return nil, err
	}
	pool := seal.NewPool(2 * modelSize)
	var w *seal.Weights
	values, err := timed(func() (err error) {
		w, err = verifier.Admit(ctx, pool, s.model, s.shards, seal.Options{})
		return err
	})
	return values, errors.Join(err, w.Close(), pool.Close())
}

// timed measures work in this process.
func timed(work func() error) (bench.Values, error) {
	begun, before := time.Now(), usage(syscall.RUSAGE_SELF)
	err := work()
	return bench.Values{"seconds": time.Since(begun).Seconds(), "cpu": usage(syscall.RUSAGE_SELF) - before}, err
}

func usage(who int) float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(who, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()).Seconds()
}

// command runs a program and measures it from outside.
func (s *site) command(name string, peer bool, program string, args ...string) bench.Case {
	return bench.Case{Name: name, Peer: peer, Run: func(ctx context.Context) (bench.Values, error) {
		cmd := exec.CommandContext(ctx, program, args...)
		begun := time.Now()
		out, err := cmd.CombinedOutput()
		if err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", program, err, out)
		}
		return bench.Values{"seconds": time.Since(begun).Seconds(), "cpu": (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds()}, nil
	}}
}

// report puts the figures behind the table.
func (s *site) report(r *bench.Result) *bench.Report {
	median := func(name string) float64 { return r.Median(name, "seconds") }
	figure := func(name string, v float64) bench.Figure { return bench.Figure{Name: name, Value: v, Digits: 2} }
	cores := float64(runtime.GOMAXPROCS(0))
	return &bench.Report{
		Name: "hash", Title: "How fast weights are hashed, read and sealed", Command: "make bench-hash",
		Facts:  append(bench.Machine(s.dir), bench.Fact{Name: "model", Value: fmt.Sprintf("%d bytes in page cache, shards of %d", modelSize, shardSize)}),
		Notes:  []string{fmt.Sprintf("from memory each core hashes %d shards of %d bytes; lanes on this machine: %d, %s whole files", memoryShards, memoryShard, lanes.Width(), digest.SHA256)},
		Result: r,
		Figures: []bench.Figure{
			figure("lanes/crypto-sha256", median("crypto/sha256, 1 core")/median("lanes, 1 core")),
			figure("lanes-scaling", cores*median("lanes, 1 core")/median("lanes, all cores")),
			figure("cores", cores),
			figure("pipeline-gbps", modelSize/1e9/median("read+hash+seal")),
			figure("verify-shards-gbps", modelSize/1e9/median("verify shards")),
			figure("verify-files/openssl", median("verify files")/median("openssl")),
			figure("verify-files/model_signing", median("verify files")/median("model_signing")),
			figure("verify-shards/openssl", median("verify shards")/median("openssl")),
			figure("blake3/b3sum", median("verify blake3")/median("b3sum")),
			figure("blake3/b3sum-1-thread", median("verify blake3")/median("b3sum, 1 thread")),
		},
	}
}

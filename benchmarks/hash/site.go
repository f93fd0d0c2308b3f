package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"

	"github.com/weighbridge/weighbridge/benchmarks/bench"
	"github.com/weighbridge/weighbridge/verifier"
	"github.com/weighbridge/weighbridge/verifier/digest"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

const (
	modelSize = 1 << 30
	shardSize = 64 << 20 // what model sign hints at for large models
)

// A site is a signed model in page cache, and the peers.
type site struct {
	dir     string
	model   string
	shards  *oms.Manifest
	b3sum   string
	signing string // model_signing
}

// newSite writes a model of noise and signs it.
func newSite(ctx context.Context, stderr io.Writer) (_ *site, err error) {
	s := &site{}
	if s.b3sum, err = bench.FindPart(ctx, "b3sum", stderr); err != nil {
		return nil, err
	}
	if s.signing, err = bench.FindPart(ctx, "model-signing", stderr); err != nil {
		return nil, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("find a place for the model: %w", err)
	}
	cache = filepath.Join(cache, "weighbridge")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return nil, err
	}
	if s.dir, err = os.MkdirTemp(cache, "bench-hash-"); err != nil {
		return nil, err
	}
	s.model = filepath.Join(s.dir, "model.bin")
	if err := errors.Join(s.write(), s.sign(ctx)); err != nil {
		s.close()
		return nil, fmt.Errorf("make the model: %w", err)
	}
	return s, nil
}

func (s *site) close() { os.RemoveAll(s.dir) }

// write writes the model, which stays in page cache.
func (s *site) write() error {
	f, err := os.Create(s.model)
	if err != nil {
		return err
	}
	noise, block := mathrand.NewChaCha8([32]byte{1}), make([]byte, 1<<20)
	for range modelSize / len(block) {
		_, _ = noise.Read(block) // never fails
		if _, err := f.Write(block); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(f.Sync(), f.Close())
}

// sign makes the manifest in shards, for what runs here, and signatures in files, for the commands.
func (s *site) sign(ctx context.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	signer, err := statement.NewKeySigner(key)
	if err != nil {
		return err
	}
	signed := func(o verifier.DigestOptions) ([]byte, error) {
		l, err := verifier.Digest(ctx, s.model, o)
		if err != nil {
			return nil, err
		}
		payload, err := l.Payload()
		if err != nil {
			return nil, err
		}
		return signer.Sign(payload)
	}
	shards, err := signed(verifier.DigestOptions{Method: oms.MethodShards, ShardSize: shardSize})
	if err != nil {
		return err
	}
	statement, err := statement.Parse(shards)
	if err != nil {
		return err
	}
	if s.shards, err = oms.ParseManifest(statement); err != nil {
		return err
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	pub := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	files, err := signed(verifier.DigestOptions{})
	if err != nil {
		return err
	}
	blake, err := signed(verifier.DigestOptions{Algorithm: digest.BLAKE3})
	if err != nil {
		return err
	}
	for name, data := range map[string][]byte{"key.pub": pub, "files.sig": files, "shards.sig": shards, "blake3.sig": blake} {
		if err := os.WriteFile(filepath.Join(s.dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/weighbridge/weighbridge/configs"
	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/store"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// auditOrigin is the name of a gateway's log in its checkpoints. Which gateway's it is, the key says.
const auditOrigin = "weighbridge/gateway"

// openTrail opens the gateway's audit log, and returns the key that signs it and the gateway's receipts. Like the state it is
// made only for who asks for it: a log that is gone must not go unnoticed.
func openTrail(c configs.Audit, create bool, log *slog.Logger) (*audit.Log, ed25519.PrivateKey, error) {
	key, err := gatewayKey(c.Key, create)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, withHint(fmt.Errorf("audit.key: %w", err), "a new gateway gets its key and its log with --init-state; an existing one needs them back")
	} else if err != nil {
		return nil, nil, fmt.Errorf("audit.key: %w", err)
	}
	cfg := audit.Config{Dir: c.Dir, Origin: auditOrigin, Key: key, Log: log}
	if create {
		if err := audit.Create(cfg); err != nil && !errors.Is(err, audit.ErrExists) {
			return nil, nil, fmt.Errorf("audit.dir: %w", err)
		}
	}
	trail, err := audit.Open(cfg)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, withHint(fmt.Errorf("audit.dir: %w", err), "a new gateway gets its log with --init-state; an existing one needs its log back")
	}
	if err != nil {
		return nil, nil, fmt.Errorf("audit.dir: %w", err)
	}
	return trail, key, nil
}

// gatewayKey reads the gateway's key, or makes it where there is none.
func gatewayKey(path string, create bool) (ed25519.PrivateKey, error) {
	data, err := store.ReadFile(path, statement.MaxKeyFile)
	if errors.Is(err, fs.ErrNotExist) && create {
		return newGatewayKey(path)
	}
	if err != nil {
		return nil, err
	}
	signer, err := statement.ParsePrivateKey(data, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	key, ok := signer.(ed25519.PrivateKey)
	if !ok {
		return nil, withHint(fmt.Errorf("%s is no Ed25519 key, which signed checkpoints need", path), "make one: weighbridge key new gateway --type ed25519")
	}
	return key, nil
}

// newGatewayKey writes a key, and beside it what verifies the log.
func newGatewayKey(path string) (ed25519.PrivateKey, error) {
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	text, err := trust.PublicPEM(public)
	if err != nil {
		return nil, err
	}
	return key, errors.Join(
		store.WriteFile(path+".pub", []byte(text), 0o644),
		store.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600),
	)
}

// closeTrail writes what is left.
func closeTrail(log *slog.Logger, trail *audit.Log) {
	if err := trail.Close(); err != nil {
		log.Error("the audit log was not closed cleanly", "err", err)
	}
}

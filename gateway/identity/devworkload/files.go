package devworkload

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/weighbridge/weighbridge/gateway/identity/workload"
	"github.com/weighbridge/weighbridge/verifier/store"
)

// The files of one identity, as curl, grpcurl and `identity: {files: …}` of a gateway take them.
const (
	SVIDFile   = "svid.pem"
	KeyFile    = "key.pem"
	BundleFile = "bundle.pem"
	TokenFile  = "token.jwt"
)

// FilesDir is where [Agent.Write] keeps the files of one identity: dir/apps/demo for spiffe://TD/apps/demo.
func FilesDir(dir string, id Identity) string {
	return filepath.Join(dir, filepath.FromSlash(id.ID.Path()))
}

func (a *Agent) writeAll(dir string, i workload.Issued) error {
	authorities, err := i.Bundle.X509Bundle().Marshal()
	if err != nil {
		return fmt.Errorf("encode bundle: %w", err)
	}
	for _, svid := range i.SVIDs {
		into := FilesDir(dir, Identity{ID: svid.ID})
		if err := os.MkdirAll(into, 0o700); err != nil {
			return fmt.Errorf("write SVID: %w", err)
		}
		chain, key, err := svid.Marshal()
		if err != nil {
			return fmt.Errorf("encode SVID %s: %w", svid.ID, err)
		}
		files := map[string][]byte{BundleFile: authorities, SVIDFile: chain, KeyFile: key}
		if a.config.Audience != "" {
			token, err := a.Token(svid.ID, []string{a.config.Audience})
			if err != nil {
				return err
			}
			files[TokenFile] = []byte(token)
		}
		for name, data := range files {
			// A reader may see the new certificate with the old key for a moment: it must check that they belong
			// together, as the gateway does.
			if err := store.WriteFile(filepath.Join(into, name), data, 0o600); err != nil {
				return fmt.Errorf("write SVID: %w", err)
			}
		}
	}
	return nil
}

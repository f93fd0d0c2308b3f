package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/spiffebundle"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/weighbridge/weighbridge/gateway/identity/workload"
)

// A fileSource serves the identity in files to this process, and serves it anew when they change.
type fileSource struct {
	files  Files
	server *workload.Server
	log    *slog.Logger
	stop   chan struct{}
	done   chan struct{}

	mu   sync.Mutex
	last map[string][]byte // what was read last by its key, good or bad, so that trouble is reported once
}

// openFiles fails if the files are not usable now; later troubles leave what was read before in force.
func openFiles(files Files, log *slog.Logger) (*fileSource, error) {
	s := &fileSource{files: files, server: workload.InProcess(), log: log, stop: make(chan struct{}), done: make(chan struct{})}
	if err := s.Reload(); err != nil {
		return nil, errors.Join(err, s.server.Close())
	}
	go s.watch()
	return s, nil
}

// watch polls: the files are small, and notifications miss what a mounted volume does with links.
func (s *fileSource) watch() {
	defer close(s.done)
	tick := time.NewTicker(filesInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := s.reload(false); err != nil {
				s.log.Warn("identity files were not taken, the old identity stays", "err", err)
			}
		case <-s.stop:
			return
		}
	}
}

// Reload reads the files now.
func (s *fileSource) Reload() error { return s.reload(true) }

// reload reads the files, and does nothing if they are as they were, unless told to.
func (s *fileSource) reload(always bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := map[string][]byte{}
	var errs []error
	for _, f := range s.files.named() {
		data, err := readFile(f.path)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.key, err))
			data = []byte(err.Error()) // a file that stays away is reported once
		}
		now[f.key] = data
	}
	if !always && maps.EqualFunc(now, s.last, bytes.Equal) {
		return nil
	}
	s.last = now
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	issued, err := s.parse(now)
	if err != nil {
		return err
	}
	return s.server.Set(issued)
}

// A namedFile is a file and its key in a configuration.
type namedFile struct{ key, path string }

// named are the files, in the order of their keys in a configuration.
func (f Files) named() []namedFile {
	all := []namedFile{{"svid", f.SVID}, {"key", f.Key}, {"bundle", f.Bundle}}
	for _, td := range slices.Sorted(maps.Keys(f.Bundles)) {
		all = append(all, namedFile{"bundles." + td, f.Bundles[td]})
	}
	return all
}

// parse refuses an identity that peers would refuse.
func (s *fileSource) parse(data map[string][]byte) (workload.Issued, error) {
	var out workload.Issued
	// It checks that the key belongs to the leaf, too.
	svid, err := x509svid.Parse(data["svid"], data["key"])
	if err != nil {
		return out, fmt.Errorf("svid %s, key %s: %w", s.files.SVID, s.files.Key, err)
	}
	out.SVIDs = []*x509svid.SVID{svid}
	if out.Bundle, err = parseBundle(svid.ID.TrustDomain(), data["bundle"]); err != nil {
		return out, fmt.Errorf("bundle %s: %w", s.files.Bundle, err)
	}
	if _, _, err := x509svid.Verify(svid.Certificates, out.Bundle); err != nil {
		return out, fmt.Errorf("svid %s does not verify with bundle %s: %w", s.files.SVID, s.files.Bundle, err)
	}
	for _, name := range slices.Sorted(maps.Keys(s.files.Bundles)) {
		path := s.files.Bundles[name]
		td, err := spiffeid.TrustDomainFromString(name)
		if err != nil {
			return out, fmt.Errorf("bundles: %q: %w", name, err)
		}
		if td == svid.ID.TrustDomain() {
			return out, fmt.Errorf("bundles: %q is the gateway's own trust domain: its bundle is that of bundle", name)
		}
		other, err := parseBundle(td, data["bundles."+name])
		if err != nil {
			return out, fmt.Errorf("bundles.%s %s: %w", name, path, err)
		}
		out.Federated = append(out.Federated, other)
	}
	return out, nil
}

// parseBundle reads certificates in PEM, or a bundle in SPIFFE's own format (JSON), which has keys of JWT-SVIDs too.
func parseBundle(td spiffeid.TrustDomain, data []byte) (*spiffebundle.Bundle, error) {
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		bundle, err := spiffebundle.Parse(td, data)
		if err != nil {
			return nil, err
		}
		if len(bundle.X509Authorities()) == 0 {
			return nil, errors.New("holds no certificate")
		}
		return bundle, nil
	}
	bundle, err := x509bundle.Parse(td, data)
	if err != nil {
		return nil, err
	}
	if bundle.Empty() {
		return nil, errors.New("holds no certificate")
	}
	return spiffebundle.FromX509Bundle(bundle), nil
}

func readFile(path string) ([]byte, error) {
	if path == "" {
		return nil, errors.New("is required")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return data, nil
}

// Close stops watching and serving.
func (s *fileSource) Close() error {
	close(s.stop)
	<-s.done
	return s.server.Close()
}

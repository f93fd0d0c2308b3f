package identity

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/weighbridge/weighbridge/gateway/identity/workload"
)

// A fileSource serves the identity in three files to this process, and serves it anew when they change.
type fileSource struct {
	files  Files
	server *workload.Server
	log    *slog.Logger
	stop   chan struct{}
	done   chan struct{}

	mu   sync.Mutex
	last [3][]byte // what was read last, good or bad, so that trouble is reported once
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
	var now [3][]byte
	for i, path := range []string{s.files.SVID, s.files.Key, s.files.Bundle} {
		var err error
		if now[i], err = readFile(path); err != nil {
			now[i] = []byte(err.Error()) // a file that stays away is reported once
			if !always && bytes.Equal(now[i], s.last[i]) {
				return nil
			}
			s.last[i] = now[i]
			return fmt.Errorf("%s: %w", [...]string{"svid", "key", "bundle"}[i], err)
		}
	}
	if !always && bytes.Equal(now[0], s.last[0]) && bytes.Equal(now[1], s.last[1]) && bytes.Equal(now[2], s.last[2]) {
		return nil
	}
	s.last = now
	svid, bundle, err := s.parse(now)
	if err != nil {
		return err
	}
	return s.server.Set([]*x509svid.SVID{svid}, bundle)
}

// parse refuses an identity that peers would refuse.
func (s *fileSource) parse(data [3][]byte) (*x509svid.SVID, *x509bundle.Bundle, error) {
	// It checks that the key belongs to the leaf, too.
	svid, err := x509svid.Parse(data[0], data[1])
	if err != nil {
		return nil, nil, fmt.Errorf("svid %s, key %s: %w", s.files.SVID, s.files.Key, err)
	}
	bundle, err := x509bundle.Parse(svid.ID.TrustDomain(), data[2])
	if err != nil {
		return nil, nil, fmt.Errorf("bundle %s: %w", s.files.Bundle, err)
	}
	if bundle.Empty() {
		return nil, nil, fmt.Errorf("bundle %s: holds no certificate", s.files.Bundle)
	}
	if _, _, err := x509svid.Verify(svid.Certificates, bundle); err != nil {
		return nil, nil, fmt.Errorf("svid %s does not verify with bundle %s: %w", s.files.SVID, s.files.Bundle, err)
	}
	return svid, bundle, nil
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

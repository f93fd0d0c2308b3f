package backendtest

import (
	"errors"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
)

// kill kills a backend's process, as the kernel does when memory runs out.
func kill(t *testing.T, b backends.Backend) {
	t.Helper()
	pid := b.Status().PID
	process := watch(t, pid)
	check(t, syscall.Kill(pid, syscall.SIGKILL))
	if !process.ended(Patience) {
		t.Fatalf("process %d did not end", pid)
	}
}

// crash has the runtime die.
func (s Suite) crash(t *testing.T, b backends.Backend) {
	t.Helper()
	if s.Crash != nil {
		s.Crash(t, b)
		return
	}
	kill(t, b)
}

func (s Suite) crashWhileLoading(t *testing.T) {
	path := WriteModel(t, tinygguf.A)
	check(t, os.Truncate(path, 100_000)) // signed as it is: a model that was broken before it was signed
	b, w := s.New(t, t.TempDir()), Seal(t, path)
	err := b.Start(t.Context(), w, s.spec())
	if !errors.Is(err, backends.ErrFailed) || !strings.Contains(err.Error(), "it wrote:") && !strings.Contains(err.Error(), "file size") {
		t.Errorf("Start() = %v, want ErrFailed and what the runtime wrote, or said", err)
	}
	check(t, w.Close())
	checkGone(t, b, watch(t, b.Status().PID))
}

// crashWhileIdle checks that a restart serves the same weights although their file is gone and altered.
func (s Suite) crashWhileIdle(t *testing.T) {
	path := WriteModel(t, tinygguf.A)
	b, w := s.New(t, t.TempDir()), Seal(t, path)
	check(t, b.Start(t.Context(), w, s.spec()))
	check(t, w.Close())
	defer stop(t, b)
	check(t, writeInto(path, modelOf(t, tinygguf.B)))
	check(t, os.Remove(path))
	for restarts := range 2 {
		s.crash(t, b)
		checkAnswer(t, b, Question("hello"), tinygguf.A.Sentence)
		s.checkReady(t, b, restarts+1)
	}
}

func (s Suite) crashWhileStreaming(t *testing.T) {
	b := s.start(t, endless)
	forever, killed := Question("hello"), false
	forever.MaxTokens = 0
	err := b.Chat(t.Context(), forever, func(backends.Chunk) error {
		if !killed {
			s.crash(t, b)
			killed = true
		}
		return nil
	})
	if !errors.Is(err, backends.ErrInterrupted) {
		t.Errorf("Chat() = %v, want ErrInterrupted", err)
	}
	next := Question("hello")
	next.MaxTokens = 1
	checkAnswer(t, b, next, "on and")
	s.checkReady(t, b, 1)
}

func (s Suite) stopWhileStreaming(t *testing.T) {
	b := s.start(t, endless)
	forever, stopped := Question("hello"), make(chan struct{})
	forever.MaxTokens = 0
	var once sync.Once
	err := b.Chat(t.Context(), forever, func(backends.Chunk) error {
		once.Do(func() {
			go func() {
				defer close(stopped)
				stop(t, b)
			}()
		})
		return nil
	})
	if !errors.Is(err, backends.ErrInterrupted) {
		t.Errorf("Chat() = %v, want ErrInterrupted", err)
	}
	<-stopped
}

// A pidfd stands for one process, also after its number was given to another.
type pidfd struct{ fd int }

func watch(t *testing.T, pid int) *pidfd {
	t.Helper()
	if pid == 0 {
		return &pidfd{-1}
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return &pidfd{-1} // it has ended
	}
	t.Cleanup(func() { unix.Close(fd) })
	return &pidfd{fd}
}

// ended reports whether the process ends within d.
func (p *pidfd) ended(d time.Duration) bool {
	if p.fd < 0 {
		return true
	}
	deadline := time.Now().Add(d)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, int(max(0, time.Until(deadline).Milliseconds())))
		if n == 1 || err != unix.EINTR {
			return n == 1
		}
	}
}

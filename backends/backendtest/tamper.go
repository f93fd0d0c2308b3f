package backendtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/weighbridge/weighbridge/backends"
	"github.com/weighbridge/weighbridge/backends/backendtest/tinygguf"
)

// lengthy says much, and altered not a word of it.
var (
	lengthy = tinygguf.Config{Sentence: numbered("line"), ChatTemplate: tinygguf.ChatTemplate}
	altered = tinygguf.Config{Sentence: numbered("other"), ChatTemplate: tinygguf.ChatTemplate}
)

func numbered(word string) string {
	var b strings.Builder
	for i := range 100 {
		fmt.Fprintf(&b, "%s%d ", word, i)
	}
	return b.String() + "end"
}

// altering are the ways to change a file at path to the file other, or to less. link is a directory with two names of it:
// symbolic and hard.
var altering = map[string]func(path, link string, other []byte) error{
	"in place": func(path, _ string, other []byte) error { return writeInto(path, other) },
	"through a symbolic link": func(_, link string, other []byte) error {
		return writeInto(filepath.Join(link, "symbolic"), other)
	},
	"through a hard link": func(_, link string, other []byte) error { return writeInto(filepath.Join(link, "hard"), other) },
	"by another process": func(path, _ string, other []byte) error {
		cmd := exec.Command("dd", "of="+path, "conv=notrunc", "status=none", "bs=1M")
		cmd.Stdin = bytes.NewReader(other)
		return cmd.Run()
	},
	"through a mapping": func(path, _ string, other []byte) error {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := f.Truncate(int64(len(other))); err != nil {
			return err
		}
		memory, err := syscall.Mmap(int(f.Fd()), 0, len(other), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
		if err != nil {
			return err
		}
		copy(memory, other)
		return syscall.Munmap(memory)
	},
	"by cutting it short": func(path, _ string, _ []byte) error { return os.Truncate(path, 0) },
	"by another in its place": func(path, _ string, other []byte) error {
		return errors.Join(os.WriteFile(path+".new", other, 0o600), os.Rename(path+".new", path))
	},
}

// writeInto writes into the same file, as an attacker would: without replacing it.
func writeInto(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	return errors.Join(err, f.Close())
}

// A tampered is a model's file that is changed again and again.
type tampered struct {
	path, link string
	next, last []byte
}

// change changes the file in one way, to what it was not. It may be called in any goroutine, one at a time.
func (f *tampered) change(t *testing.T, way string) {
	f.next, f.last = f.last, f.next
	for name, makeLink := range map[string]func(string, string) error{"symbolic": os.Symlink, "hard": os.Link} {
		name = filepath.Join(f.link, name)
		if err := errors.Join(os.RemoveAll(name), makeLink(f.path, name)); err != nil {
			t.Errorf("%s: %v", way, err)
		}
	}
	if err := altering[way](f.path, f.link, f.next); err != nil {
		t.Errorf("%s: the file could not be changed: %v", way, err)
	}
}

// tamper changes the file in each way, in each phase of a runtime's life. No answer may be another.
func (s Suite) tamper(t *testing.T) {
	f := &tampered{path: WriteModel(t, lengthy), link: t.TempDir(), next: modelOf(t, lengthy), last: modelOf(t, altered)}
	b, w := s.New(t, t.TempDir()), Seal(t, f.path)
	ways := slices.Sorted(maps.Keys(altering))
	for _, way := range ways { // sealed, and not started
		f.change(t, way)
	}
	loaded, changing := make(chan struct{}), sync.WaitGroup{}
	changing.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-loaded:
				return
			default:
				f.change(t, ways[i%len(ways)])
			}
		}
	})
	err := b.Start(t.Context(), w, s.spec())
	close(loaded)
	changing.Wait()
	check(t, err)
	check(t, w.Close())
	defer stop(t, b)

	for range 2 { // before a crash and after it
		for _, way := range ways {
			f.change(t, way) // idle
			s.checkLengthy(t, b, way, func() {})
			s.checkLengthy(t, b, way+" while streaming", func() { f.change(t, way) })
		}
		s.crash(t, b)
		f.change(t, ways[0])
	}
	s.checkLengthy(t, b, "after two crashes", func() {})
	s.checkReady(t, b, 2)
}

// checkLengthy checks what the lengthy model says, and has something done once it has begun.
func (s Suite) checkLengthy(t *testing.T, b backends.Backend, when string, meanwhile func()) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	req := Question("hello")
	req.MaxTokens = 0
	var answer strings.Builder
	err := b.Chat(ctx, req, func(c backends.Chunk) error {
		if answer.Len() == 0 {
			meanwhile()
		}
		answer.WriteString(c.Text)
		return nil
	})
	if got := answer.String(); err != nil || got != lengthy.Sentence {
		t.Errorf("%s: answer is %q, %v; want %q", when, got, err, lengthy.Sentence)
	}
}

// attackMode is the argument by which a test binary is another process that overwrites what it can.
const attackMode = "attack"

// Hook is called at the start of a TestMain, after process.Hook. It does not return if this is another process that tests
// start to attack a runtime.
func Hook() {
	if len(os.Args) == 4 && os.Args[1] == attackMode {
		attack(os.Args[2], os.Args[3])
	}
}

// attack overwrites, again and again, a model's file, what others see of a runtime's directory, and, through /proc, its
// links and its memory files, with model B. It says when it has been through once, and what it could write that is not
// a file on disk.
func attack(path, runtimeDir string) {
	var other bytes.Buffer
	if err := tinygguf.Write(&other, tinygguf.B); err != nil {
		panic(err)
	}
	wrote := func(path string) bool {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return false
		}
		defer f.Close()
		n, err := f.WriteAt(other.Bytes(), 0)
		return err == nil && n > 0
	}
	for {
		wrote(path)
		seen, _ := filepath.Glob(runtimeDir + "/*")
		for _, dir := range seen { // below what is mounted there
			os.MkdirAll(dir+"/models/blobs", 0o700)
			os.WriteFile(dir+"/models/blobs/sha256-"+strings.Repeat("0", 64), other.Bytes(), 0o600)
		}
		processes, _ := filepath.Glob("/proc/[0-9]*")
		for _, process := range processes {
			dir, ok := launchDir(process, runtimeDir)
			if !ok {
				continue
			}
			descriptors, _ := filepath.Glob(process + "/fd/*")
			for _, fd := range descriptors {
				target, _ := os.Readlink(fd)
				if !strings.HasPrefix(target, "/memfd:") {
					continue
				}
				fmt.Println("tried", target)
				if wrote(fd) || os.Truncate(fd, 0) == nil {
					fmt.Println("wrote", target)
				}
			}
			links, _ := filepath.Glob(process + "/root" + dir + "/*/*")
			deeper, _ := filepath.Glob(process + "/root" + dir + "/*/*/*")
			for _, link := range append(links, deeper...) {
				if target, err := os.Readlink(link); err != nil || !strings.HasPrefix(target, "/proc/") {
					continue
				}
				if os.Remove(link) == nil || os.Symlink(path, link) == nil {
					fmt.Println("replaced", link)
				}
			}
		}
		fmt.Println("once")
	}
}

// launchDir returns the directory of a runtime: that of its executable, or the one that it works in if it was executed from
// memory. What becomes a runtime is none before.
func launchDir(process, runtimeDir string) (dir string, ok bool) {
	exe, _ := os.Readlink(process + "/exe")
	dir = filepath.Dir(exe)
	if strings.HasPrefix(exe, "/memfd:") {
		dir, _ = os.Readlink(process + "/cwd")
	}
	return dir, filepath.Dir(dir) == runtimeDir
}

// overwrite has another process overwrite everything while a runtime starts, idles, is started again and streams.
func (s Suite) overwrite(t *testing.T) {
	if s.Crash != nil {
		t.Skip("there is nothing of the runtime here")
	}
	path, runtimeDir := WriteModel(t, tinygguf.A), t.TempDir()
	if missing := s.start(t, tinygguf.A).Status().Sandbox.Missing; slices.ContainsFunc(missing, func(m string) bool { return strings.Contains(m, "no namespaces of its own") }) {
		t.Skipf("the sandbox lacks %q", missing) // what others put there can't be opened, but links are gone
	}
	b, w := s.New(t, runtimeDir), Seal(t, path)
	cmd := exec.Command("/proc/self/exe", attackMode, path, runtimeDir)
	var said Lines
	cmd.Stdout = &said
	check(t, cmd.Start())
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
		text := said.Text()
		for line := range strings.Lines(text) {
			if strings.HasPrefix(line, "wrote") || strings.HasPrefix(line, "replaced") {
				t.Errorf("it %s", line)
			}
		}
		if os.Geteuid() == 0 && !strings.Contains(text, "tried") {
			t.Error("it never came as far as to the runtime's memory")
		}
	}()
	said.WaitForMore(t, "once", 1)
	check(t, b.Start(t.Context(), w, s.spec()))
	check(t, w.Close())
	defer b.Stop(context.Background())
	said.WaitForMore(t, "once", 2)
	checkAnswer(t, b, Question("hello"), tinygguf.A.Sentence)
	s.crash(t, b)
	checkAnswer(t, b, Question("hello"), tinygguf.A.Sentence)
	said.WaitForMore(t, "once", 2)
	first := true
	var answer strings.Builder
	err := b.Chat(t.Context(), Question("hello"), func(c backends.Chunk) error {
		if first {
			said.WaitForMore(t, "once", 2)
		}
		first = false
		answer.WriteString(c.Text)
		return nil
	})
	if err != nil || answer.String() != tinygguf.A.Sentence {
		t.Errorf("answer is %q, %v; want %q", answer.String(), err, tinygguf.A.Sentence)
	}
	if data, err := os.ReadFile(path); err != nil || !bytes.Equal(data, modelOf(t, tinygguf.B)) {
		t.Errorf("the file on disk was not overwritten: %v", err)
	}
}

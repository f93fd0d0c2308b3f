package scrub

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sys/unix"

	"github.com/weighbridge/weighbridge/verifier"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
)

// ReadCommand is the hidden subcommand under which a program that calls [Hook] reads one copy and ends.
const ReadCommand = "scrub-read"

const (
	self    = "/proc/self/exe" // this program, whatever its file's name leads to by now
	lowered = "lowered"        // the argument of ReadCommand once the process has its low priority
)

// Exit statuses of the reading process.
const (
	exitTrouble = 1
	exitOrphan  = 3 // nobody waits for the answer any more
)

// A job is one copy to be read.
type job struct {
	Path      string `json:"path"`
	Statement []byte `json:"statement"` // the bundle that lists its files
	Rate      int64  `json:"rate"`      // bytes a second
}

// An answer says how the copy is.
type answer struct {
	Bytes    int64    `json:"bytes"`    // of it, if nothing is wrong
	Problems []string `json:"problems"` // the first of those that it has
	More     int      `json:"more"`     // how many there are beside them
	Unread   string   `json:"unread"`   // why it could not be looked at
}

// Hook reads one copy and ends this process, if it was started for that; otherwise it returns at once. Every main, and every
// TestMain of a package that runs a [Scrubber], calls it before anything else.
func Hook() {
	if len(os.Args) < 2 || os.Args[1] != ReadCommand {
		return
	}
	err := func() error {
		if len(os.Args) == 2 {
			return lower()
		}
		return serveJob(os.Stdin, os.Stdout)
	}()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", ReadCommand, err)
		os.Exit(exitTrouble)
	}
	os.Exit(0)
}

// The lowest priority for the disk: see ioprio_set(2).
const (
	ioprioWhoProcess = 1
	ioprioIdle       = 3 << 13
)

// lower gives this thread the lowest priority for processor and disk and starts the program anew on it: a priority is a
// thread's own, and is inherited by those that it starts, but this process has others by now. It returns only if it fails.
func lower() error {
	runtime.LockOSThread()
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 19); err != nil {
		return fmt.Errorf("lower the priority for the processor: %w", err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, ioprioWhoProcess, 0, ioprioIdle); errno != 0 {
		return fmt.Errorf("lower the priority for the disk: %w", errno)
	}
	// Where memory runs out nobody is to die for this. It is only a preference.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	return fmt.Errorf("start anew: %w", syscall.Exec(self, []string{self, ReadCommand, lowered}, os.Environ()))
}

// serveJob reads the copy that in names, at its rate, and says on out how it is. When in ends before, so does this process:
// whoever would want to know is gone.
func serveJob(in io.Reader, out io.Writer) error {
	var j job
	from := jsontext.NewDecoder(in)
	if err := json.UnmarshalDecode(from, &j, json.RejectUnknownMembers(true)); err != nil {
		return fmt.Errorf("read job: %w", err)
	}
	go func() {
		_, _ = from.ReadToken() // nothing comes but the end
		os.Exit(exitOrphan)
	}()
	a, err := j.read(context.Background())
	if err != nil {
		return err
	}
	return json.MarshalWrite(out, a)
}

// read verifies the copy as it lies on the device, whatever is in memory of it.
func (j job) read(ctx context.Context) (answer, error) {
	s, err := statement.Parse(j.Statement)
	if err != nil {
		return answer{}, fmt.Errorf("read job: %w", err)
	}
	m, err := oms.ParseManifest(s)
	if err != nil {
		return answer{}, fmt.Errorf("read job: %w", err)
	}
	o := verifier.AdmitOptions(j.Path)
	o.PastCache = true
	o.Progress = newPace(j.Rate).wait
	report, err := verifier.Verify(ctx, j.Path, m, o)
	var refused *verifier.Refused
	switch {
	case errors.As(err, &refused):
		a := answer{}
		for _, p := range refused.Problems[:min(len(refused.Problems), maxShown)] {
			a.Problems = append(a.Problems, p.String())
		}
		a.More = len(refused.Problems) - len(a.Problems)
		return a, nil
	case err != nil:
		return answer{Unread: err.Error()}, nil //nolint:nilerr // it is the answer
	}
	return answer{Bytes: report.Bytes}, nil
}

// A pace holds whoever reads to a rate. The priority for the disk is no more than a wish: some ways of scheduling it,
// those of most fast devices among them, know none.
type pace struct {
	rate float64 // bytes a second

	mu   sync.Mutex
	next time.Time // when what was read so far is through
}

func newPace(rate int64) *pace { return &pace{rate: float64(rate)} }

// wait returns when n more bytes may have been read.
func (p *pace) wait(n int64) {
	ahead := time.Duration(burst / p.rate * float64(time.Second))
	p.mu.Lock()
	now := time.Now()
	if p.next.IsZero() || now.Sub(p.next) > 0 {
		p.next = now
	}
	p.next = p.next.Add(time.Duration(float64(n) / p.rate * float64(time.Second)))
	until := p.next.Add(-ahead)
	p.mu.Unlock()
	time.Sleep(time.Until(until))
}

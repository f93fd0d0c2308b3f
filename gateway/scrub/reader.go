package scrub

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"

	"github.com/go-json-experiment/json"
)

// read has a copy read by a process of its own, which is this program started again: of a process all threads are of low
// priority, and which thread reads and hashes is the runtime's choice. The process ends with ctx, and with this one.
func read(ctx context.Context, j job) (answer, error) {
	cmd := exec.CommandContext(ctx, self, ReadCommand)
	cmd.Env = []string{"GOMAXPROCS=1"} // one core hashes faster than the rate is; nothing else is for it to know
	cmd.WaitDelay = answerAfter
	// A process group of its own: a terminal's Ctrl-C is for the gateway.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	in, err := cmd.StdinPipe() // open until it has answered: it ends when this end is closed, by whatever closes it
	if err != nil {
		return answer{}, fmt.Errorf("start the reading process: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return answer{}, fmt.Errorf("start the reading process: %w", err)
	}
	told := json.MarshalWrite(in, j)
	err = cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return answer{}, ctx.Err()
	case err != nil && complaint.Len() > 0:
		line, _, _ := strings.Cut(complaint.String(), "\n")
		return answer{}, fmt.Errorf("the reading process: %w: %s", err, line)
	case err != nil:
		return answer{}, fmt.Errorf("the reading process: %w", err)
	case told != nil:
		return answer{}, fmt.Errorf("tell the reading process what to read: %w", told)
	}
	var a answer
	if err := json.Unmarshal(out.Bytes(), &a, json.RejectUnknownMembers(true)); err != nil {
		return answer{}, fmt.Errorf("the reading process's answer: %w", err)
	}
	return a, nil
}

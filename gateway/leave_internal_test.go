package gateway

import (
	"bytes"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

// recorded is a connection that keeps what is written to it.
type recorded struct {
	net.Conn
	bytes.Buffer
}

func (r *recorded) Write(p []byte) (int, error) { return r.Buffer.Write(p) }
func (r *recorded) Read(p []byte) (int, error)  { return r.Buffer.Read(p) }
func (r *recorded) Close() error                { return nil }

// TestLeaver writes frames in all ways of cutting them in two, while the time comes in between.
func TestLeaver(t *testing.T) {
	frame := func(n int) []byte {
		return append([]byte{0, 0, byte(n), 0, 0, 0, 0, 0, 1}, bytes.Repeat([]byte{'x'}, n)...)
	}
	frames := append(append(frame(3), frame(0)...), frame(20)...)
	ends := map[int]bool{len(frame(3)): true, len(frame(3)) + len(frame(0)): true, len(frames): true}
	for cut := range len(frames) + 1 {
		synctest.Test(t, func(t *testing.T) {
			to := &recorded{}
			conn := leaveAfter(to, time.Second)
			write := func(p []byte) {
				if n, err := conn.Write(p); n != len(p) || err != nil {
					t.Fatalf("Write = %d, %v", n, err)
				}
			}
			write(frames[:cut])
			time.Sleep(2 * time.Second)
			synctest.Wait()
			write(frames[cut:])
			at := cut // where it must stand: not in a frame, and not before the first
			for !ends[at] {
				at++
			}
			if cut != at {
				at = len(frames) // the rest is one write, and only its end is looked at
			}
			want := append(append(bytes.Clone(frames[:at]), goAway...), frames[at:]...)
			if got := to.Bytes(); !bytes.Equal(got, want) {
				t.Errorf("cut at %d: wrote %x, want %x", cut, got, want)
			}
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

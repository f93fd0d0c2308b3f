package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"golang.org/x/sync/errgroup"

	"github.com/weighbridge/weighbridge/benchmarks/site"
	"github.com/weighbridge/weighbridge/gateway/identity"
)

// loudCommand has this program be the loud caller, in a process of its own.
const loudCommand = "loud"

// A demand is what a loud caller asks for.
type demand struct {
	Caller      string        // its name, and that of its identity in the site
	Connections int           // that ask, each of them for one thing at a time
	Every       time.Duration // how often each does, by turns; 0: again as soon as it has its answer
	Pause       time.Duration // after a refusal
	Tokens      int           // of an answer
}

// A tally is what became of a loud caller's requests.
type tally struct {
	Answered, Refused, Failed int
	Anew                      int    // connections that were made after the first of each place
	Example                   string // of what failed first
}

func (t *tally) add(o tally) {
	t.Answered += o.Answered
	t.Refused += o.Refused
	t.Failed += o.Failed
	t.Anew += o.Anew
	if t.Example == "" {
		t.Example = o.Example
	}
}

// sent are all requests.
func (t *tally) sent() int { return t.Answered + t.Refused + t.Failed }

// beLoud asks until ctx ends, and then writes the tally.
func beLoud(ctx context.Context, args []string, stdout io.Writer) error {
	flags := flag.NewFlagSet(loudCommand, flag.ContinueOnError)
	dir := flags.String("site", "", "where identities are")
	address := flags.String("address", "", "of the gateway")
	var d demand
	flags.StringVar(&d.Caller, "caller", "", "who asks")
	flags.IntVar(&d.Connections, "connections", 1, "that ask")
	flags.DurationVar(&d.Every, "every", 0, "how often each does")
	flags.DurationVar(&d.Pause, "pause", 0, "after a refusal")
	flags.IntVar(&d.Tokens, "tokens", 1, "of an answer")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s := &site.Site{Dir: *dir}
	id, err := s.Identity(ctx, d.Caller)
	if err != nil {
		return err
	}
	defer id.Close()
	total, err := d.ask(ctx, *address, id)
	if err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(total)
}

// ask asks on all connections until ctx ends.
func (d demand) ask(ctx context.Context, address string, id *identity.Source) (tally, error) {
	dialer := &tls.Dialer{Config: id.ClientTLS(tlsconfig.AuthorizeMemberOf(id.TrustDomain()))}
	begun := time.Now()
	tallies := make([]tally, d.Connections)
	g, ctx := errgroup.WithContext(ctx)
	for n := range tallies {
		c := &loudConn{
			dial:    func(ctx context.Context) (io.ReadWriteCloser, error) { return dialer.DialContext(ctx, "tcp", address) },
			request: d.request(address), tally: &tallies[n],
		}
		first := begun.Add(d.Every * time.Duration(n) / time.Duration(d.Connections))
		g.Go(func() error { return c.ask(ctx, d, first) })
	}
	err := g.Wait()
	var total tally
	for _, t := range tallies {
		total.add(t)
	}
	return total, err
}

// request is the same each time, and so is written once.
func (d demand) request(address string) []byte {
	body := fmt.Sprintf(`{"model":%q,"max_tokens":%d,"messages":[{"role":"user","content":"Go on?"}]}`, site.Channel, d.Tokens)
	return fmt.Appendf(nil, "POST /v1/chat/completions HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", address, len(body), body)
}

// A loudConn asks on a connection that stays open as long as the gateway lets it.
type loudConn struct {
	dial    func(context.Context) (io.ReadWriteCloser, error)
	request []byte
	tally   *tally

	conn io.ReadWriteCloser // nil: there is none now
	from *bufio.Reader      // nil: there never was one
}

// ask asks until ctx ends, and has the last answer. Where answers come late it asks less often.
func (c *loudConn) ask(ctx context.Context, d demand, due time.Time) error {
	defer c.close()
	clock := time.NewTimer(0)
	defer clock.Stop()
	for {
		if err := c.connect(ctx); ctx.Err() != nil {
			return nil
		} else if err != nil {
			return err
		}
		clock.Reset(time.Until(due))
		select {
		case <-clock.C:
		case <-ctx.Done():
			return nil
		}
		refused := c.once()
		due = later(due.Add(d.Every), time.Now())
		if refused {
			due = later(due, time.Now().Add(d.Pause))
		}
	}
}

// connect makes a connection if there is none.
func (c *loudConn) connect(ctx context.Context) (err error) {
	if c.conn != nil {
		return nil
	}
	if c.conn, err = c.dial(ctx); err != nil {
		return err
	}
	if c.from != nil {
		c.tally.Anew++
	}
	c.from = bufio.NewReader(c.conn)
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// once sends the request, counts what came of it and returns whether it was refused.
func (c *loudConn) once() (refused bool) {
	status, last, err := c.exchange()
	if err != nil || last {
		c.close()
	}
	switch {
	case err != nil:
		c.fail(err.Error())
	case status == http.StatusOK:
		c.tally.Answered++
	case status == http.StatusTooManyRequests:
		c.tally.Refused++
	default:
		c.fail(http.StatusText(status))
	}
	return err == nil && status == http.StatusTooManyRequests
}

func (c *loudConn) fail(why string) {
	c.tally.add(tally{Failed: 1, Example: why})
}

// exchange returns the status of the answer, and whether it is the connection's last.
func (c *loudConn) exchange() (status int, last bool, err error) {
	if _, err := c.conn.Write(c.request); err != nil {
		return 0, false, err
	}
	res, err := http.ReadResponse(c.from, nil)
	if err != nil {
		return 0, false, err
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, res.Body)
	return res.StatusCode, res.Close, err
}

func (c *loudConn) close() {
	if c.conn != nil {
		c.conn.Close()
		c.conn = nil
	}
}

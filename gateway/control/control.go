// Package control is the operators' API.
//
// The one rule: it carries questions and answers, it approves nothing. Whoever reaches it can learn what is served and
// why, and can cause nothing to be served that signed statements do not allow.
package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/weighbridge/weighbridge/gateway/catalog"
	"github.com/weighbridge/weighbridge/gateway/socket"
	controlv1 "github.com/weighbridge/weighbridge/proto/weighbridge/control/v1"
	"github.com/weighbridge/weighbridge/verifier/hostmem"
	"github.com/weighbridge/weighbridge/verifier/seal"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// A Catalog is what the control API reports on.
type Catalog interface {
	Status() map[string]catalog.Status
	Runtimes() map[string][]catalog.Runtime
	Policy() *trust.Policy // nil before there is one
	Memory() seal.Usage
	Problems() []string
	Snapshot() (catalog.Snapshot, error)
}

// A Mailbox takes statements in.
type Mailbox interface {
	// Submit puts statements where the gateway finds them, unless it is only asked what they would change. It returns the
	// decision without and with them. Its error is written for an operator. If it is that of a disk, statements before
	// the one that it names were taken in: each stands by itself, and submitting all again does no harm.
	Submit(ctx context.Context, bundles []*statement.Signed, dryRun bool) (before, after trust.Decision, err error)
}

// Listen opens the operators' socket.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	l, err := socket.Listen(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("listen for operators: %w", err)
	}
	return l, nil
}

// Serve answers operators until ctx ends. It closes the listener.
func Serve(ctx context.Context, l net.Listener, c Catalog, m Mailbox) error {
	s := grpc.NewServer(grpc.MaxRecvMsgSize(maxRequest), grpc.MaxSendMsgSize(MaxAnswer))
	controlv1.RegisterControlServer(s, &server{catalog: c, mailbox: m})
	stopped := context.AfterFunc(ctx, s.Stop) // answers take no time: nothing is worth draining
	defer stopped()
	if err := s.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("serve operators: %w", err)
	}
	return nil
}

type server struct {
	controlv1.UnimplementedControlServer
	catalog Catalog
	mailbox Mailbox
}

// Status implements the Control service.
func (s *server) Status(_ context.Context, req *controlv1.StatusRequest) (*controlv1.StatusResponse, error) {
	res := &controlv1.StatusResponse{Channels: map[string]*controlv1.Channel{}}
	if p := s.catalog.Policy(); p != nil {
		res.Policy = &controlv1.Policy{Version: p.Version(), Digest: string(p.Digest()), Expires: timestamppb.New(p.Expires())}
	}
	res.Memory, res.Problems = s.memory(), s.catalog.Problems()
	runtimes := s.catalog.Runtimes()
	for name, ch := range s.catalog.Status() {
		if asked(req.GetChannels(), name) {
			c := channel(ch)
			for _, r := range runtimes[name] {
				c.Runtimes = append(c.Runtimes, runtime(r))
			}
			res.Channels[name] = c
		}
	}
	return res, nil
}

// asked reports whether a channel is among those asked for; none means all.
func asked(names []string, name string) bool { return len(names) == 0 || slices.Contains(names, name) }

func channel(ch catalog.Status) *controlv1.Channel {
	c := &controlv1.Channel{
		Release: ch.Release, Weights: ch.Weights, Level: ch.Level, Sandbox: ch.Sandbox,
		Epoch: ch.Epoch, Publication: ch.Publication,
		State: controlv1.State(controlv1.State_value["STATE_"+strings.ToUpper(string(ch.State))]),
		Since: timestamppb.New(ch.Since), Inflight: ch.Inflight, Error: ch.Error, Fallback: ch.Fallback,
		Warm: ch.Warm, Waiting: ch.Waiting, Draining: ch.Draining,
	}
	for _, end := range ch.Ends {
		c.Ends = append(c.Ends, &controlv1.End{Kind: end.Kind, Time: timestamppb.New(end.At), Identity: end.Identity})
	}
	if l := ch.Load; l != nil {
		c.Load = &controlv1.Load{Release: l.Release, Phase: l.Phase, Bytes: l.Bytes, Total: l.Total, Rate: l.Rate, SecondsLeft: l.Left.Seconds()}
	}
	return c
}

func runtime(r catalog.Runtime) *controlv1.Runtime {
	return &controlv1.Runtime{
		Release: r.Release, Role: r.Role, Kind: r.Kind, State: string(r.Status.State), Pid: int64(r.Status.PID), Processes: int64(r.Processes),
		Restarts: int64(r.Status.Restarts), Build: r.Status.Build, CpuSeconds: r.CPU.Seconds(), Memory: r.Memory, Missing: r.Status.Sandbox.Missing,
	}
}

// memory says how memory is used and what this system grants. What can't be found out is a hint.
func (s *server) memory() *controlv1.Memory {
	u := s.catalog.Memory()
	m := &controlv1.Memory{Limit: u.Limit, InUse: u.InUse, Warm: u.Warm, HugePages: seal.HugePages()}
	if hint := hostmem.Here.HugePages().Hint(); hint != "" {
		m.Hints = append(m.Hints, hint)
	}
	swap, err := hostmem.Here.Swap()
	if m.Swap = swap.On || err != nil; m.Swap && u.Pinned < u.InUse+u.Warm {
		m.Hints = append(m.Hints, "weights may be written to swap: set MemorySwapMax=0 on the service, or LimitMEMLOCK=infinity, which lets it lock them")
	}
	return m
}

// watchEvery is how often a watcher is told of what has changed.
const watchEvery = 200 * time.Millisecond

// Watch implements the Control service.
func (s *server) Watch(req *controlv1.WatchRequest, stream grpc.ServerStreamingServer[controlv1.WatchResponse]) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	told := map[string]*controlv1.Channel{}
	for {
		now := timestamppb.Now()
		for name, status := range s.catalog.Status() {
			c := channel(status)
			if !asked(req.GetChannels(), name) || told[name] != nil && proto.Equal(told[name], c) {
				continue
			}
			told[name] = c
			if err := stream.Send(&controlv1.WatchResponse{Time: now, Name: name, Channel: c}); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-stream.Context().Done():
			return nil
		}
	}
}

package gateway

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/weighbridge/weighbridge/gateway/access"
	"github.com/weighbridge/weighbridge/gateway/identity"
	"github.com/weighbridge/weighbridge/gateway/receipt"
	"github.com/weighbridge/weighbridge/gateway/receipt/wire"
	oip "github.com/weighbridge/weighbridge/proto/inference"
	pb "github.com/weighbridge/weighbridge/proto/weighbridge/inference/v1"
)

// grpcServer returns the server of a gRPC door, and the health that it reports.
func (g *Gateway) grpcServer(token bool) (*grpc.Server, *health.Server) {
	s := grpc.NewServer(append(g.grpcDoor(token),
		grpc.UnaryInterceptor(g.unary),
		grpc.StreamInterceptor(g.streaming),
		grpc.ForceServerCodecV2(wire.Codec()),
		grpc.MaxRecvMsgSize(maxBody),
		grpc.MaxHeaderListSize(maxHeader),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.WaitForHandlers(true),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minPing, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionAge: maxConnectionAge, MaxConnectionAgeGrace: maxConnectionGrace, MaxConnectionIdle: idleTimeout,
			Time: idleTimeout, Timeout: writeTimeout,
		}),
	)...)
	h := health.NewServer()
	channels := &channelHealth{reported: h, g: g}
	s.RegisterService(streamed(pb.Inference_ServiceDesc), &inference{g: g})
	s.RegisterService(streamed(oip.GRPCInferenceService_ServiceDesc), &openInference{g: g, health: channels})
	grpc_health_v1.RegisterHealthServer(s, channels)
	reflection.Register(s)
	return s, h
}

type callKey struct{}

// callOf returns the call that an interceptor found to be ctx's.
func callOf(ctx context.Context) call {
	c, _ := ctx.Value(callKey{}).(call)
	return c
}

// enterGRPC finds out who calls. What is not ours to authorize by rule (health, reflection) is for our own trust domain.
func (g *Gateway) enterGRPC(ctx context.Context, method string, server any) (context.Context, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	ctx = traceContext.Extract(ctx, carrier(md))
	c := call{protocol: protocolGRPC, id: requestID(carrier(md).Get(headerRequestID))}
	err := g.identifyGRPC(ctx, &c, byRule(server, method))
	switch {
	case err != nil:
	case byRule(server, method):
		err = g.admit(c)
	case !c.caller.MemberOf(g.identity.TrustDomain()):
		err = fmt.Errorf("caller %s: %w: not of trust domain %s", c.caller, access.ErrDenied, g.identity.TrustDomain())
	}
	if err != nil {
		g.logOther(ctx, c, method, err)
		return ctx, err
	}
	return context.WithValue(ctx, callKey{}, c), nil
}

func (g *Gateway) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (_ any, err error) {
	defer g.recovered(ctx, info.FullMethod, &err)
	ctx, err = g.enterGRPC(ctx, info.FullMethod, info.Server)
	if err != nil {
		return nil, toGRPC(err)
	}
	_ = grpc.SetHeader(ctx, metadata.Pairs(headerRequestID, callOf(ctx).id))
	return next(ctx, req)
}

func (g *Gateway) streaming(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer g.recovered(stream.Context(), info.FullMethod, &err)
	ctx, err := g.enterGRPC(stream.Context(), info.FullMethod, server)
	if err != nil {
		return toGRPC(err)
	}
	c := callOf(ctx)
	_ = stream.SetHeader(metadata.Pairs(headerRequestID, c.id))
	// It may be asked nothing for long: then this ends it, and not what ends a request. Of health and reflection it ends all.
	ctx, leave := context.WithTimeoutCause(ctx, g.known(c), identity.ErrExpired)
	defer leave()
	if byRule(server, info.FullMethod) {
		md, _ := metadata.FromIncomingContext(ctx)
		if c.receipt, err = g.draft(c, md.Get(headerReceipt)); err != nil {
			g.logOther(ctx, c, info.FullMethod, err)
			return toGRPC(err)
		}
		ctx = context.WithValue(ctx, callKey{}, c)
		err = errUnended
		defer func() { c.receipt.End(err) }()
	}
	err = next(server, &identified{stream, ctx, c.receipt})
	if cause := context.Cause(ctx); err != nil && errors.Is(cause, identity.ErrExpired) {
		return toGRPC(cause) // health and reflection know no reason of ours
	}
	return err
}

// identified is a stream whose context knows the call, and whose bytes are shown to its receipt.
type identified struct {
	grpc.ServerStream
	ctx     context.Context //nolint:containedctx // it is how a gRPC stream carries it
	receipt *receipt.Draft
}

func (s *identified) Context() context.Context { return s.ctx }

// RecvMsg implements grpc.ServerStream.
func (s *identified) RecvMsg(m any) error {
	if s.receipt != nil {
		m = wire.Watch(m, s.receipt.Request())
	}
	if err := s.ServerStream.RecvMsg(m); err != nil {
		return err
	}
	return s.ctx.Err() // which neither reflection nor gRPC itself looks at
}

// SendMsg implements grpc.ServerStream.
func (s *identified) SendMsg(m any) error {
	if s.receipt != nil {
		m = wire.Watch(m, s.receipt.Response())
	}
	return s.ServerStream.SendMsg(m)
}

// recovered keeps one request's bug from ending the others.
func (g *Gateway) recovered(ctx context.Context, method string, err *error) {
	if p := recover(); p != nil {
		g.log.ErrorContext(ctx, "request panicked", "method", method, "panic", p, "stack", string(debug.Stack()))
		*err = toGRPC(fmt.Errorf("panic: %v", p))
	}
}

// known refuses fields that the contract does not have, at any depth: whoever sent one means something by it that
// would be lost.
func known(m proto.Message) error { return knownIn(m.ProtoReflect(), "") }

func knownIn(m protoreflect.Message, path string) error {
	if raw := m.GetUnknown(); len(raw) > 0 {
		number, _, _ := protowire.ConsumeTag(raw)
		return invalid(fmt.Sprintf("%sfield %d", path, number), "is unknown")
	}
	var err error
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
					err = knownIn(v.Message(), path+fieldName(jsontext.Pointer("").AppendToken(string(f.Name())).AppendToken(k.String()))+".")
					return err == nil
				})
			}
		case f.Message() == nil:
		case f.IsList():
			for i := 0; i < v.List().Len() && err == nil; i++ {
				err = knownIn(v.List().Get(i).Message(), fmt.Sprintf("%s%s[%d].", path, f.Name(), i))
			}
		default:
			err = knownIn(v.Message(), fmt.Sprintf("%s%s.", path, f.Name()))
		}
		return err == nil
	})
	return err
}

// carrier lets the trace propagator read metadata.
type carrier metadata.MD

// Get implements propagation.TextMapCarrier.
func (c carrier) Get(key string) string {
	if v := metadata.MD(c).Get(key); len(v) > 0 {
		return v[0]
	}
	return ""
}

// Set implements propagation.TextMapCarrier; nothing is sent on.
func (c carrier) Set(string, string) {}

// Keys implements propagation.TextMapCarrier.
func (c carrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for k := range c {
		keys = append(keys, k)
	}
	return keys
}

// setHealth answers what probes ask for: the server as a whole, the names that Kubernetes' endpoint pickers use, and
// the services.
func setHealth(h *health.Server, ready bool) {
	status := map[bool]grpc_health_v1.HealthCheckResponse_ServingStatus{
		true: grpc_health_v1.HealthCheckResponse_SERVING, false: grpc_health_v1.HealthCheckResponse_NOT_SERVING,
	}
	h.SetServingStatus("", status[true])
	h.SetServingStatus("liveness", status[true])
	h.SetServingStatus(serviceReadiness, status[ready])
	h.SetServingStatus(pb.Inference_ServiceDesc.ServiceName, status[ready])
	h.SetServingStatus(oip.GRPCInferenceService_ServiceDesc.ServiceName, status[ready])
}

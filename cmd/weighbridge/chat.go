package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weighbridge/weighbridge/gateway/client"
	pb "github.com/weighbridge/weighbridge/proto/weighbridge/inference/v1"
)

const (
	// defaultChatServer is listen.grpc of the samples.
	defaultChatServer = "127.0.0.1:9443"
	// maxPrompt is what a gateway takes.
	maxPrompt = 4 << 20
)

// chatOptions are the flags of chat.
type chatOptions struct {
	callerOptions
	server                 string
	system                 string
	maxTokens              int32
	temperature, topP      float64
	stop                   []string
	seed                   int64
	timeout                time.Duration
	receipt                string
	json, quiet            bool
	set                    func(flag string) bool
	channel, prompt, title string
}

func newChatCmd(s streams) *cobra.Command {
	var o chatOptions
	cmd := &cobra.Command{
		Use:   "chat CHANNEL [PROMPT]",
		Short: "Ask a channel over gRPC with mTLS",
		Long: `Ask a channel one question over gRPC with SPIFFE mTLS, and print the answer as it comes. Without PROMPT
the question is read from standard input. What answered (release, weights, level, tokens) goes to standard error.

The identity comes from the Workload API at SPIFFE_ENDPOINT_SOCKET, or from the files --svid, --svid-key and --bundle.
The server must be a member of the same trust domain, or be the very one that --server-id names.

With --receipt the gateway is asked for a signed receipt: who asked, which release answered, and who approved that. It is
written for weighbridge receipt verify, which needs the trust policy and its root keys, and not the gateway.`,
		Example: `  weighbridge chat chat "What is a weighbridge?"
  weighbridge chat chat --svid svid.pem --svid-key key.pem --bundle bundle.pem --json < question.txt
  weighbridge chat chat "What is a weighbridge?" --receipt receipt.json`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			o.set = cmd.Flags().Changed
			o.channel, o.title = args[0], "chat "+args[0]
			if err := o.check(); err != nil {
				return fmt.Errorf("%s: %w", o.title, err)
			}
			if err := o.question(args[1:], s.in); err != nil {
				return fmt.Errorf("%s: read the question: %w", o.title, err)
			}
			return o.run(ctx, s)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.server, "server", "", "HOST:PORT of the gateway's gRPC listener (default $WEIGHBRIDGE_SERVER, else "+defaultChatServer+")")
	o.add(f)
	f.StringVar(&o.system, "system", "", "system prompt, if the release allows one")
	f.Int32Var(&o.maxTokens, "max-tokens", 0, "tokens that the answer may have")
	f.Float64Var(&o.temperature, "temperature", 0, "sampling temperature")
	f.Float64Var(&o.topP, "top-p", 0, "nucleus sampling")
	f.StringArrayVar(&o.stop, "stop", nil, "text that ends the answer; repeat for more")
	f.Int64Var(&o.seed, "seed", 0, "makes sampling repeatable")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait for the whole answer")
	f.StringVar(&o.receipt, "receipt", "", "file to write a signed receipt to, with the question and the answer in it")
	f.BoolVar(&o.json, "json", false, "print one JSON document")
	f.BoolVar(&o.quiet, "quiet", false, "print the answer only")
	return cmd
}

// check refuses what can't work before anything is read or dialed.
func (o *chatOptions) check() error {
	if err := o.callerOptions.check(); err != nil {
		return err
	}
	if o.server == "" {
		o.server = os.Getenv("WEIGHBRIDGE_SERVER")
	}
	if o.server == "" {
		o.server = defaultChatServer
	}
	if strings.HasPrefix(o.server, "unix:") {
		return withHint(fmt.Errorf("server %s is a control socket", o.server), "give the HOST:PORT of listen.grpc with --server")
	}
	if o.receipt == "" {
		return nil
	}
	// An answer whose receipt can't be kept would be given in vain.
	if info, err := os.Stat(filepath.Dir(o.receipt)); err != nil {
		return fmt.Errorf("--receipt: %w", err)
	} else if !info.IsDir() {
		return fmt.Errorf("--receipt: %s is no directory", filepath.Dir(o.receipt))
	}
	if info, err := os.Stat(o.receipt); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("--receipt: %s is there, and is no file", o.receipt)
	}
	return nil
}

func (o *chatOptions) question(args []string, in io.Reader) error {
	if len(args) == 1 {
		o.prompt = args[0]
		return nil
	}
	text, err := io.ReadAll(io.LimitReader(in, maxPrompt+1))
	if err != nil {
		return err
	}
	if len(text) > maxPrompt {
		return fmt.Errorf("it is longer than %d bytes", maxPrompt)
	}
	o.prompt = strings.TrimRight(string(text), "\n")
	if o.prompt == "" {
		return withHint(errors.New("there is none"), "give PROMPT, or write it to standard input")
	}
	return nil
}

func (o *chatOptions) run(ctx context.Context, s streams) error {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	options, err := o.options()
	if err != nil {
		return fmt.Errorf("%s: %w", o.title, err)
	}
	c, err := client.Dial(ctx, o.server, options)
	if err != nil {
		return fmt.Errorf("%s: %w", o.title, err)
	}
	defer c.Close() // it was only read from
	var kept *client.Exchange
	var how []grpc.CallOption
	if o.receipt != "" {
		kept = c.Exchange()
		ctx, how = kept.Ask(ctx), kept.Options()
	}
	stream, err := c.Chat(ctx, o.request(), how...)
	if err != nil {
		return o.failed(s, err)
	}
	if err := o.print(s, stream); err != nil || kept == nil {
		return err
	}
	return o.keep(ctx, s, kept)
}

func (o *chatOptions) request() *pb.ChatRequest {
	req := &pb.ChatRequest{Model: o.channel, Stop: o.stop}
	if o.system != "" {
		req.Messages = append(req.Messages, &pb.Message{Role: "system", Content: o.system})
	}
	req.Messages = append(req.Messages, &pb.Message{Role: "user", Content: o.prompt})
	if o.set("max-tokens") {
		req.MaxTokens = &o.maxTokens
	}
	if o.set("temperature") {
		req.Temperature = &o.temperature
	}
	if o.set("top-p") {
		req.TopP = &o.topP
	}
	if o.set("seed") {
		req.Seed = &o.seed
	}
	return req
}

// chatResult is the document of chat --json.
type chatResult struct {
	Model        string     `json:"model"`
	Text         string     `json:"text"`
	FinishReason string     `json:"finishReason,omitzero"`
	Release      string     `json:"release,omitzero"`
	Weights      string     `json:"weights,omitzero"`
	Level        string     `json:"level,omitzero"`
	Usage        *chatUsage `json:"usage,omitzero"`
	Error        *chatError `json:"error,omitzero"`
}

type chatUsage struct {
	PromptTokens     int32 `json:"promptTokens"`
	CompletionTokens int32 `json:"completionTokens"`
}

type chatError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// print shows the answer as it comes, or at its end as one document.
func (o *chatOptions) print(s streams, stream grpc.ServerStreamingClient[pb.ChatResponse]) error {
	result := chatResult{Model: o.channel}
	var text strings.Builder
	for {
		m, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			if text.Len() > 0 && !o.json {
				fmt.Fprintln(s.out)
			}
			return o.failed(s, err)
		}
		if m.GetRelease() != "" {
			result.Release, result.Weights, result.Level = m.GetRelease(), m.GetWeights(), m.GetLevel()
		}
		if m.GetFinishReason() != "" {
			result.FinishReason = m.GetFinishReason()
		}
		if u := m.GetUsage(); u != nil {
			result.Usage = &chatUsage{u.GetPromptTokens(), u.GetCompletionTokens()}
		}
		text.WriteString(m.GetText())
		if !o.json {
			if _, err := io.WriteString(s.out, m.GetText()); err != nil {
				return fmt.Errorf("%s: write the answer: %w", o.title, err)
			}
		}
	}
	result.Text = text.String()
	if o.json {
		return printJSON(s.out, result)
	}
	if !strings.HasSuffix(result.Text, "\n") {
		fmt.Fprintln(s.out)
	}
	if !o.quiet {
		fmt.Fprintf(s.err, "release  %s\nweights  %s\nlevel    %s\n", result.Release, result.Weights, result.Level)
		if u := result.Usage; u != nil {
			fmt.Fprintf(s.err, "tokens   %d in, %d out (%s)\n", u.PromptTokens, u.CompletionTokens, result.FinishReason)
		}
	}
	return nil
}

// failed says why there is no answer: the server refused, or none could be had.
func (o *chatOptions) failed(s streams, err error) error {
	st := status.Convert(err)
	if o.json {
		if err := printJSON(s.out, chatResult{Model: o.channel, Error: &chatError{st.Code().String(), st.Message()}}); err != nil {
			return err
		}
	}
	why := errors.New(plain(st.Message()))
	switch st.Code() {
	case codes.PermissionDenied:
		return withHint(refused(o.title, why), "is there an access rule for this caller and channel, and is the channel's name right?")
	case codes.Unauthenticated, codes.FailedPrecondition:
		return refused(o.title, why)
	case codes.Unavailable:
		return fmt.Errorf("%s: server %s: %w", o.title, o.server, why)
	default:
		return fmt.Errorf("%s: %w", o.title, why)
	}
}

// plain takes gRPC's wrapping off the reason why a connection failed.
func plain(message string) string {
	quoted, ok := strings.CutPrefix(message, "connection error: desc = ")
	if !ok {
		return message
	}
	text, err := strconv.Unquote(quoted)
	if err != nil {
		return message
	}
	return strings.TrimPrefix(text, "transport: ")
}

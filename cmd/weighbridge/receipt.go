package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/weighbridge/weighbridge/gateway/receipt"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

func newReceiptCmd(s streams) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "receipt",
		Short:   "Verify a gateway's receipts",
		Example: "  weighbridge receipt verify receipt.json --policy policy.jsonl --root root.pub",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newReceiptVerifyCmd(s))
	return cmd
}

// receiptFlags are what a receipt is held against.
type receiptFlags struct {
	trust             decideFlags
	request, response string
	json              bool
}

func newReceiptVerifyCmd(s streams) *cobra.Command {
	var o receiptFlags
	cmd := &cobra.Command{
		Use:   "verify FILE --policy policy.jsonl --root KEY.pub…",
		Short: "Verify a receipt offline, down to the approvals behind the release",
		Long: `Verify that a gateway of the policy gave this receipt: that not a byte of it was changed, that the gateway's log holds
it, and that by the policy and the statements in the receipt the channel could serve this release at that time. Nobody is
asked: it takes the file, the policy and the root keys.

Request and response are checked if they are in the receipt, as weighbridge chat --receipt puts them, or if they are given:
the exact bytes, over HTTP the bodies. The policy may be a newer or older one than that under which the receipt was given,
and the answer says which that was. It must still, or already, allow what the receipt shows.`,
		Example: `  weighbridge receipt verify receipt.json --policy policy.jsonl --root alice.pub --root bob.pub
  weighbridge receipt verify receipt.json --policy policy.jsonl --root root.pub --request question.json --response answer.json --json`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "receipt verify " + args[0]
			if err := o.trust.moreRoots(args[1:]); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			report, policy, err := o.verify(cmd.Context(), s, what, args[0])
			if err != nil {
				return refusedJSON(s.out, o.json, map[string]any{"verified": false}, err)
			}
			if o.json {
				return printJSON(s.out, documentOf(report, policy))
			}
			return tellReceipt(s.out, report, policy)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.trust.policy, "policy", "", "signed policy (required)")
	f.StringArrayVar(&o.trust.roots, "root", nil, "pinned root keys: PEM files or key ids (required)")
	f.IntVar(&o.trust.threshold, "root-threshold", 0, "how many of the root keys must have signed (default: all given)")
	f.StringVar(&o.request, "request", "", "file with the exact bytes of the request")
	f.StringVar(&o.response, "response", "", "file with the exact bytes of the response")
	f.BoolVar(&o.json, "json", false, "print one JSON document, refusals included")
	return cmd
}

func (o *receiptFlags) verify(ctx context.Context, s streams, what, file string) (report receipt.Report, policy *trust.Policy, err error) {
	document, err := readReceiptFile(what, file, receipt.MaxDocument)
	if err != nil {
		return report, nil, err
	}
	var in receipt.Inputs
	for _, content := range []struct {
		file string
		into *[]byte
	}{{o.request, &in.Request}, {o.response, &in.Response}} {
		if content.file == "" {
			continue
		}
		if *content.into, err = readReceiptFile(what, content.file, receipt.MaxContent); err != nil {
			return report, nil, err
		}
	}
	if o.trust.policy == "" || len(o.trust.roots) == 0 {
		return report, nil, fmt.Errorf("%s: --policy and --root are required", what)
	}
	accepted, err := o.trust.accept(ctx, s, what)
	if err != nil {
		return report, nil, err
	}
	in.Policy = accepted.policy
	report, err = receipt.Verify(document, in)
	if errors.Is(err, receipt.ErrRefused) || errors.Is(err, receipt.ErrMalformed) {
		return report, nil, refused(what, err)
	} else if err != nil {
		return report, nil, fmt.Errorf("%s: %w", what, err)
	}
	return report, accepted.policy, nil
}

// readReceiptFile reads what is verified. One that is longer than any is no receipt, or nothing that has one.
func readReceiptFile(what, file string, limit int64) ([]byte, error) {
	data, err := readFlagFile(file, limit)
	switch {
	case errors.Is(err, errTooLong):
		return nil, refused(what, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	return data, nil
}

// receiptDocument is the document of receipt verify --json.
type receiptDocument struct {
	Verified    bool            `json:"verified"`
	ID          string          `json:"id"`
	Caller      string          `json:"caller"`
	Time        time.Time       `json:"time"`
	Channel     string          `json:"channel"`
	Epoch       int64           `json:"epoch"`
	Publication string          `json:"publication"`
	Fallback    bool            `json:"fallback"`
	Release     string          `json:"release"`
	Model       string          `json:"model"`
	Version     string          `json:"version"`
	Weights     string          `json:"weights"`
	Level       string          `json:"level"`
	Sandbox     string          `json:"sandbox"`
	Signers     receiptSigners  `json:"signers"`
	Missing     []trust.Missing `json:"missing"` // what mode warn let pass
	Gateway     receiptGateway  `json:"gateway"`
	Log         trust.LogPlace  `json:"log"`
	Policy      receiptPolicy   `json:"policy"`
	Request     receiptContent  `json:"request"`
	Response    receiptContent  `json:"response"`
}

type receiptSigners struct {
	Weights    []string `json:"weights"`
	Producers  []string `json:"producers"`
	Evaluators []string `json:"evaluators"`
	Approvers  []string `json:"approvers"`
	Publishers []string `json:"publishers"`
}

type receiptGateway struct {
	Identity string `json:"identity"`
	KeyID    string `json:"keyId"`
}

type receiptPolicy struct {
	Digest     string `json:"digest"` // of the policy that was given
	Version    int64  `json:"version"`
	GivenUnder string `json:"givenUnder"` // digest of the one that the gateway had
}

type receiptContent struct {
	Digest  string `json:"digest"` // over the nonce
	Checked bool   `json:"checked"`
}

func documentOf(r receipt.Report, p *trust.Policy) receiptDocument {
	return receiptDocument{
		Verified: true, ID: r.ID, Caller: r.Caller, Time: r.Time, Channel: r.Channel, Epoch: r.Epoch, Publication: string(r.Publication),
		Fallback: r.Fallback, Release: string(r.Release), Model: r.Model, Version: r.Version, Weights: r.Weights, Level: r.Level, Sandbox: r.Sandbox,
		Signers: receiptSigners(r.Signers), Missing: r.Missing, Gateway: receiptGateway{r.Gateway, string(r.Key)}, Log: r.Log,
		Policy:  receiptPolicy{string(p.Digest()), p.Version(), string(r.Policy)},
		Request: receiptContent{string(r.Request), r.RequestChecked}, Response: receiptContent{string(r.Response), r.ResponseChecked},
	}
}

// tellReceipt prints what a verified receipt says, a line for each thing.
func tellReceipt(w io.Writer, r receipt.Report, p *trust.Policy) error {
	var out strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&out, "%-10s "+format+"\n", append([]any{name}, args...)...)
	}
	line("verified", "receipt %s", r.ID)
	line("caller", "%s", r.Caller)
	line("time", "%s", r.Time.Format(time.RFC3339Nano))
	line("channel", "%s, epoch %d", r.Channel, r.Epoch)
	line("release", "%s (%s %s)", r.Release, r.Model, r.Version)
	line("weights", "%s, %s, signed by %s", r.Weights, r.Level, strings.Join(r.Signers.Weights, ", "))
	line("sandbox", "%s", r.Sandbox)
	for _, did := range []struct {
		what string
		who  []string
	}{
		{"released", r.Signers.Producers}, {"evaluated", r.Signers.Evaluators}, {"approved", r.Signers.Approvers}, {"published", r.Signers.Publishers},
	} {
		if len(did.who) > 0 {
			line(did.what, "by %s", strings.Join(did.who, ", "))
		}
	}
	if len(r.Missing) > 0 {
		line("missing", "%s (the channel's mode is warn)", texts(r.Missing))
	}
	if r.Fallback {
		line("fallback", "in place of a newer release that counted no more")
	}
	line("gateway", "%s, key %s", r.Gateway, r.Key)
	line("log", "record %d of %s", r.Log.Index, r.Log.Origin)
	line("policy", "version %d, %s", p.Version(), p.Digest())
	if p.Digest() != r.Policy {
		line("", "the receipt was given under another, %s", r.Policy)
	}
	content := func(what string, checked bool, digest string) {
		if checked {
			line(what, "is the one that the receipt is for")
			return
		}
		line(what, "NOT CHECKED: give its exact bytes with --%s; their digest over the nonce must be %s", what, digest)
	}
	content("request", r.RequestChecked, string(r.Request))
	content("response", r.ResponseChecked, string(r.Response))
	_, err := io.WriteString(w, out.String())
	return err
}

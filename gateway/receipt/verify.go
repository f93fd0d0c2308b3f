package receipt

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/weighbridge/weighbridge/gateway/audit"
	"github.com/weighbridge/weighbridge/verifier/oms"
	"github.com/weighbridge/weighbridge/verifier/statement"
	"github.com/weighbridge/weighbridge/verifier/trust"
)

// ErrRefused means that a document proves nothing: by the policy that it was held against it is no receipt of this call.
var ErrRefused = errors.New("receipt refused")

// Inputs are what a document is held against.
type Inputs struct {
	Policy *trust.Policy // accepted by the verifier's own root keys
	// Request and Response are the exact bytes, if the verifier has them apart from the document; nil: it has not.
	Request, Response []byte
}

// A Report is what a verified receipt says.
type Report struct {
	trust.Receipt
	Gateway string          // the identity that signed it
	Key     statement.KeyID // by which
	Model   string          // and Version, of the release
	Version string
	Epoch   int64 // of the publication
	Signers trust.Signers
	Missing []trust.Missing // what mode warn let pass

	// Request and response are checked only where they are in the document or among the inputs.
	RequestChecked, ResponseChecked bool
}

// Verify returns what a receipt says, or an error that wraps [ErrRefused] or [ErrMalformed] and says what is wrong first.
func Verify(document []byte, in Inputs) (Report, error) {
	if in.Policy == nil {
		return Report{}, fmt.Errorf("%w: no policy to hold it against", ErrRefused)
	}
	d, err := Parse(document)
	if err != nil {
		return Report{}, err
	}
	report, err := verify(d, in)
	if err != nil {
		return Report{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return report, nil
}

// verify goes from who signed outwards: nothing is believed before what vouches for it was verified.
func verify(d *Document, in Inputs) (Report, error) {
	r, who, key, err := signedBy(d, in.Policy)
	if err != nil {
		return Report{}, err
	}
	report := Report{Receipt: r, Gateway: who}
	if report.Key, err = statement.KeyIDOf(key); err != nil {
		return Report{}, err
	}
	switch {
	case d.ID != r.ID:
		return Report{}, fmt.Errorf("its id is %s, and the gateway signed %s", d.ID, r.ID)
	case sumOf(d.Nonce) != r.Nonce:
		return Report{}, errors.New("its nonce is not the one that the gateway signed")
	}
	if err := checkLog(d.Log, r, key); err != nil {
		return Report{}, err
	}
	if report.RequestChecked, err = checkContent("request", r.Request, d.Nonce, requestLabel, d.Request, in.Request); err != nil {
		return Report{}, err
	}
	if report.ResponseChecked, err = checkContent("response", r.Response, d.Nonce, responseLabel, d.Response, in.Response); err != nil {
		return Report{}, err
	}
	return chain(d, report, in.Policy)
}

// signedBy returns what a gateway of the policy signed.
func signedBy(d *Document, policy *trust.Policy) (r trust.Receipt, who string, key crypto.PublicKey, err error) {
	signed, err := statement.Parse(d.Receipt)
	if err != nil {
		return r, "", nil, err
	}
	if who, key, err = policy.ReceiptBy(signed); err != nil {
		return r, "", nil, err
	}
	if !signed.IsPlain(key) {
		return r, "", nil, errors.New("its bundle holds more, or less, than the gateway writes")
	}
	_, r, err = trust.ParseReceipt(signed)
	return r, who, key, err
}

// checkLog verifies that the gateway's log holds the record of just this receipt, where it says.
func checkLog(l Logged, r trust.Receipt, key crypto.PublicKey) error {
	record, err := recordOf(r)
	if err != nil {
		return err
	}
	want, err := record.Entry()
	if err != nil {
		return fmt.Errorf("its record: %w", err)
	}
	if !bytes.Equal(want, l.Entry) {
		return errors.New("the record that it shows is not that of this receipt")
	}
	if l.Proof.Index != r.Log.Index {
		return fmt.Errorf("it proves record %d of the log, and the gateway signed record %d", l.Proof.Index, r.Log.Index)
	}
	// Of a signature beside the gateway's own nothing here would say whose it is.
	if _, signatures, ok := strings.Cut(l.Proof.Checkpoint, "\n\n"); !ok || strings.Count(signatures, "\n") != 1 {
		return errors.New("its checkpoint is not signed by the gateway alone")
	}
	log, err := audit.NewVerifier(key, r.Log.Origin)
	if err != nil {
		return err
	}
	return l.Proof.Check(l.Entry, log)
}

// checkContent holds the bytes of a request or response against what the gateway signed, where there are any.
func checkContent(what string, want statement.ID, nonce []byte, label string, inside, beside []byte) (checked bool, err error) {
	if inside != nil && beside != nil && !bytes.Equal(inside, beside) {
		return false, fmt.Errorf("the %s in it is not the one that is given", what)
	}
	content := inside
	if content == nil {
		content = beside
	}
	if content == nil {
		return false, nil
	}
	h := contentHash(nonce, label)
	h.Write(content)
	if got := digestOf(h); got != want {
		return false, fmt.Errorf("the %s is not the one that this receipt is for: its digest over the nonce is %s, want %s", what, got, want)
	}
	return true, nil
}

// chain decides again, by the policy and the document's statements alone, what the channel served at the time of the call.
func chain(d *Document, report Report, policy *trust.Policy) (Report, error) {
	r := report.Receipt
	if digest, err := digestOfStatements(d.Statements); err != nil {
		return Report{}, err
	} else if digest != r.Statements {
		return Report{}, errors.New("its statements are not those that the gateway signed")
	}
	set, err := parseStatements(d.Statements, r)
	if err != nil {
		return Report{}, err
	}
	_, publication, err := trust.ParsePublication(find(set, r.Publication))
	if err != nil {
		return Report{}, err
	}
	c, err := decide(policy, set, r, publication.Epoch)
	switch {
	case err != nil && policy.Digest() != r.Policy:
		return Report{}, fmt.Errorf("%w (the receipt was given under policy %s, and this is %s)", err, r.Policy, policy.Digest())
	case err != nil:
		return Report{}, err
	}
	switch {
	case c.Release.Weights.Root != r.Weights:
		return Report{}, fmt.Errorf("it names the weights %s, and the release's are %s", r.Weights, c.Release.Weights.Root)
	case !c.AcceptsLevel(r.Level):
		return Report{}, fmt.Errorf("the weights were %s, and %s asks for %s", r.Level, r.Channel, c.Level)
	case !c.AcceptsSandbox(r.Sandbox):
		return Report{}, fmt.Errorf("the runtime's sandbox was %s, and %s asks for %s", r.Sandbox, r.Channel, c.Sandbox)
	}
	report.Model, report.Version, report.Epoch = c.Release.Model, c.Release.Version, publication.Epoch
	report.Signers, report.Missing = c.Signers, c.Missing
	return report, nil
}

// parseStatements reads the statements, each of which must be about the release on the channel: nothing rides along.
func parseStatements(bundles []jsontext.Value, r trust.Receipt) ([]*statement.Signed, error) {
	var set []*statement.Signed
	seen := map[string]bool{}
	for n, bundle := range bundles {
		s, err := statement.Parse(bundle)
		if err != nil {
			return nil, fmt.Errorf("statement %d: %w", n, err)
		}
		if seen[string(bundle)] {
			return nil, fmt.Errorf("statement %d is in it twice", n)
		}
		seen[string(bundle)] = true
		set = append(set, s)
	}
	release := find(set, r.Release)
	if release == nil || find(set, r.Publication) == nil {
		return nil, errors.New("it lacks the release that answered, or its publication")
	}
	parsed, err := trust.ParseRelease(release)
	if err != nil {
		return nil, err
	}
	brought := map[statement.ID]bool{parsed.WeightsStatement().ID(): true}
	for _, a := range parsed.Adapters() {
		brought[a.Statement.ID()] = true
	}
	for n, s := range set {
		_, about := s.Subject()
		needed := false
		switch s.PredicateType() {
		case trust.ReleaseType:
			needed = s.ID() == r.Release
		case trust.PublicationType:
			needed = s.ID() == r.Publication
		case trust.ApprovalType, trust.EvaluationType:
			needed = about == r.Release.Hex()
		case oms.PredicateType:
			needed = brought[s.ID()]
		}
		if !needed {
			return nil, fmt.Errorf("statement %d (%s) is not about this release, or is not needed for it", n, s.PredicateType())
		}
	}
	return set, nil
}

func find(set []*statement.Signed, id statement.ID) *statement.Signed {
	for _, s := range set {
		if s.ID() == id {
			return s
		}
	}
	return nil
}

// decide is the decision at the time of the call. The floor is the highest that lets the publication be new, and remembers
// that the channel has served the release, without which nothing goes back to it.
func decide(policy *trust.Policy, set []*statement.Signed, r trust.Receipt, epoch int64) (trust.Channel, error) {
	before := trust.ChannelFloor{Epoch: epoch - 1, Served: []statement.ID{r.Release}, Counted: acceptedBefore(policy, set, r)}
	c, known := trust.Decide(policy, set, r.Time, floorOf(r, before)).Channels[r.Channel]
	if !known {
		return c, fmt.Errorf("the policy knows no channel %s", r.Channel)
	}
	for _, reason := range c.Reasons {
		switch {
		case reason.Rule == trust.RuleSignature, reason.Rule == trust.RuleUnknownField && !reason.Counted,
			reason.Rule == trust.RuleUnknownIdentity && policy.Digest() == r.Policy:
			return c, fmt.Errorf("statement %s does not verify: %s", reason.Statement, reason.Why)
		}
	}
	if c.Serve == "" && r.Fallback {
		// By the gateway's word a newer release had been withdrawn. Whether an older one may serve then, the policy says.
		newer := sumOf([]byte("a newer release"))
		after := floorOf(r, trust.ChannelFloor{Epoch: epoch, Publication: newer, Served: []statement.ID{r.Release, newer}, Counted: before.Counted})
		after.Withdrawn = []trust.Withdrawn{{Release: newer}}
		if instead := trust.Decide(policy, set, r.Time, after).Channels[r.Channel]; instead.Fallback {
			c = instead
		}
	}
	if c.Serve != r.Release { // by its one publication, for there is no other
		return c, fmt.Errorf("by this policy %s could not serve the release then: %s", r.Channel, whyNot(c))
	}
	return c, nil
}

// acceptedBefore are the acts that count although their signers have retired since. That they were accepted before is the
// gateway's word, as the time is; it is taken for the policy under which the receipt was given, and for no other.
func acceptedBefore(policy *trust.Policy, set []*statement.Signed, r trust.Receipt) (all []trust.Act) {
	if policy.Digest() != r.Policy {
		return nil
	}
	for name, i := range policy.Document().Identities {
		if i.State.Retired.IsZero() {
			continue
		}
		for _, s := range set {
			all = append(all, trust.Act{Statement: s.ID(), Identity: name})
			if release, err := trust.ParseRelease(s); err == nil { // which brings what else was signed
				all = append(all, trust.Act{Statement: release.WeightsStatement().ID(), Identity: name})
				for _, a := range release.Adapters() {
					all = append(all, trust.Act{Statement: a.Statement.ID(), Identity: name})
				}
			}
		}
	}
	return all
}

func floorOf(r trust.Receipt, c trust.ChannelFloor) trust.Floor {
	return trust.Floor{Channels: map[string]trust.ChannelFloor{r.Channel: c}}
}

// maxWhy bounds how much is told of why a release could not be served.
const maxWhy = 8

// whyNot says what a release lacks, and why what is there does not count.
func whyNot(c trust.Channel) string {
	var why []string
	say := func(text string) {
		if len(why) < maxWhy && !slices.Contains(why, text) {
			why = append(why, text)
		}
	}
	for _, m := range c.Missing {
		say(fmt.Sprintf("%s by role %s", m, m.Role))
	}
	for _, r := range c.Reasons {
		if !r.Counted {
			say(r.Why)
		}
	}
	if len(why) == 0 {
		return "no publication counts"
	}
	return strings.Join(why, "; ")
}

package trust

import (
	"cmp"
	"slices"

	"github.com/go-json-experiment/json"

	"github.com/weighbridge/weighbridge/verifier/statement"
)

// A Decision says for every channel of the policy what it serves, or that it serves nothing, with every reason. Its
// zero value serves nothing anywhere.
type Decision struct {
	Channels map[string]Channel `json:"channels"`
}

// A Channel is the decision for one channel.
type Channel struct {
	Serve       statement.ID // the release; "" is nothing
	Release     *Release     // nil if nothing is served
	Epoch       int64
	Publication statement.ID
	Level       string       // the least that the channel's policy asks for
	Sandbox     string       // the least that it asks for of the runtime's sandbox; "" is none
	By          statement.ID // the publication of Serve itself: Publication, unless an older release is served in its place
	Fallback    bool         // an older release is served in place of one that was withdrawn or lost its quorum
	Frozen      statement.ID // what lost its quorum and, as the policy says, may go on where it serves; it may be brought up nowhere
	Signers     Signers
	Stale       string // why the site's lease has run out, "" if it has not; see [Lease]

	// Counted are the acts that Serve rests on, and Withdrawn is what withdrawals took away; a floor remembers both.
	Counted   []TimedAct
	Withdrawn []Withdrawn

	// Standing are the releases of older publications that count still. One that serves may go on until Serve has
	// replaced it; none of them may be brought up, but for one that stopped to make room for Serve and comes back.
	Standing []statement.ID

	Missing []Missing // what stands between the newest publication and being served, or what mode warn let pass
	Pending []Pending // publications above the served one that may still come to count
	Reasons []Reason  // for each statement, counted or not
}

// Allows says whether a release that serves may go on serving.
func (c Channel) Allows(release statement.ID) bool {
	return release != "" && (release == c.Serve || release == c.Frozen || slices.Contains(c.Standing, release))
}

// AcceptsSandbox says whether a runtime with this much of a sandbox may serve the channel.
func (c Channel) AcceptsSandbox(sandbox string) bool {
	got, least := slices.Index(sandboxes, sandbox), slices.Index(sandboxes, c.Sandbox)
	return c.Sandbox == "" || got >= 0 && got <= least
}

// AcceptsLevel says whether weights that are guarded at this level are good enough for the channel. A level that is not
// known is never.
func (c Channel) AcceptsLevel(level string) bool {
	got, least := slices.Index(levels, level), slices.Index(levels, c.Level)
	return got >= 0 && got <= least
}

// WeakestLevel returns the weakest of how weights are guarded. One that is not known is weaker than all.
func WeakestLevel(of ...string) string {
	return slices.MaxFunc(of, func(a, b string) int {
		return cmp.Compare(weakness(a), weakness(b))
	})
}

func weakness(level string) int {
	if i := slices.Index(levels, level); i >= 0 {
		return i
	}
	return len(levels)
}

// Signers are the identities behind a served release, sorted. Those of the weights have signed these or an adapter.
type Signers struct {
	Weights, Producers, Evaluators, Approvers, Publishers []string
}

// Missing is one requirement that is not met.
type Missing struct {
	Rule        string   `json:"rule"`
	Role        string   `json:"role"`
	Need        int      `json:"need"`
	Have        int      `json:"have"`
	CouldSupply []string `json:"couldSupply"` // identities that could still supply it

	// What names what is missing, as in "approvals"; Why says more, if there is more to say.
	What string `json:"-"`
	Why  string `json:"-"`
}

// Pending is a publication that does not count yet.
type Pending struct {
	Release     statement.ID `json:"release"`
	Epoch       int64        `json:"epoch"`
	Missing     []Missing    `json:"missing"`
	Publication statement.ID `json:"-"`
}

// A Reason says what one statement did for a channel.
type Reason struct {
	Rule      string       `json:"rule"`
	Statement statement.ID `json:"statement"`
	Identity  string       `json:"identity"` // "" where no identity of the policy signed
	Counted   bool         `json:"counted"`
	Why       string       `json:"why"`

	Kind string `json:"-"` // release, approval, publication, weights, policy; "" where it is not known
}

// MarshalJSON writes the shape of `weighbridge decide --json`: serve is null if nothing is, and no array is null.
func (c Channel) MarshalJSON() ([]byte, error) {
	c = c.complete()
	var serve *statement.ID
	if c.Serve != "" {
		serve = &c.Serve
	}
	return json.Marshal(struct {
		Serve       *statement.ID `json:"serve"`
		Epoch       int64         `json:"epoch"`
		Publication statement.ID  `json:"publication"`
		Level       string        `json:"level"`
		Fallback    bool          `json:"fallback"`
		Frozen      statement.ID  `json:"frozen,omitempty"`
		Missing     []Missing     `json:"missing"`
		Pending     []Pending     `json:"pending"`
		Reasons     []Reason      `json:"reasons"`
	}{serve, c.Epoch, c.Publication, c.Level, c.Fallback, c.Frozen, c.Missing, c.Pending, c.Reasons})
}

// sortReasons puts reasons in the one order that does not depend on how the statements came, each once.
func sortReasons(all []Reason) []Reason {
	order := func(a, b Reason) int {
		counted := func(r Reason) int {
			if r.Counted {
				return 0
			}
			return 1
		}
		return cmp.Or(
			cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind)),
			cmp.Compare(counted(a), counted(b)),
			cmp.Compare(a.Statement, b.Statement),
			cmp.Compare(a.Identity, b.Identity),
			cmp.Compare(a.Rule, b.Rule),
			cmp.Compare(a.Why, b.Why),
		)
	}
	slices.SortFunc(all, order)
	return slices.Compact(all)
}

// Kinds of statements.
const (
	kindPolicy      = "policy"
	kindWeights     = "weights"
	kindRelease     = "release"
	kindEvaluation  = "evaluation"
	kindApproval    = "approval"
	kindWithdrawal  = "withdrawal"
	kindPublication = "publication"
)

// kinds is the order in which reasons are told; "" is a statement whose kind is not known.
var kinds = []string{kindPolicy, kindWithdrawal, kindPublication, kindRelease, kindWeights, kindEvaluation, kindApproval, ""}

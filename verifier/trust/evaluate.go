package trust

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// maxAhead is how far in the future an evaluation may say that it ended, by a clock that is not the gateway's.
const maxAhead = 5 * time.Minute

// judgeEvaluations finds who has evaluated the release as the channel requires. An evaluation that failed cancels those
// that passed before it, whoever made them.
func (r *releaseCase) judgeEvaluations() {
	c := r.channel
	rule := c.rules.Require.Evaluation
	if rule == nil {
		for _, a := range c.evaluations[r.id] {
			for _, who := range a.identities() {
				r.reasons = append(r.reasons, Reason{RuleScope, a.id, who, false, c.name + " requires no evaluation", a.kind})
			}
		}
		return
	}
	r.evaluation.rule = *rule
	var failed time.Time // when the last one that counts has failed
	for _, a := range c.evaluations[r.id] {
		if a.evaluation.Result == Failed && r.refusesAge(a) == "" && a.evaluation.FinishedOn.After(failed) && r.countsAsEvaluator(a) {
			failed = a.evaluation.FinishedOn
		}
	}
	for _, a := range inOrder(c.evaluations[r.id]) {
		refuses := func() (string, string) { return r.refusesEvaluation(a, failed) }
		r.evaluation.by = append(r.evaluation.by, r.judge(a, r.evaluation, "evaluated", refuses)...)
	}
	slices.Sort(r.evaluation.by)
}

// countsAsEvaluator reports whether a signer's word on this release is one that the channel listens to. It is asked of
// failures, which go on counting when the certificate has lapsed: time alone must not make good what has failed.
func (r *releaseCase) countsAsEvaluator(a *act) bool {
	role := r.evaluation.rule.Role
	return slices.ContainsFunc(a.identities(), func(who string) bool {
		if !r.channel.policy.holds(who, role) || r.channel.retired(a, who) != "" {
			return false
		}
		_, ok := r.acts(who, role)
		return ok
	})
}

// refusesAge says why an evaluation is of the wrong time, "" if it is not.
func (r *releaseCase) refusesAge(a *act) string {
	now, finished := r.channel.now, a.evaluation.FinishedOn
	if finished.After(now.Add(maxAhead)) {
		return fmt.Sprintf("the evaluation ended on %s, which is still to come", finished.Format(time.RFC3339))
	}
	max := r.evaluation.rule.MaxAge
	if max == "" || r.back {
		return ""
	}
	age, err := ParseAge(max)
	if err != nil {
		return err.Error() // no policy that was accepted has this
	}
	if !now.Before(finished.Add(age)) {
		return fmt.Sprintf("the evaluation ended on %s, more than %s ago", finished.Format(time.RFC3339), max)
	}
	return ""
}

// refusesEvaluation says why an evaluation does not meet the requirement.
func (r *releaseCase) refusesEvaluation(a *act, failed time.Time) (rule, why string) {
	e := a.evaluation
	if why := r.refusesAge(a); why != "" {
		return RuleMaxAge, why
	}
	switch {
	case e.Result == Failed:
		why = "the release failed"
		if len(e.FailedTests) > 0 {
			why += ": " + strings.Join(e.FailedTests, ", ")
		}
		return RuleTestFailed, why
	case e.Result != Passed:
		return RuleTestFailed, fmt.Sprintf("the result is %s, not %s", e.Result, Passed)
	case !failed.IsZero() && !e.FinishedOn.After(failed):
		return RuleTestFailed, fmt.Sprintf("the release failed a later evaluation, on %s", failed.Format(time.RFC3339))
	}
	for _, test := range r.evaluation.rule.Tests {
		if !slices.Contains(e.PassedTests, test) || slices.Contains(e.FailedTests, test) {
			return RuleTestFailed, fmt.Sprintf("test %q is not among those that passed", test)
		}
	}
	return "", ""
}

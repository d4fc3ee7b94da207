package history

import (
	"cmp"
	"fmt"
	"slices"
)

// An Invariant is something that holds whatever goes wrong.
type Invariant string

// Each has a function of its own, in a file of its own.
const (
	// Acknowledged: what was accepted is there, once; what was refused is not; a unique key has one
	// living job.
	Acknowledged Invariant = "acknowledged"
	// OneEnd: every job ends once, by an allowed edge, and stays as it ended.
	OneEnd Invariant = "one-end"
	// Epochs only grow, and of runs that overlap one counts.
	Epochs Invariant = "epochs"
	// Starts: a job is started as often as it may, when it may.
	Starts Invariant = "starts"
	// Families: no child starts before its parents have ended as it wants.
	Families Invariant = "families"
	// Tokens: what runs on a peer weighs no more than its tokens, less the reserves.
	Tokens Invariant = "tokens"
	// Occurrences: of each instant of a schedule there is one.
	Occurrences Invariant = "occurrences"
	// Silence: a job is taken only from who was silent while Redis was there, and missed only if it
	// was never started.
	Silence Invariant = "silence"
	// Records and indexes agree, and nothing had to be put right.
	Records Invariant = "records"
	// Foreign: nobody else's key was touched.
	Foreign Invariant = "foreign"
	// Calm: when nothing goes wrong any more, everything goes on within bounds.
	Calm Invariant = "calm"
)

var invariants = []struct {
	name  Invariant
	check func(a *account, say sayer)
}{
	{Acknowledged, acknowledged},
	{OneEnd, oneEnd},
	{Epochs, epochs},
	{Starts, starts},
	{Families, families},
	{Tokens, tokens},
	{Occurrences, occurrences},
	{Silence, silence},
	{Records, records},
	{Foreign, foreign},
	{Calm, calm},
}

// A sayer takes down what is wrong, about a job or, if it is nil, about something else.
type sayer func(j *job, format string, args ...any)

// A Violation is one breach of an invariant.
type Violation struct {
	Invariant Invariant
	Job, Mark string // "" where it is not about one
	Text      string
}

func (v Violation) String() string {
	subject := ""
	switch {
	case v.Job != "" && v.Mark != "" && v.Mark != v.Job:
		subject = fmt.Sprintf("job %s (%s) ", v.Job, v.Mark)
	case v.Job != "":
		subject = fmt.Sprintf("job %s ", v.Job)
	case v.Mark != "":
		subject = fmt.Sprintf("job (%s) ", v.Mark)
	}
	return fmt.Sprintf("%s: %s%s", v.Invariant, subject, v.Text)
}

// Sort puts violations in the order of the invariants, and then of the jobs.
func Sort(violations []Violation) {
	place := func(v Violation) int {
		for i := range invariants {
			if invariants[i].name == v.Invariant {
				return i
			}
		}
		return len(invariants)
	}
	slices.SortStableFunc(violations, func(v, w Violation) int {
		return cmp.Or(cmp.Compare(place(v), place(w)), cmp.Compare(v.Mark, w.Mark), cmp.Compare(v.Job, w.Job), cmp.Compare(v.Text, w.Text))
	})
}

// Check holds what happened, in the order of Read, and what was there in the end against all
// invariants. It reports nothing that a run of a right engine could have led to, whatever befell its
// processes: where what was seen allows that nothing was wrong, nothing was. What it goes by:
//
//   - An event was written when it happened or later, in its process's order. It may be missing if
//     the process was killed: then so are all that its process would have written after it.
//   - A hook speaks after the store has done the deed: any time after, since the process may have been
//     stopped in between, or have sent the call again. It speaks once for a deed, or never.
//   - A handler's start is after its claim, and its end before its settlement was sent.
//   - Redis loses nothing that it has said yes to, and nobody requeues.
func Check(events []Event, final Final) []Violation {
	a := newAccount(events, final)
	var found []Violation
	for i := range invariants {
		name := invariants[i].name
		invariants[i].check(a, func(j *job, format string, args ...any) {
			v := Violation{Invariant: name, Text: fmt.Sprintf(format, args...)}
			if j != nil {
				v.Job, v.Mark = j.id, j.mark
			}
			found = append(found, v)
		})
	}
	Sort(found)
	return found
}

package dianemo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Cause says in a word or two why a job is not running.
type Cause string

const (
	CauseEnded   Cause = "ended"   // it has ended
	CauseRunning Cause = "running" // it is running
	CauseBlocked Cause = "blocked" // it has parents that have not ended
	CauseNotDue  Cause = "not due" // it is due later
	CauseExpired Cause = "expired" // its grace is over; it is about to end missed, or failed
	CausePaused  Cause = "paused"  // its kind is
	// CauseNoHandler: no live peer handles its kind.
	CauseNoHandler Cause = "no handler"
	// CauseUnplaceable: it is heavier than what any live peer that handles its kind
	// can carry at its priority, even if nothing else ran there.
	CauseUnplaceable Cause = "unplaceable"
	CauseLeaving     Cause = "leaving" // the peers that could are draining or shutting down
	CauseHot         Cause = "hot"     // others use so much of their hosts' CPUs that they claim nothing
	CauseTokens      Cause = "tokens"  // it waits for tokens that are in use, reserved, or taken by the load
	// CauseNext: a peer has room for it. It starts when the jobs ahead of it do, or
	// at once.
	CauseNext Cause = "next"
)

// causes in the order of how near a peer is to running the job.
var causes = []Cause{CauseNext, CauseTokens, CauseHot, CauseLeaving, CauseUnplaceable, CauseNoHandler}

// Why is the answer to why a job is not running.
type Why struct {
	Cause Cause
	Job   *JobInfo
	// Ahead is how many jobs of its partition are due and go first: those more
	// urgent, and those of its priority that were due earlier. Counted where Cause
	// is CauseHot, CauseTokens or CauseNext.
	Ahead int64
	// Parents are those that have not ended, where Cause is CauseBlocked; of a workflow,
	// its jobs; at most MaxWhyParents, and More of them. None: the job was not wholly
	// enqueued, or its release is under way.
	Parents []WhyParent
	More    int
	// Peers is what keeps the job from each live peer. Empty where that does not
	// matter.
	Peers []WhyPeer
}

// MaxWhyParents is how many parents a Why names.
const MaxWhyParents = 10

// WhyParent is a job for which another one waits.
type WhyParent struct {
	ID    string
	State State // as stored: one that waits in its lane is Scheduled
}

// WhyPeer is one live peer's part of it.
type WhyPeer struct {
	Peer   string
	Cause  Cause
	Weight int // what the job would cost there; 0: it has no handler
	Room   int // tokens that it has for the job's priority now
	Most   int // tokens that it would have if nothing ran and no load were
}

// String is the answer in a sentence or two.
func (w *Why) String() string {
	j := w.Job
	switch w.Cause {
	case CauseEnded:
		return fmt.Sprintf("job %s has ended: %s%s", j.ID, j.State, because(j.Reason))
	case CauseRunning:
		return fmt.Sprintf("job %s is running on %s since %s", j.ID, j.Peer, j.StartedAt.Format(time.RFC3339))
	case CauseBlocked:
		return fmt.Sprintf("job %s is blocked: %s", j.ID, w.blockers())
	case CauseNotDue:
		return fmt.Sprintf("job %s is not due before %s%s", j.ID, j.Due.Format(time.RFC3339Nano), because(j.Reason))
	case CauseExpired:
		return fmt.Sprintf("job %s was to start within %v of %s; that is over, and it is about to end", j.ID, j.Grace, j.Due.Format(time.RFC3339))
	case CausePaused:
		return fmt.Sprintf("job %s waits: its kind %s is paused", j.ID, j.Kind)
	case CauseNoHandler:
		return fmt.Sprintf("job %s waits: none of %d live peers handles its kind %s", j.ID, len(w.Peers), j.Kind)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "job %s waits: ", j.ID)
	weight, most := 0, 0
	for _, p := range w.Peers {
		if p.Weight > 0 {
			weight, most = p.Weight, max(most, p.Most)
		}
	}
	switch w.Cause {
	case CauseUnplaceable:
		fmt.Fprintf(&b, "it weighs %d, and no live peer that handles %s can carry more than %d at priority %d", weight, j.Kind, most, j.Priority)
		return b.String()
	case CauseLeaving:
		b.WriteString("the peers that could run it are draining or shutting down")
		return b.String()
	case CauseHot:
		b.WriteString("the peers that could run it claim nothing while their hosts are hot")
	case CauseTokens:
		b.WriteString("no peer that could run it has tokens free for its weight and priority")
	case CauseNext:
		b.WriteString("a peer has room for it")
	}
	fmt.Fprintf(&b, "; %d due jobs go first", w.Ahead)
	return b.String()
}

func (w *Why) blockers() string {
	if len(w.Parents) == 0 {
		return "it was not wholly enqueued yet, or is about to be released"
	}
	names := make([]string, len(w.Parents))
	for i, p := range w.Parents {
		names[i] = fmt.Sprintf("%s (%s)", p.ID, p.State)
	}
	text := "it waits for " + strings.Join(names, ", ")
	if w.More > 0 {
		text += fmt.Sprintf(" and %d more", w.More)
	}
	return text
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

// Why says why a job is not running, by the rules that a claim goes by. It
// returns [ErrNotFound] for a job that is not there. Peers tell their tokens when
// they show themselves, so that part may be as old as their BeatEvery.
func (c *Client) Why(ctx context.Context, id string) (*Why, error) {
	job, err := c.Get(ctx, id)
	if err != nil {
		return nil, err
	}
	w := &Why{Job: job}
	switch {
	case job.State.Finished():
		w.Cause = CauseEnded
	case job.State == Running:
		w.Cause = CauseRunning
	case job.State == Blocked:
		w.Cause = CauseBlocked
		err = c.whyBlocked(ctx, w)
	}
	if err != nil {
		return nil, err
	}
	if w.Cause != "" {
		return w, nil
	}
	now, ahead, err := c.store.Ahead(ctx, c.store.Partition(id), job.Priority, job.Due)
	if err != nil {
		return nil, err
	}
	if w.Cause = job.waits(now); w.Cause != "" {
		return w, nil
	}
	paused, err := c.store.Paused(ctx)
	if err != nil {
		return nil, err
	}
	if slices.Contains(paused, job.Kind) {
		w.Cause = CausePaused
		return w, nil
	}
	peers, err := c.store.Peers(ctx)
	if err != nil {
		return nil, err
	}
	w.Cause = CauseNoHandler
	for i := range peers {
		one := peers[i].why(job.Kind, job.Priority, job.Weight)
		w.Peers = append(w.Peers, one)
		if slices.Index(causes, one.Cause) < slices.Index(causes, w.Cause) {
			w.Cause = one.Cause
		}
	}
	switch w.Cause {
	case CauseHot, CauseTokens, CauseNext:
		w.Ahead = ahead
	}
	return w, nil
}

func (c *Client) whyBlocked(ctx context.Context, w *Why) error {
	look := func(ids []string, standings []Standing) error {
		for i, s := range standings {
			switch {
			case s.State == "" || s.State.Finished():
			case len(w.Parents) == MaxWhyParents:
				w.More++
			default:
				w.Parents = append(w.Parents, WhyParent{ids[i], s.State})
			}
		}
		return nil
	}
	if IsWorkflow(w.Job.Kind) {
		return c.members(ctx, w.Job.ID, look)
	}
	var ids []string
	for _, p := range w.Job.Parents {
		ids = append(ids, p.ID)
	}
	for some := range slices.Chunk(ids, MaxCallJobs) {
		standings, err := c.store.Standings(ctx, some)
		if err != nil {
			return err
		}
		if err := look(some, standings); err != nil {
			return err
		}
	}
	return nil
}

// waits is what the job's own times say, or "".
func (i *JobInfo) waits(now time.Time) Cause {
	switch {
	case i.Due.After(now):
		return CauseNotDue
	case i.Grace >= 0 && now.Sub(i.Due) > i.Grace:
		return CauseExpired
	}
	return ""
}

// why is what keeps a job from this peer. A weight of 0 is the kind's own.
func (p *PeerInfo) why(kind string, priority, weight int) WhyPeer {
	w := WhyPeer{Peer: p.ID, Weight: inherit(weight, p.Weights[kind], 1)}
	can := ledger{tokens: p.Tokens}
	may := ledger{tokens: p.Available}
	for level, tokens := range p.Reserve {
		can.reserve[level], may.reserve[level] = tokens, tokens
	}
	for level, tokens := range p.Running {
		may.running[level] = tokens
	}
	w.Most, w.Room = max(can.room().fits(priority), 0), max(may.room().fits(priority), 0)
	switch {
	case !slices.Contains(p.Kinds, kind):
		w.Cause, w.Weight = CauseNoHandler, 0
	case w.Weight > w.Most:
		w.Cause = CauseUnplaceable
	case p.Closing || p.Draining:
		w.Cause = CauseLeaving
	case p.Hot:
		w.Cause = CauseHot
	case w.Weight > w.Room:
		w.Cause = CauseTokens
	default:
		w.Cause = CauseNext
	}
	return w
}

// strandedBeats is how often, in rounds, the leader looks for jobs that are due
// and that no live peer could ever run.
const strandedBeats = 12

// stranded tells of lanes that are due and for which there is no peer: each
// once, until it is no longer so.
func (p *Peer) stranded(ctx context.Context, surveys []Survey, told map[Lane]Cause) {
	peers, err := p.store.Peers(ctx)
	if err != nil {
		return // the next time
	}
	still := map[Lane]Cause{}
	for _, s := range surveys {
		for _, head := range s.Lanes {
			lane := head.Lane
			if head.Due.After(s.Now) || still[lane] != "" {
				continue
			}
			lane.Again = false
			cause := CauseNoHandler
			for i := range peers {
				if one := peers[i].why(lane.Kind, lane.Priority, lane.Lightest()); slices.Index(causes, one.Cause) < slices.Index(causes, cause) {
					cause = one.Cause
				}
			}
			if cause != CauseNoHandler && cause != CauseUnplaceable {
				continue
			}
			still[lane] = cause
			if told[lane] != cause {
				p.logger.Warn("jobs are due that no live peer can run", "kind", lane.Kind, "priority", lane.Priority, "weight", lane.Weight, "cause", cause)
				p.hooks.Stranded(StrandedInfo{lane.Kind, lane.Priority, lane.Weight, cause, head.Due})
			}
		}
	}
	clear(told)
	for lane, cause := range still {
		told[lane] = cause
	}
}

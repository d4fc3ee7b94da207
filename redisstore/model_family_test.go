package redisstore_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/dianemo/dianemo"
)

// Parents and children: need, link, heirs, passed, release and expunge.

// A modelNeed is what a job waits for, or will when it is there.
type modelNeed struct {
	told *modelTold // nil: nothing that counts
	gate bool
	ties map[string]*modelTie // by parent
}

// modelTold is what was told of the job as a whole.
type modelTold struct {
	by   string // who has told last what it waits for: what others said counts no more
	fit  bool   // a parent has ended as it should
	wait string // how long the job is kept for that peer (ms)
	peer string
}

// A modelTie is how a job waits for a parent that has not ended as it should.
type modelTie struct {
	letter, near string
	by           string
	// mark is ! if the parent ended otherwise, ? if it was left out, + if that counts as done;
	// number is as of when, "" if nothing was told yet.
	mark, number string
}

// A modelKin says how far a parent's children were told.
type modelKin struct {
	number int64
	cursor string
}

func (n *modelNeed) by() string {
	if n == nil || n.told == nil {
		return ""
	}
	return n.told.by
}

// sums counts what the job waits for: how much, how much of this has ended otherwise, how
// much of this was left out; and what was left out and counts as done.
func (n *modelNeed) sums() (pending, violated, left, out int) {
	if n.gate {
		pending++
	}
	for _, tie := range n.ties {
		if n.told == nil || tie.by != n.told.by {
			continue
		}
		if tie.mark != "+" {
			pending++
		} else if tie.letter == "c" {
			out++
		}
		if tie.mark == "!" || tie.mark == "?" {
			violated++
		}
		if tie.mark == "?" {
			left++
		}
	}
	return
}

func (p *modelPart) needOf(id string) *modelNeed {
	n := p.needs[id]
	if n == nil {
		n = &modelNeed{ties: map[string]*modelTie{}}
		p.needs[id] = n
	}
	return n
}

// tidy forgets who told what the job waits for when there is nothing of it left.
func (p *modelPart) tidy(id string, flow bool) {
	n := p.needs[id]
	if n == nil {
		return
	}
	if pending, _, _, out := n.sums(); pending == 0 && out == 0 && !flow {
		n.told = nil
	}
	if n.told == nil && !n.gate && len(n.ties) == 0 {
		delete(p.needs, id)
	}
}

const modelGate = 10 * time.Minute

// shut closes the gate of a job that is to heed its parents again.
func (p *modelPart) shut(id string) {
	n := p.needOf(id)
	n.gate = true
	if n.told == nil {
		n.told = &modelTold{}
	}
	p.gates[id] = p.ms() + modelGate.Milliseconds()
}

var modelLetters = map[dianemo.Condition]string{dianemo.OnSuccess: "s", dianemo.OnFailure: "f", dianemo.OnEnd: "a", dianemo.OnChosen: "c", dianemo.OfWorkflow: "m"}

func (p *modelPart) need(telling dianemo.Telling, by uint64, waits []dianemo.Wait) []bool {
	refused := make([]bool, len(waits))
	teller := fmt.Sprint(by)
	for i, w := range waits {
		j, n := p.job(w.ID), p.needs[w.ID]
		switch telling {
		case dianemo.TellIt:
			refused[i] = j != nil && !(j.flow() && j.state == dianemo.Cancelled && j.reason == "gate")
		case dianemo.ForgetIt:
			refused[i] = j != nil || n.by() != teller
		case dianemo.JoinIt:
			refused[i] = j == nil || n == nil || !n.gate
		}
		if refused[i] {
			continue
		}
		n = p.needOf(w.ID)
		switch telling {
		case dianemo.ForgetIt:
			for _, parent := range w.Parents {
				delete(n.ties, parent.ID)
			}
			n.gate, n.told = false, nil
			delete(p.gates, w.ID)
		case dianemo.DropIt:
			for _, parent := range w.Parents {
				delete(n.ties, parent.ID)
			}
		default:
			if telling == dianemo.TellIt && n.by() != teller {
				n.told, n.gate = &modelTold{by: teller}, false // who says so for the first time begins anew
			}
			for _, parent := range w.Parents {
				if tie := n.ties[parent.ID]; tie == nil || tie.by != n.by() {
					near := ""
					if parent.Near > 0 {
						near = strconv.FormatInt(upMillis(parent.Near), 10)
					}
					n.ties[parent.ID] = &modelTie{letter: modelLetters[parent.On], near: near, by: n.by()}
				}
			}
			n.gate = n.gate || w.Gate != ""
			if w.Gate == dianemo.OwnGate {
				p.gates[w.ID] = p.ms() + modelGate.Milliseconds()
			}
		}
		// A workflow that has ended may still be told of its other jobs.
		p.tidy(w.ID, j != nil && j.flow() && len(w.Parents) > 0)
	}
	return refused
}

func (p *modelPart) link(how dianemo.Linking, ties []dianemo.Tie) []dianemo.Linked {
	all := make([]dianemo.Linked, len(ties))
	mark := "|"
	if how == dianemo.Enlist || how == dianemo.Delist {
		mark = "#"
	}
	for i, tie := range ties {
		j := p.job(tie.Parent)
		if j != nil {
			all[i] = dianemo.Linked{State: j.stance(), Peer: j.peer}
		}
		family := tie.Parent + strings.TrimPrefix(mark, "|")
		edge := tie.Parent + mark + tie.Child
		switch {
		case how == dianemo.Unlink || how == dianemo.Delist:
			delete(p.edges, edge)
			if len(p.children(tie.Parent, mark, "")) == 0 {
				delete(p.kids, family)
				delete(p.outbox, family)
			}
		case j != nil || how != dianemo.LinkTo:
			p.edges[edge] = true
			if p.kids[family] == nil {
				p.kids[family] = &modelKin{number: p.now}
			}
		}
	}
	return all
}

// stance is what a job's children hear of it.
func (j *modelJob) stance() dianemo.State {
	if j.state == dianemo.Skipped && j.reason == "choice" {
		return dianemo.Unchosen
	}
	return j.state
}

// children lists what stands behind an id and a mark, after that one.
func (p *modelPart) children(id, mark, after string) (all []string) {
	for edge := range p.edges {
		if child, ok := strings.CutPrefix(edge, id+mark); ok && child > after {
			all = append(all, child)
		}
	}
	slices.Sort(all)
	return all
}

// bequeath leaves word for the children of jobs that have ended, or no longer have. It
// reports whether there are any.
func (p *modelPart) bequeath(jobs ...*modelJob) bool {
	var ids []string
	for _, j := range jobs {
		ids = append(ids, j.id)
	}
	return p.leave(ids...)
}

func (p *modelPart) leave(families ...string) (any bool) {
	for _, id := range families {
		if kin := p.kids[id]; kin != nil {
			kin.number, kin.cursor = max(kin.number+1, p.now), ""
			p.outbox[id] = p.now
			any = true
		}
	}
	return any
}

// outgoing is the outbox in order.
func (p *modelPart) outgoing() []string {
	return slices.SortedFunc(maps.Keys(p.outbox), func(a, b string) int {
		return cmp.Or(cmp.Compare(p.outbox[a], p.outbox[b]), strings.Compare(a, b))
	})
}

func (p *modelPart) heirs(parents, children int) (all []dianemo.Heirs, until int64) {
	out := p.outgoing()
	until = p.now
	for _, at := range p.outbox {
		until = max(until, at)
	}
	for _, name := range out[:min(len(out), parents)] {
		if children <= 0 {
			break
		}
		id, listed := strings.CutSuffix(name, "#")
		j := p.job(id)
		if j != nil && j.bare {
			j = nil
		}
		h := dianemo.Heirs{Parent: id, Listed: listed, Since: p.outbox[name], State: dianemo.Gone}
		if j != nil {
			h.State, h.Peer, h.Reason = j.stance(), j.peer, j.reason
			if j.state == dianemo.Succeeded && j.reason == "choice" {
				var chosen string
				chosen, h.Decides = strings.CutPrefix(j.result, "!")
				chosen, _, _ = strings.Cut(chosen, "\n")
				h.Decides = true
				h.Chosen = strings.Fields(chosen)
			}
		}
		if kin := p.kids[name]; kin != nil {
			h.Number, h.After = kin.number, kin.cursor
		}
		mark := "|"
		if listed {
			mark = "#"
			h.Peer, h.Decides, h.Chosen = "", false, nil
			teller, _ := strconv.ParseUint(p.needs[id].by(), 10, 64)
			h.Teller = teller
			switch {
			case p.needs[id] != nil && p.needs[id].gate:
				h.State = "closed"
			case j == nil || j.state == dianemo.Cancelled || j.reason == "cancel":
				h.State = dianemo.Void
			default:
				h.State = dianemo.Open
			}
		}
		some := p.children(id, mark, h.After)
		h.All = len(some) < children
		h.Children = some[:min(len(some), children)]
		children -= max(len(h.Children), 1)
		all = append(all, h)
	}
	return all, until
}

func (p *modelPart) passed(heirs []dianemo.Heirs) bool {
	for _, h := range heirs {
		name := h.Parent
		if h.Listed {
			name += "#"
		}
		kin, number, cursor := p.kids[name], int64(0), ""
		if kin != nil {
			number, cursor = kin.number, kin.cursor
		}
		if _, leaves := p.outbox[name]; !leaves || number != h.Number || cursor != h.After {
			continue // it has moved on, and begins anew, or another has told all
		}
		last := h.After
		if len(h.Children) > 0 {
			last = h.Children[len(h.Children)-1]
		}
		if h.All {
			last = ""
			delete(p.outbox, name)
		}
		if kin != nil {
			kin.cursor = last
		} else if !h.All {
			p.kids[name] = &modelKin{number, last}
		}
	}
	return len(p.outbox) > 0
}

// modelHears is what a child makes of what a parent has come to: the mark that it gets, "-" if it is what
// the child waits for, "" if the parent has not ended; false if it says nothing.
func modelHears(letter string, state dianemo.State) (string, bool) {
	ended := state.Finished() || state == dianemo.Unchosen || state == dianemo.Gone
	switch {
	case letter == "g":
		return "-", state == dianemo.Open || state == dianemo.Void || state == dianemo.Withdrawn
	case state == dianemo.Withdrawn:
		return "!", true
	case !ended:
		return "", state == dianemo.Scheduled || state == dianemo.Blocked || state == dianemo.Running
	case letter == "m" && state == dianemo.Cancelled:
		return "?", true
	case letter == "m" && (state == dianemo.Succeeded || state == dianemo.Skipped || state == dianemo.Unchosen || state == dianemo.Gone):
		return "+", true
	case letter == "m":
		return "!", true
	case letter == "a":
		return "-", true
	case state == dianemo.Unchosen && letter == "c":
		return "+", true
	case state == dianemo.Unchosen:
		return "?", true
	case (state == dianemo.Succeeded) == (letter != "f"):
		return "-", true
	}
	return "!", true
}

// A modelChild is a job of which a call of release tells something.
type modelChild struct {
	id                                     string
	j                                      *modelJob // nil also for one without a record: it waits for nothing
	gated                                  bool
	touched, opened, void, withdrawn, back bool
	becomes                                dianemo.State
	near                                   string
	until                                  int64
}

func (p *modelPart) release(call dianemo.Call, releases []dianemo.Release) (dianemo.ReleaseReply, error) {
	if kept, err := p.recall("release", call); kept != nil || err != nil {
		reply, _ := kept.(dianemo.ReleaseReply)
		return reply, err
	}
	news := p.news()
	byID := map[string]*modelChild{}
	var children []*modelChild
	heard := make([]bool, len(releases))
	for i, r := range releases {
		c := byID[r.Child]
		if c == nil {
			c = &modelChild{id: r.Child, j: p.job(r.Child)}
			if c.j != nil && c.j.bare {
				c.j = nil
			}
			c.gated = p.needs[r.Child] != nil && p.needs[r.Child].gate
			byID[r.Child] = c
			children = append(children, c)
		}
		heard[i] = p.hear(c, r)
	}
	var told []string
	for _, c := range children {
		if c.touched && c.j != nil && !c.gated && (c.j.state == dianemo.Blocked || c.j.state == dianemo.Skipped || c.j.flow()) {
			if p.become(c, news) {
				told = append(told, c.id)
			}
		}
		if c.touched {
			p.tidy(c.id, c.j != nil && c.j.flow())
		}
	}
	for _, c := range children {
		if c.back && c.j.unique != nil {
			if holder, _ := p.holder(c.j.unique.slot); holder == nil {
				p.take(c.j)
			}
		}
		if c.opened {
			delete(p.gates, c.id)
			if c.j == nil || c.j.flow() {
				told = append(told, c.id+"#")
			}
		}
	}
	reply := dianemo.ReleaseReply{News: news.list(), Heirs: p.leave(told...)}
	for i, r := range releases {
		c := byID[r.Child]
		one := dianemo.Released{Moved: dianemo.Moved{ID: r.Child}}
		if c.j != nil {
			one.Moved = c.j.moved()
			one.State = ""
			one.Lane = c.j.waits()
		}
		if heard[i] {
			one.State, one.Revived = c.becomes, c.back
			if kin := p.kids[c.id]; kin != nil && c.back {
				one.Number = kin.number
			}
		}
		if one.Near = c.near; c.near != "" {
			one.Until = time.UnixMilli(c.until)
		}
		reply.Jobs = append(reply.Jobs, one)
	}
	p.keep("release", call, reply)
	return reply, nil
}

// hear takes in one release. It reports whether that meant something.
func (p *modelPart) hear(c *modelChild, r dianemo.Release) bool {
	n := p.needs[r.Child]
	by := n.by()
	if r.Parent == "" {
		teller := ""
		if r.Teller != 0 {
			teller = fmt.Sprint(r.Teller)
		}
		if n == nil || !n.gate {
			// Behind no gate, a blocked job whose workflow is cancelled goes with it.
			if r.State != dianemo.Withdrawn || c.j == nil || c.j.state != dianemo.Blocked || c.j.flow() || teller != "" && teller != by {
				return false
			}
			c.touched, c.void, c.withdrawn, c.gated = true, true, true, false
			return true
		}
		if _, says := modelHears("g", r.State); !says || teller != "" && teller != by {
			return false
		}
		n.gate = false
		c.touched, c.opened, c.gated = true, true, false
		c.void, c.withdrawn = r.State != dianemo.Open, r.State == dianemo.Withdrawn
		return true
	}
	if n == nil || n.ties[r.Parent] == nil || n.ties[r.Parent].by != by {
		return false
	}
	tie := n.ties[r.Parent]
	mark, says := modelHears(tie.letter, r.State)
	if before, err := strconv.ParseInt(tie.number, 10, 64); !says || err == nil && r.Number < before {
		return false // it was told something newer
	}
	c.touched = true
	if tie.mark, tie.number = mark, strconv.FormatInt(r.Number, 10); mark == "-" {
		delete(n.ties, r.Parent)
		n.told.fit = true
		if tie.near != "" && r.Peer != "" {
			n.told.wait, n.told.peer = tie.near, r.Peer
		}
	}
	if r.State == dianemo.Withdrawn && !c.gated && c.j != nil && c.j.state == dianemo.Blocked {
		c.void, c.withdrawn = true, true
	}
	return true
}

// outcome is what a job comes to that has been told this, and why.
func (p *modelPart) outcome(c *modelChild) (dianemo.State, string) {
	n := p.needOf(c.id)
	pending, violated, left, out := n.sums()
	switch {
	case c.void && c.withdrawn:
		return dianemo.Cancelled, "workflow"
	case c.void:
		return dianemo.Cancelled, "gate"
	case c.j.flow():
		switch {
		case c.j.state == dianemo.Cancelled && c.j.reason == "gate":
			return c.j.state, c.j.reason
		case pending > violated && c.j.state == dianemo.Blocked:
			return dianemo.Blocked, c.j.reason
		case pending > violated:
			return dianemo.Blocked, ""
		case violated == 0:
			return dianemo.Succeeded, ""
		case c.j.reason == "cancel":
			return dianemo.Cancelled, "cancel"
		case left == violated:
			return dianemo.Cancelled, "job"
		}
		return dianemo.Failed, "job"
	case violated > left:
		return dianemo.Skipped, "parent"
	case pending > violated:
		return dianemo.Blocked, ""
	case violated > 0, out > 0 && (n.told == nil || !n.told.fit):
		return dianemo.Skipped, "choice"
	}
	return dianemo.Scheduled, ""
}

// become moves a job. It reports whether its own children are to hear of it.
func (p *modelPart) become(c *modelChild, news *modelNews) bool {
	j, was := c.j, c.j.state
	state, reason := p.outcome(c)
	c.becomes = state
	if state == was {
		return false
	}
	switch state {
	case dianemo.Scheduled:
		due := j.due
		if due <= 0 {
			due += p.ms() // somewhat earlier, for what lies on a long path
			if told := p.needOf(j.id).told; told != nil && told.peer != "" {
				wait, _ := strconv.ParseInt(told.wait, 10, 64)
				due = p.ms() + wait
				c.near, c.until = told.peer, due
			}
		}
		j.wait(due, reason)
		news.add(j)
	case dianemo.Blocked:
		j.state, j.reason, j.ended = state, reason, 0
	default:
		p.end(j, state, reason)
	}
	c.back = was != dianemo.Blocked && !state.Finished()
	return was != dianemo.Blocked || state.Finished()
}

// expunge removes what is left of a submission that was given up.
func (p *modelPart) expunge(not uint64, ids []string) {
	for _, id := range ids {
		j, n := p.job(id), p.needs[id]
		if j == nil || j.state != dianemo.Cancelled && j.state != dianemo.Blocked || j.runs > 0 || n.by() == fmt.Sprint(not) {
			continue
		}
		delete(p.jobs, id)
		if n != nil {
			n.gate, n.told = false, nil
			p.tidy(id, false)
		}
	}
}

// closed lists the gates that are closed for too long.
func (p *modelPart) closed(limit int) []string {
	var ids []string
	for id, until := range p.gates {
		if until <= p.ms() {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int { return cmp.Or(cmp.Compare(p.gates[a], p.gates[b]), strings.Compare(a, b)) })
	return ids[:min(len(ids), limit)]
}

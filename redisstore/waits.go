package redisstore

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
)

// Repair of what blocked jobs wait for. What stands in needs is what each was told, so
// it is right if its numbers agree with its fields and nobody has ended, all of whose
// children have been told, that the job still waits for. Where it is wrong, the specs, and
// for workflows the lists of their jobs, say what it must be; what has happened since is
// told again.
//
// While a gate is closed, or a parent stands in an outbox, someone is about to tell the job:
// it is left alone. A parent goes into the outbox in the script that ends it and leaves it
// when all children have been told; so a job that is read once more after that, and
// still waits, will not be told.

// mendGate is a gate that repair has closed, for a job that nothing else is left to move. No
// entry in gates belongs to it: whoever finds it opens it.
const mendGate = "g0"

// needed is a blocked job, and what stands in needs of it.
type needed struct {
	id      string
	spec    *dianemo.Spec
	flow    bool
	bare    bool // its spec can't be read
	parents []string
	letters []string // how it waits for each, by its spec
	broken  string   // why that can't be known
	gate    string
	sum     string
	values  []string // what it was told of each parent
}

// at most so many fields are read at one moment.
const neededFields = 2000

func (n *needed) fields() []string {
	fields := make([]string, 0, 2+len(n.parents))
	fields = append(fields, n.id+"|", n.id+"||")
	for _, p := range n.parents {
		fields = append(fields, n.id+"|"+p)
	}
	return fields
}

// waits walks through the blocked jobs.
func (w *walk) waits(ctx context.Context, rest string) (string, error) {
	ids, next, err := w.page(ctx, "blocked", rest)
	if err != nil {
		return "", err
	}
	for some := range slices.Chunk(ids, 64) {
		if err := w.look(ctx, some); err != nil {
			return "", err
		}
	}
	return next, nil
}

// look looks at some blocked jobs.
func (w *walk) look(ctx context.Context, ids []string) error {
	metas, err := w.fieldsOf(ctx, "meta", ids)
	if err != nil {
		return err
	}
	specs, err := w.Specs(ctx, ids)
	if err != nil {
		return err
	}
	var asked []query
	for i, id := range ids {
		m, err := parseMeta(metas[id])
		if err != nil || dianemo.State(m.state) != dianemo.Blocked {
			continue
		}
		n := &needed{id: id}
		if n.spec, err = dianemo.DecodeSpec(specs[i]); err != nil {
			if n.spec, err = w.unread(ctx, n, m.lane); err != nil {
				return err
			}
			if n.spec == nil {
				continue
			}
		}
		n.flow = dianemo.IsWorkflow(n.spec.Kind)
		if err := w.learn(ctx, n); err != nil {
			return err
		}
		more, err := w.judge(ctx, n)
		if err != nil {
			return err
		}
		asked = append(asked, more...)
	}
	return w.ask(ctx, asked)
}

// unread is for a blocked job whose spec can't be read. A workflow needs none: it has a list of
// its jobs, and was told of each. Any other job ends: whom it waits for is not known, nor could it
// start. It returns nil if there is nothing more to be done.
func (w *walk) unread(ctx context.Context, n *needed, base string) (*dianemo.Spec, error) {
	stored, err := w.fieldsOf(ctx, "spec", []string{n.id})
	if err != nil || stored[n.id] != "" && stored[n.id][0] > dianemo.SpecVersion {
		return nil, err
	}
	if lane, _ := parseBase(base); dianemo.IsWorkflow(lane.Kind) {
		n.bare = true
		return &dianemo.Spec{Kind: lane.Kind}, nil
	}
	n.broken = "its spec can not be read"
	if err := w.read(ctx, n); err != nil {
		return nil, err
	}
	if opens, err := w.opened(ctx, n); opens || err != nil {
		return nil, err
	}
	_, err = w.setAside(ctx, n)
	return nil, err
}

// opened reports whether someone is to open the gate that a job waits for, of which the spec is
// lost that would say whose it is.
func (w *walk) opened(ctx context.Context, n *needed) (bool, error) {
	if n.gate == "" || n.gate == mendGate {
		return false, nil
	}
	err := w.rdb.ZScore(ctx, w.t.key("gates"), n.id).Err()
	if err != redis.Nil {
		if err != nil {
			err = w.broken(ctx, err, w.t.key("gates"))
		}
		return true, err
	}
	flows, err := w.Children(ctx, n.id, "{", 1) // behind all children
	if err != nil || len(flows) == 0 {
		return false, err
	}
	found, err := w.ends(ctx, "#", []dianemo.Tie{{Parent: strings.TrimPrefix(flows[0], "|"), Child: n.id}})
	if err != nil {
		return false, err
	}
	e := found[0]
	return e.leaving || !e.asked || e.state != dianemo.Open && e.state != dianemo.Void, nil
}

// learn reads whom the job waits for, and what it was told of them.
func (w *walk) learn(ctx context.Context, n *needed) error {
	if n.flow {
		for after := ""; ; {
			some, err := w.Members(ctx, n.id, after, neededFields)
			if err != nil {
				return err
			}
			if len(some) == 0 {
				break
			}
			n.parents = append(n.parents, some...)
			after = some[len(some)-1]
		}
	}
	for _, p := range n.spec.Parents {
		n.parents, n.letters = append(n.parents, p.ID), append(n.letters, hows[p.On])
	}
	if missing := n.spec.Many + n.spec.Members() - len(n.parents); missing > 0 || n.bare {
		named, err := w.told(ctx, n.id)
		if err != nil {
			return err
		}
		for _, p := range named {
			if !slices.Contains(n.parents, p) {
				n.parents = append(n.parents, p)
			}
		}
		if n.flow && (len(n.parents) < n.spec.Members() || len(n.parents) == 0) {
			n.broken = "some of its jobs are not known any more"
		} else if !n.flow {
			n.broken = "its parents are not known any more"
		}
	}
	if n.flow {
		n.letters = slices.Repeat([]string{hows[dianemo.OfWorkflow]}, len(n.parents))
	}
	return w.read(ctx, n)
}

// told lists of whom the job was told something, from needs itself.
func (w *walk) told(ctx context.Context, id string) ([]string, error) {
	var parents []string
	for at := uint64(0); ; {
		entries, next, err := w.rdb.HScan(ctx, w.t.key("needs"), at, id+"|*", neededFields).Result()
		if err != nil {
			return nil, w.broken(ctx, err, w.t.key("needs"))
		}
		for i := 0; i+1 < len(entries); i += 2 {
			if p := entries[i][len(id)+1:]; dianemo.CheckName("parent", p) == nil {
				parents = append(parents, p)
			}
		}
		if at = next; at == 0 {
			slices.Sort(parents)
			return slices.Compact(parents), nil
		}
	}
}

// read reads what the job was told, as at one moment: if that takes several calls, twice.
// Each value has when it was told, so what is the same is unchanged. gate is
// 'moving' if it is not.
func (w *walk) read(ctx context.Context, n *needed) error {
	all := n.fields()
	for pass := range 2 {
		values := make([]string, 0, len(all))
		for some := range slices.Chunk(all, 2+neededFields) {
			found, err := w.rdb.HMGet(ctx, w.t.key("needs"), some...).Result()
			if err != nil {
				return w.broken(ctx, err, w.t.key("needs"))
			}
			for _, v := range found {
				values = append(values, text(v))
			}
		}
		same := pass == 0 || n.gate == values[0] && n.sum == values[1] && slices.Equal(n.values, values[2:])
		n.gate, n.sum, n.values = values[0], values[1], values[2:]
		if !same {
			n.gate = "moving"
		}
		if len(all) <= 2+neededFields {
			break
		}
	}
	return nil
}

// sums are the numbers of what a job waits for: see totals in common.lua.
type sums struct {
	pending, violated, left, out int
	rest                         string
}

var (
	sumForm = regexp.MustCompile(`^(\d{1,9}),(\d{1,9}),(\d{1,9}),(\d{1,9}),([01]#\d*(?: \d{0,9} \S*)?)$`)
	howForm = regexp.MustCompile(`^([!?+]?)([sfacm])\d*(?:@\d*)?#(\d*)$`)
)

func parseSums(s string) (sums, bool) {
	f := sumForm.FindStringSubmatch(s)
	if f == nil {
		return sums{rest: "0#"}, s == ""
	}
	number := func(s string) int { n, _ := strconv.Atoi(s); return n } // of at most 9 digits
	t := sums{number(f[1]), number(f[2]), number(f[3]), number(f[4]), f[5]}
	return t, t.violated <= t.pending && t.left <= t.violated
}

func (t sums) String() string {
	words := make([]string, 4)
	for i, n := range []int{t.pending, t.violated, t.left, t.out} {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, ",") + "," + t.rest
}

// by is who said so.
func (t sums) by() string {
	by, _, _ := strings.Cut(t.rest[2:], " ")
	return by
}

// stuck reports whether nothing is left that could move the job.
func (t sums) stuck(flow bool) bool {
	if flow {
		return t.pending <= t.violated
	}
	return t.pending == 0 || t.violated > 0
}

// A query is about a blocked job and one of its parents, or, if parent is "", its workflow,
// whose gate it waits for.
type query struct {
	*needed
	parent, value string
}

// judge looks whether what the job was told makes sense. It returns what is to be asked
// about it.
func (w *walk) judge(ctx context.Context, n *needed) ([]query, error) {
	member := n.spec.Workflow != ""
	switch n.gate {
	case "g":
		err := w.rdb.ZScore(ctx, w.t.key("gates"), n.id).Err()
		if err != redis.Nil {
			if err != nil {
				err = w.broken(ctx, err, w.t.key("gates"))
			}
			return nil, err // someone is to open it
		}
		if member {
			return []query{{needed: n, value: n.gate}}, nil
		}
		ok, err := w.mend(ctx, n, strconv.FormatInt(gateFor.Milliseconds(), 10), []string{n.id + "|", "g", "g"})
		if ok {
			w.found(dianemo.Repaired{ID: n.id, Key: w.t.key("gates"), What: "its gate was closed for ever", Did: "it is cancelled if nobody opens it"})
		}
		return nil, err
	case "", mendGate:
	default:
		return nil, nil
	}
	had, readable := parseSums(n.sum)
	if n.sum == "" || !readable {
		// Whoever said what is left of it.
		had.rest = "0#1"
		for _, value := range n.values {
			if f := howForm.FindStringSubmatch(value); f != nil {
				had.rest = "0#" + f[3]
				break
			}
		}
	}
	var is sums
	var absent []int
	bad := false
	if n.gate != "" {
		is.pending++
	}
	for i, value := range n.values {
		f := howForm.FindStringSubmatch(value)
		switch {
		case value == "":
			absent = append(absent, i)
			continue
		case f == nil || n.flow != (f[2] == "m"):
			bad = true
			absent = append(absent, i)
			continue
		case f[3] != had.by():
			absent = append(absent, i) // said by one who did not enqueue the job
			continue
		case f[1] == "+" && f[2] == "c":
			is.out++
		}
		if f[1] != "+" {
			is.pending++
		}
		if f[1] == "!" || f[1] == "?" {
			is.violated++
		}
		if f[1] == "?" {
			is.left++
		}
	}
	is.rest = had.rest
	// A blocked job waits for something, so it has numbers.
	sound := readable && n.sum != "" && !bad && is == had
	if n.flow {
		// Those that have ended and are gone count no more.
		var err error
		if absent, err = w.existing(ctx, n, absent); err != nil {
			return nil, err
		}
	} else if sound {
		absent = nil // they have ended as they should
	}
	switch {
	case sound && len(absent) == 0 && !is.stuck(n.flow) && n.gate == "":
		return n.queries(), nil
	case sound && len(absent) == 0 && n.gate != "":
		return w.opens(n), nil
	case !sound && n.broken != "":
		return w.setAside(ctx, n)
	}
	return w.rebuild(ctx, n, is, absent)
}

// existing leaves those of a workflow's jobs that exist.
func (w *walk) existing(ctx context.Context, n *needed, places []int) ([]int, error) {
	var kept []int
	for some := range slices.Chunk(places, neededFields) {
		ids := make([]string, len(some))
		for i, at := range some {
			ids[i] = n.parents[at]
		}
		standings, err := w.Standings(ctx, ids)
		if err != nil {
			return nil, err
		}
		for i, at := range some {
			if standings[i].State != "" || n.values[at] != "" {
				kept = append(kept, at)
			}
		}
	}
	return kept, nil
}

// queries asks about all that the job waits for; a workflow may also have been told wrong.
func (n *needed) queries() []query {
	var all []query
	for i, value := range n.values {
		if value != "" && (n.flow || !strings.ContainsAny(value[:1], "!?+")) {
			all = append(all, query{n, n.parents[i], value})
		}
	}
	return all
}

// opens has the gate opened that repair has closed.
func (w *walk) opens(n *needed) []query {
	if n.spec.Workflow != "" {
		return []query{{needed: n, value: n.gate}}
	}
	w.reply.Tell = append(w.reply.Tell, dianemo.Release{Child: n.id, State: dianemo.Open})
	return nil
}

// mendFields is how many fields one call changes.
const mendFields = 500

// rebuild puts back what the job may have to wait for, and counts anew. While that takes
// several calls, and where nothing is left to wait for, a gate is closed.
func (w *walk) rebuild(ctx context.Context, n *needed, is sums, absent []int) ([]query, error) {
	what, did := "what it waits for was lost in part", "it is counted anew"
	if is.String() == n.sum && len(absent) == 0 {
		what, did = "nothing was left for it to wait for", "it goes on"
	}
	if len(absent) > 0 {
		did = "it waits for " + strconv.Itoa(len(absent)) + " more, until it is told of them again"
	}
	total, gate := n.sum, n.gate
	for first := true; first || len(absent) > 0; first = false {
		some := absent[:min(len(absent), mendFields)]
		absent = absent[len(some):]
		var changes []string
		for _, at := range some {
			how := n.letters[at] + "#" + is.by()
			changes = append(changes, n.id+"|"+n.parents[at], n.values[at], how)
			n.values[at] = how
			is.pending++
		}
		closed := gate
		if gate == "" && (len(absent) > 0 || is.stuck(n.flow)) {
			closed = mendGate
			is.pending++
		}
		changes = append(changes, n.id+"|", gate, closed, n.id+"||", total, is.String())
		ok, err := w.mend(ctx, n, "", changes)
		if err != nil || !ok {
			return nil, err // it has changed meanwhile; the next walk looks again
		}
		total, gate = is.String(), closed
	}
	n.gate, n.sum = gate, total
	w.found(dianemo.Repaired{ID: n.id, Key: w.t.key("needs"), What: what, Did: did})
	all := n.queries()
	if gate != "" {
		all = append(all, w.opens(n)...)
	}
	return all, nil
}

// setAside ends a job of which it can't be known any more what it waits for.
func (w *walk) setAside(ctx context.Context, n *needed) ([]query, error) {
	ok, err := w.mend(ctx, n, "", []string{n.id + "|", n.gate, mendGate, n.id + "||", n.sum, "corrupt"})
	if ok {
		w.found(dianemo.Repaired{ID: n.id, Key: w.t.key("needs"), What: n.broken, Did: "it ends"})
		w.reply.Tell = append(w.reply.Tell, dianemo.Release{Child: n.id, State: dianemo.Open})
	}
	return nil, err
}

func (w *walk) mend(ctx context.Context, n *needed, gate string, changes []string) (bool, error) {
	args := []any{n.id, gate, len(changes) / 3}
	for _, c := range changes {
		args = append(args, c)
	}
	reply, err := w.run(ctx, w.scripts.mend, []string{w.t.key("meta"), w.t.key("needs"), w.t.key("gates")}, args...)
	return err == nil && len(reply) == 2 && number(reply[1]) == 1, err
}

// An end is how a parent stands.
type end struct {
	number                int64
	state                 dianemo.State
	reason, peer, chosen  string
	leaving, knows, asked bool
}

// ends asks how parents stand; mark is that of the edges.
func (w *walk) ends(ctx context.Context, mark string, ties []dianemo.Tie) ([]end, error) {
	found := make([]end, len(ties))
	parts := map[int][]int{}
	for i, tie := range ties {
		p := w.Partition(tie.Parent)
		parts[p] = append(parts[p], i)
	}
	for p, places := range parts {
		t := w.tag(p)
		keys := []string{t.key("spec"), t.key("meta"), t.key("result"), t.key("edges"), t.key("kids"), t.key("outbox"), t.key("needs")}
		for some := range slices.Chunk(places, dianemo.MaxCallJobs) {
			var args []any
			for _, i := range some {
				args = append(args, ties[i].Parent, mark, ties[i].Child)
			}
			replies, err := w.eval(ctx, command{w.scripts.ends, keys, args})
			if err != nil {
				return nil, err
			}
			reply := replies[0]
			if err := verdict(reply); err != nil || len(reply) != 1+7*len(some) {
				return nil, err
			}
			for j, i := range some {
				v := reply[1+7*j:]
				found[i] = end{number(v[6]), dianemo.State(text(v[0])), text(v[1]), text(v[2]), text(v[3]), number(v[4]) == 1, number(v[5]) == 1, true}
			}
		}
	}
	return found, nil
}

// ended reports whether a parent has; one that is gone has, too.
func ended(state dianemo.State) bool {
	return state.Finished() || state == dianemo.Unchosen || state == dianemo.Gone
}

// untold reports whether the child should have been told that its parent stands so.
func (q query) untold(e end) bool {
	if !e.asked || e.leaving {
		return false
	}
	if !q.flow {
		return ended(e.state)
	}
	is := ""
	switch {
	case !ended(e.state):
	case e.state == dianemo.Cancelled:
		is = "?"
	case e.state == dianemo.Succeeded || e.state == dianemo.Skipped || e.state == dianemo.Unchosen || e.state == dianemo.Gone:
		is = "+"
	default:
		is = "!"
	}
	return is != strings.TrimRight(q.value[:1], "m")
}

func (q query) tie() dianemo.Tie {
	switch {
	case q.parent == "":
		return dianemo.Tie{Parent: q.spec.Workflow, Child: q.id}
	case q.flow:
		return dianemo.Tie{Parent: q.parent, Child: "|" + q.id}
	}
	return dianemo.Tie{Parent: q.parent, Child: q.id}
}

// release is what the job is told.
func (q query) release(e end) dianemo.Release {
	r := dianemo.Release{Child: q.id, Parent: q.parent, State: e.state, Number: e.number, Peer: e.peer}
	if chosen, decides := strings.CutPrefix(e.chosen, "!"); decides && !q.flow && !slices.Contains(strings.Fields(chosen), q.id) {
		r.State = dianemo.Unchosen
	}
	if q.parent == "" && e.state == dianemo.Void {
		r.State = dianemo.Withdrawn
	}
	return r
}

// A lapse is something that a job was not told, or a parent that does not know it.
type lapse struct {
	query
	end
	untold, unknown bool
}

// ask asks about parents and workflows, and has told what was not told.
func (w *walk) ask(ctx context.Context, all []query) error {
	var lapses []lapse
	for _, mark := range []string{"|", "#"} {
		var some []query
		var ties []dianemo.Tie
		for _, q := range all {
			if (q.parent == "") == (mark == "#") {
				some, ties = append(some, q), append(ties, q.tie())
			}
		}
		found, err := w.ends(ctx, mark, ties)
		if err != nil {
			return err
		}
		for i, q := range some {
			e := found[i]
			l := lapse{query: q, end: e, unknown: e.asked && !e.knows && e.state != dianemo.Gone}
			if q.parent == "" {
				l.untold = !e.leaving && (e.state == dianemo.Open || e.state == dianemo.Void)
				l.unknown = l.unknown && e.state == dianemo.Open
			} else {
				l.untold = q.untold(e)
			}
			if l.untold || l.unknown {
				lapses = append(lapses, l)
			}
		}
	}
	if len(lapses) == 0 {
		return nil
	}
	lapses, err := w.last(ctx, lapses)
	if err != nil {
		return err
	}
	var late []dianemo.Release
	for _, l := range lapses {
		if l.unknown {
			how := dianemo.LinkTo
			if l.query.parent == "" {
				how = dianemo.Enlist
			}
			tie := l.tie()
			if _, err := w.Link(ctx, w.Partition(tie.Parent), how, []dianemo.Tie{tie}); err != nil {
				return err
			}
			w.found(dianemo.Repaired{ID: l.id, Key: w.tag(w.Partition(tie.Parent)).key("edges"), What: tie.Parent + " did not know of it", Did: "it does again"})
		}
		if !l.untold {
			continue
		}
		r := l.release(l.end)
		what, did := "it waits for "+l.parent+" and was not told how that stands", "it is told: "+string(r.State)
		if l.parent == "" {
			what = "it was not told of the gate of its workflow"
		}
		w.found(dianemo.Repaired{ID: l.id, Key: w.t.key("needs"), What: what, Did: did})
		// What is to run after all is told first, so that no workflow ends in between.
		if r.State == dianemo.Scheduled || r.State == dianemo.Blocked || r.State == dianemo.Running {
			w.reply.Tell = append(w.reply.Tell, r)
		} else {
			late = append(late, r)
		}
	}
	w.reply.Tell = append(w.reply.Tell, late...)
	return nil
}

// last reads once more what the jobs were told, and leaves those of which it is still the
// same.
func (w *walk) last(ctx context.Context, lapses []lapse) ([]lapse, error) {
	// Jobs of a cancelled workflow are not told of each other while they are withdrawn.
	var ties []dianemo.Tie
	for _, l := range lapses {
		ties = append(ties, dianemo.Tie{Parent: l.spec.Workflow, Child: l.id})
	}
	var kept []lapse
	for some := range slices.Chunk(lapses, dianemo.MaxCallJobs) {
		withdrawing, err := w.ends(ctx, "#", ties[:len(some)])
		if err != nil {
			return nil, err
		}
		ties = ties[len(some):]
		var ids, fields []string
		for _, l := range some {
			ids = append(ids, l.id)
			fields = append(fields, l.id+"|"+l.parent, l.id+"|")
		}
		metas, err := w.fieldsOf(ctx, "meta", ids)
		if err != nil {
			return nil, err
		}
		values, err := w.rdb.HMGet(ctx, w.t.key("needs"), fields...).Result()
		if err != nil {
			return nil, w.broken(ctx, err, w.t.key("needs"))
		}
		gates, err := w.rdb.ZMScore(ctx, w.t.key("gates"), ids...).Result()
		if err != nil {
			return nil, w.broken(ctx, err, w.t.key("gates"))
		}
		for i, l := range some {
			m, err := parseMeta(metas[l.id])
			if err != nil || dianemo.State(m.state) != dianemo.Blocked || gates[i] != 0 || text(values[2*i]) != l.value ||
				text(values[2*i+1]) == "g" && l.parent != "" || l.reason == "workflow" && withdrawing[i].leaving {
				continue
			}
			kept = append(kept, l)
		}
	}
	return kept, nil
}

package redisstore_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/dianemo/dianemo"
)

// Schedules: set, fire and read.

// A modelSchedule is a schedule with its cursor. Times are in ms, 0 if there is none.
type modelSchedule struct {
	name, definition       string
	version                int64
	state                  string // on, paused, broken
	reason                 string
	at, seen               int64
	last                   string
	missed, from, to, next int64
}

// byNext lists those that have a time, in order.
func (p *modelPart) byNext() []*modelSchedule {
	var all []*modelSchedule
	for _, s := range p.schedules {
		if s.next != 0 {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *modelSchedule) int {
		return cmp.Or(cmp.Compare(a.next, b.next), strings.Compare(a.name, b.name))
	})
	return all
}

// later is the first that is not due yet.
func (p *modelPart) later() *modelSchedule {
	for _, s := range p.byNext() {
		if s.next > p.ms() {
			return s
		}
	}
	return nil
}

// A modelSet is the answer to SetSchedule.
type modelSet struct {
	first bool
	none  bool
}

func (p *modelPart) set(call dianemo.Call, wish dianemo.ScheduleWish) (first bool, err error) {
	if kept, err := p.recall("schedule", call); kept != nil || err != nil {
		set, _ := kept.(modelSet)
		if set.none {
			err = fmt.Errorf("%w: %q", dianemo.ErrNoSchedule, wish.Name)
		}
		return set.first, err
	}
	s, version := p.schedules[wish.Name], int64(0)
	if s != nil {
		version = s.version
	}
	moving := wish.What == dianemo.PutIt && !wish.Cursor.IsZero() || wish.What == dianemo.PauseIt && !wish.From.IsZero()
	switch {
	case wish.Version != dianemo.AnyVersion && wish.Version != version:
		return false, dianemo.ErrMoved
	case s == nil && wish.What != dianemo.PutIt:
		p.keep("schedule", call, modelSet{none: true})
		return false, fmt.Errorf("%w: %q", dianemo.ErrNoSchedule, wish.Name)
	case s != nil && moving && s.state == "on" && s.next != 0 && s.next <= p.ms():
		return false, dianemo.ErrMoved // what is due is fired first
	case s != nil && !wish.From.IsZero() && s.at != wish.From.UnixMilli():
		return false, dianemo.ErrMoved // some was fired meanwhile
	}
	defer func() { p.keep("schedule", call, modelSet{first: first}) }()
	if wish.What == dianemo.RemoveIt {
		p.removed = max(p.removed, s.version)
		delete(p.schedules, wish.Name)
		return false, nil
	}
	if s == nil {
		s = &modelSchedule{name: wish.Name, state: "on", at: p.ms()}
		p.schedules[wish.Name] = s
	}
	switch wish.What {
	case dianemo.PutIt:
		s.definition, s.version, s.reason = string(wish.Definition), max(s.version+1, p.removed+1, p.ms()), ""
		if s.state == "broken" {
			s.state = "on"
		}
	case dianemo.PauseIt:
		if s.state == "on" {
			s.state = "paused"
		}
	case dianemo.ResumeIt:
		if s.state != "paused" {
			return false, nil
		}
		s.state = "on"
	case dianemo.BreakIt:
		s.state, s.reason = "broken", wish.Reason
	}
	if !wish.Cursor.IsZero() {
		s.at, s.seen = wish.Cursor.UnixMilli(), 0
	}
	if s.next = 0; s.state != "on" || wish.Next.IsZero() {
		return false, nil
	}
	s.next = wish.Next.UnixMilli()
	return s.next <= p.ms() || p.later() == s, nil
}

func (p *modelPart) fire(call dianemo.Call, fire dianemo.Fire) (dianemo.FireReply, error) {
	if kept, err := p.recall("fire", call); kept != nil || err != nil {
		reply, _ := kept.(dianemo.FireReply)
		return reply, err
	}
	if fire.Term != 0 && p.deposed(fire.Term) {
		return dianemo.FireReply{}, dianemo.ErrDeposed
	}
	reply := dianemo.FireReply{Fired: make([]dianemo.Fired, len(fire.Firings))}
	news := p.news()
	later, earliest := int64(0), int64(0)
	if s := p.later(); s != nil {
		later = s.next
	}
	lives := map[string]bool{} // as it was before this call
	for id, j := range p.jobs {
		lives[id] = !j.state.Finished()
	}
	for i := range fire.Firings {
		f, fired := &fire.Firings[i], &reply.Fired[i]
		fired.States = make([]dianemo.State, len(f.Occurrences))
		s := p.schedules[f.Name]
		if s == nil || s.state == "broken" || s.version != f.Version || !f.Extra && (s.at != f.Cursor.UnixMilli() || s.state == "paused") {
			continue // another has decided, or changed it
		}
		fired.Done = true
		live := f.Overlap != dianemo.OverlapAllow && lives[s.last]
		if live {
			fired.Running = s.last
		}
		for k := range f.Occurrences {
			o := &f.Occurrences[k]
			if p.job(o.ID) != nil {
				continue
			}
			j := &modelJob{id: o.ID, lane: o.Lane, weight: o.Weight, maxReruns: -1, spec: o.Spec, enqueued: p.ms(), due: p.dueOf(&o.Record), history: map[int]string{}}
			if o.Reruns != 0 {
				j.maxReruns = max(o.Reruns, 0)
			}
			switch {
			case o.Missed:
				p.end(j, dianemo.Missed, "late")
			case live && (f.Overlap == dianemo.OverlapWait || f.Extra):
				fired.Waits = true
				continue
			case live:
				p.end(j, dianemo.Skipped, "overlap")
			case j.flow():
				j.state, j.due = dianemo.Blocked, 0
				n := p.needOf(j.id)
				n.gate, n.told = true, &modelTold{by: fmt.Sprint(o.Teller)}
				p.gates[j.id] = p.ms()
			default:
				j.bare = o.Weight == 0 && o.Reruns == 0 && len(o.Spec) <= 2<<10
				j.wait(j.due, "")
				news.add(j)
			}
			if fired.States[k] = j.state; !j.state.Finished() {
				s.last, live = j.id, f.Overlap != dianemo.OverlapAllow
			}
			p.jobs[j.id] = j
		}
		if f.Extra {
			continue // out of turn: the cursor stays
		}
		s.at, s.seen, s.next = f.To.UnixMilli(), 0, 0
		if fired.Waits {
			s.at = f.Hold.UnixMilli()
		}
		if !f.Next.IsZero() {
			s.next = f.Next.UnixMilli()
		}
		if fired.Waits || f.Pending {
			s.seen, s.next = p.ms(), p.ms()+max(f.Again.Milliseconds(), 1)
		}
		if u := f.Unrecorded; u.Count > 0 {
			if s.to != f.Cursor.UnixMilli() {
				s.missed, s.from = 0, u.First.UnixMilli() // else it goes on where the last ones ended
			}
			s.missed, s.to = s.missed+u.Count, u.Last.UnixMilli()
		}
		if s.next != 0 && (earliest == 0 || s.next < earliest) {
			earliest = s.next
		}
	}
	reply.News = news.list()
	reply.First = earliest != 0 && (earliest <= p.ms() || later == 0 || earliest < later)
	p.keep("fire", call, reply)
	return reply, nil
}

// read is what Schedules answers of those that are due, or of some by name.
func (p *modelPart) read(names []string, offset int) dianemo.SchedulesReply {
	reply := dianemo.SchedulesReply{Now: modelMicros(p.now)}
	if s := p.later(); s != nil {
		reply.Later = modelInstant(s.next)
	}
	var due []string
	for _, s := range p.byNext() {
		if s.next <= p.ms() {
			due = append(due, s.name)
		}
	}
	reply.Due = len(due)
	if names == nil {
		names = due[min(offset, len(due)):]
	}
	reply.Asked = len(names)
	for _, name := range names {
		s := p.schedules[name]
		if s == nil {
			continue
		}
		one := dianemo.StoredSchedule{Name: name, Version: s.version, Reason: s.reason, Cursor: modelInstant(s.at), Seen: modelInstant(s.seen), Last: s.last,
			State:      map[string]dianemo.ScheduleState{"on": dianemo.Active, "paused": dianemo.Paused, "broken": dianemo.Broken}[s.state],
			Unrecorded: dianemo.Unrecorded{Count: s.missed, First: modelInstant(s.from), Last: modelInstant(s.to)}, Next: modelInstant(s.next)}
		if s.definition != "" {
			one.Definition = []byte(s.definition)
		}
		if j := p.job(s.last); j != nil {
			one.LastState, one.LastEnded = j.state, modelInstant(j.ended)
		}
		reply.Schedules = append(reply.Schedules, one)
	}
	return reply
}

// scheduleNames lists all, in order.
func (w *modelWorld) scheduleNames() []string {
	var names []string
	for _, p := range w.parts {
		names = slices.AppendSeq(names, maps.Keys(p.schedules))
	}
	slices.Sort(names)
	return names
}

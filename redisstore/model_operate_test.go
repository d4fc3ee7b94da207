package redisstore_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/dianemo/dianemo"
)

// What operators wish: cancel, requeue, reschedule and pause.

func (p *modelPart) wish(edge dianemo.Edge, call dianemo.Call, ids []string, each func(j *modelJob, one *dianemo.Wished)) (dianemo.WishReply, error) {
	if kept, err := p.recall(string(edge), call); kept != nil || err != nil {
		reply, _ := kept.(dianemo.WishReply)
		return reply, err
	}
	var reply dianemo.WishReply
	for _, id := range ids {
		one := dianemo.Wished{Moved: dianemo.Moved{ID: id}, Err: fmt.Errorf("%w: %q", dianemo.ErrNotFound, id)}
		if j := p.job(id); j != nil {
			one.Err = nil
			each(j, &one)
			err, peer := one.Err, one.Peer
			one = dianemo.Wished{Moved: j.moved(), Err: err, Peer: peer}
		}
		reply.Jobs = append(reply.Jobs, one)
	}
	return reply, nil
}

func (p *modelPart) cancel(call dianemo.Call, ids []string) (dianemo.WishReply, error) {
	var out []*modelJob
	var flows []string
	reply, err := p.wish(dianemo.EdgeCancel, call, ids, func(j *modelJob, one *dianemo.Wished) {
		switch {
		case j.state == dianemo.Running:
			one.Peer, j.reason = j.peer, "cancel"
		case j.state == dianemo.Blocked && j.flow():
			j.reason = "cancel"
			flows = append(flows, j.id+"#")
		case j.state == dianemo.Scheduled, j.state == dianemo.Blocked:
			p.end(j, dianemo.Cancelled, "cancel")
			out = append(out, j)
		case j.state != dianemo.Cancelled:
			one.Err = &dianemo.StateError{ID: j.id, State: j.state, Edge: dianemo.EdgeCancel}
		}
	})
	if err == nil && !p.kept(dianemo.EdgeCancel, call) {
		p.bequeath(out...)
		p.leave(flows...)
		p.keep("cancel", call, reply)
	}
	return reply, err
}

// kept reports whether the call was carried out before.
func (p *modelPart) kept(edge dianemo.Edge, call dianemo.Call) bool {
	answer, _ := p.recall(string(edge), call)
	return answer != nil
}

func (p *modelPart) requeue(call dianemo.Call, ids []string, heed bool) (dianemo.WishReply, error) {
	news := p.news()
	slots := map[string]string{} // taken by this call
	var done []*modelJob
	reply, err := p.wish(dianemo.EdgeRequeue, call, ids, func(j *modelJob, one *dianemo.Wished) {
		switch {
		case j.flow():
			one.Err = &dianemo.FieldError{Field: "id", Value: j.id, Allowed: "that of a job; ResumeWorkflow runs a workflow again"}
			return
		case !j.state.Finished():
			one.Err = &dianemo.StateError{ID: j.id, State: j.state, Edge: dianemo.EdgeRequeue}
			return
		}
		if j.unique != nil {
			key := j.unique.slot[strings.Index(j.unique.slot, ":")+1:]
			if by := slots[j.unique.slot]; by != "" {
				one.Err = &dianemo.ExistsError{ID: by, State: dianemo.Scheduled, Key: key}
				return
			}
			if holder, _ := p.holder(j.unique.slot); holder != nil {
				one.Err = &dianemo.ExistsError{ID: holder.id, State: holder.state, Key: key}
				return
			}
			slots[j.unique.slot] = j.id
			p.take(j)
		}
		if j.state == dianemo.Succeeded {
			p.ran(j, j.ended, dianemo.Succeed, "", "")
		}
		j.fails, j.reruns, j.result = 0, 0, ""
		j.wait(p.ms(), "requeue")
		if heed {
			j.state, j.due = dianemo.Blocked, 0
			p.shut(j.id)
		} else {
			news.add(j)
		}
		done = append(done, j)
	})
	if err == nil && !p.kept(dianemo.EdgeRequeue, call) {
		reply.News = news.list()
		for _, j := range done {
			p.counts(j)
		}
		p.bequeath(done...)
		p.keep("requeue", call, reply)
	}
	return reply, err
}

func (p *modelPart) reschedule(call dianemo.Call, ids []string, change dianemo.Change) (dianemo.WishReply, error) {
	news := p.news()
	reply, err := p.wish(dianemo.EdgeReschedule, call, ids, func(j *modelJob, one *dianemo.Wished) {
		if j.state != dianemo.Scheduled {
			one.Err = &dianemo.StateError{ID: j.id, State: j.state, Edge: dianemo.EdgeReschedule}
			return
		}
		j.bare = false
		switch {
		case !change.RunAt.IsZero():
			j.due = change.RunAt.UnixMilli()
		case change.Delay > 0:
			j.due = p.ms() + upMillis(change.Delay)
		}
		if change.Priority != 0 {
			j.lane.Priority = change.Priority
		}
		news.add(j)
	})
	if err == nil && !p.kept(dianemo.EdgeReschedule, call) {
		reply.News = news.list()
		p.keep("reschedule", call, reply)
	}
	return reply, err
}

func (p *modelPart) pause(kind string, on bool) {
	p.paused = slices.DeleteFunc(p.paused, func(k string) bool { return k == kind })
	if on {
		p.paused = append(p.paused, kind)
	}
}

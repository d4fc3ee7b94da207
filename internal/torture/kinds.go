//go:build linux

package main

import (
	"cmp"
	"time"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/history"
)

// args of all kinds.
type args struct {
	Mark string
	Work time.Duration
	// Stubborn handlers do all their work, whatever becomes of their context.
	Stubborn bool `json:",omitempty"`
	Fails    int  `json:",omitempty"` // how many attempts fail, from the first on
	Poison   bool `json:",omitempty"` // its process is killed
	Quiet    bool `json:",omitempty"` // it leaves no result
}

// result is what each handler leaves.
type result struct {
	Peer  string
	Epoch int64
}

// A sort of jobs: a kind, and what the checker is to expect of it.
type sort struct {
	kind   dianemo.Kind[args]
	policy dianemo.Policy
}

func kindOf(name string, policy dianemo.Policy) sort {
	if policy.Keep == nil {
		// Everything is there to be looked at in the end.
		all := dianemo.Retention{For: dianemo.Unlimited, Jobs: dianemo.Unlimited}
		policy.Keep = dianemo.Keep{dianemo.Succeeded: all, dianemo.Failed: all, dianemo.Missed: all,
			dianemo.Unreachable: all, dianemo.Cancelled: all, dianemo.Skipped: all}
	}
	return sort{dianemo.NewKind[args](name, policy), policy}
}

const (
	retryAfter = 300 * time.Millisecond
	shortGrace = 400 * time.Millisecond
)

// Every reruns as long as the default has it, but for those that say otherwise.
var (
	plain  = kindOf("plain", dianemo.Policy{Retries: dianemo.None, Grace: dianemo.Unlimited})
	once   = kindOf("once", dianemo.Policy{Priority: 1})
	heavy  = kindOf("heavy", dianemo.Policy{Weight: 3, Retries: dianemo.None, Grace: dianemo.Unlimited})
	flaky  = kindOf("flaky", dianemo.Policy{Retries: 2, RetryIn: dianemo.Every(retryAfter), Grace: dianemo.Unlimited})
	brief  = kindOf("brief", dianemo.Policy{Priority: 3, Retries: 1, RetryIn: dianemo.Every(retryAfter), Grace: shortGrace})
	member = kindOf("member", dianemo.Policy{Retries: 1, RetryIn: dianemo.Every(retryAfter), Grace: dianemo.Unlimited})
	sole   = kindOf("sole", dianemo.Policy{Retries: dianemo.None, Grace: dianemo.Unlimited})
	poison = kindOf("poison", dianemo.Policy{Retries: dianemo.None, Reruns: 2, Grace: dianemo.Unlimited})
	tick   = kindOf("tick", dianemo.Policy{Retries: dianemo.None, Reruns: 9, Grace: dianemo.Unlimited})
	// Of what succeeded nothing is kept, so that only the cursor keeps an instant from coming again.
	tock = kindOf("tock", dianemo.Policy{Retries: dianemo.None, Reruns: dianemo.None, Grace: dianemo.Unlimited,
		Keep: dianemo.Keep{dianemo.Succeeded: {Jobs: dianemo.None}}})
	probe = kindOf("probe", dianemo.Policy{Priority: 1})

	sorts = []sort{plain, once, heavy, flaky, brief, member, sole, poison, tick, tock, probe}
)

// wish is what the checker is told of a job of this sort.
func (s sort) wish(a args, o dianemo.Options) history.Wish {
	w := history.Wish{Retries: s.policy.Retries, Reruns: s.policy.Reruns, Grace: s.policy.Grace,
		Delay: o.Delay, Unique: o.Unique.Key, Fails: a.Fails, Poison: a.Poison, Quiet: a.Quiet}
	urgent := cmp.Or(o.Priority, s.policy.Priority) == 1
	if w.Retries == 0 && urgent || w.Retries == dianemo.None {
		w.Retries = 0
	}
	switch {
	case w.Reruns == dianemo.None || w.Reruns == 0 && urgent:
		w.Reruns = 0
	case w.Reruns == 0:
		w.Reruns = 3
	}
	switch {
	case w.Grace == dianemo.Unlimited:
		w.Grace = 0
	case w.Grace == 0: // of priority 1
		w.Grace = time.Minute
	}
	if w.Retries > 0 {
		w.RetryAfter = retryAfter
	}
	return w
}

// priority of its jobs.
func (s sort) priority() int {
	if s.policy.Priority == 0 {
		return 2
	}
	return s.policy.Priority
}

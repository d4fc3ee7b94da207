//go:build linux

package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/dianemo/dianemo/internal/history"
	"github.com/dianemo/dianemo/internal/redistest"
)

// A fault is something that goes wrong.
type fault struct {
	name string
	// strike does it for that long, undoes it, and returns. It may find nobody to befall.
	strike func(n *nemesis, span time.Duration, dice *rand.Rand) error
	// exclusive faults are not mixed with each other: both are about the server as a whole.
	exclusive bool
}

// The faults, by the names that -faults takes.
var faults = []fault{
	{name: "kill-peer", strike: func(n *nemesis, span time.Duration, dice *rand.Rand) error {
		return n.volley(span, 700*time.Millisecond, func() error { return n.kill(n.anyone(dice), "kill-peer") })
	}},
	{name: "kill-leader", strike: func(n *nemesis, span time.Duration, dice *rand.Rand) error {
		return n.volley(span, 2*lease, func() error { return n.kill(n.leader(), "kill-leader") })
	}},
	{name: "pause-peer", strike: func(n *nemesis, span time.Duration, dice *rand.Rand) error {
		return n.pause(n.anyone(dice), "pause-peer", silentAfter*3/2+time.Duration(dice.Int64N(int64(span))))
	}},
	{name: "pause-leader", strike: func(n *nemesis, span time.Duration, dice *rand.Rand) error {
		return n.pause(n.leader(), "pause-leader", 2*lease+time.Duration(dice.Int64N(int64(span))))
	}},
	{name: "terminate", strike: func(n *nemesis, span time.Duration, dice *rand.Rand) error {
		return n.volley(span, time.Second, func() error {
			if p := n.anyone(dice); p != nil {
				n.say("terminate", p.id, true)
				p.signal(syscall.SIGTERM)
			}
			return nil
		})
	}},
	{name: "drop-replies", strike: func(n *nemesis, span time.Duration, dice *rand.Rand) error {
		return n.onPaths("drop-replies", span, n.paths(), func(p *redistest.Proxy, on bool) {
			every := 0
			if on {
				every = 15
			}
			p.DropEvery(every)
		})
	}},
	dropping("drop-claims", "}:call:claim:"),
	dropping("drop-settles", "}:call:settle:"),
	dropping("drop-enqueues", "}:call:enqueue:"),
	dropping("drop-fires", "}:call:fire:"),
	{name: "cut-connections", strike: func(n *nemesis, span time.Duration, dice *rand.Rand) error {
		return n.volley(span, 300*time.Millisecond, func() error {
			for _, p := range n.paths() {
				n.cut.Add(int64(p.Cut()))
			}
			n.say("cut-connections", "", true)
			return nil
		})
	}},
	{name: "cut-one", strike: func(n *nemesis, span time.Duration, dice *rand.Rand) error {
		victim := n.anyone(dice)
		if victim == nil {
			return nil
		}
		cut := (*redistest.Proxy).Refuse
		if dice.IntN(2) == 0 {
			cut = (*redistest.Proxy).Blackhole
		}
		n.say("cut-one", victim.id, true)
		defer n.say("cut-one", victim.id, false)
		cut(victim.path, true)
		defer cut(victim.path, false)
		return n.wait(silentAfter + span)
	}},
	{name: "cut-all", strike: func(n *nemesis, span time.Duration, dice *rand.Rand) error {
		cut := (*redistest.Proxy).Refuse
		if dice.IntN(2) == 0 {
			cut = (*redistest.Proxy).Blackhole
		}
		n.say("cut-all", "", true)
		defer n.say("cut-all", "", false)
		if dice.IntN(2) == 0 { // else what clients enqueue meanwhile waits, and some of it too long
			cut(n.own, true)
			defer cut(n.own, false)
		}
		n.fleet.isolate(cut)
		defer n.fleet.isolate(nil)
		n.say(history.Away, "", true)
		defer n.say(history.Away, "", false)
		return n.wait(silentAfter/2 + span)
	}},
	{name: "delay", strike: func(n *nemesis, span time.Duration, dice *rand.Rand) error {
		return n.onPaths("delay", span, n.paths(), func(p *redistest.Proxy, on bool) {
			if on {
				p.Delay(200 * time.Millisecond)
			} else {
				p.Delay(0)
			}
		})
	}},
	{name: "redis-restart", exclusive: true, strike: func(n *nemesis, span time.Duration, dice *rand.Rand) error {
		return n.outage("redis-restart", span, func(ctx context.Context) error {
			// It never answers: it ends.
			_ = n.admin.ShutdownSave(ctx).Err()
			return n.redis.Kill() // which waits for its end
		})
	}},
	{name: "redis-kill", exclusive: true, strike: func(n *nemesis, span time.Duration, dice *rand.Rand) error {
		return n.outage("redis-kill", span, func(context.Context) error { return n.redis.Kill() })
	}},
	{name: "script-flush", strike: func(n *nemesis, span time.Duration, dice *rand.Rand) error {
		n.say("script-flush", "", true)
		defer n.say("script-flush", "", false)
		return n.volley(span, 100*time.Millisecond, func() error {
			return n.tell("script-flush", func(ctx context.Context) error { return n.admin.ScriptFlush(ctx).Err() })
		})
	}},
	{name: "client-kill", strike: func(n *nemesis, span time.Duration, dice *rand.Rand) error {
		return n.volley(span, 500*time.Millisecond, func() error {
			n.say("client-kill", "", true)
			return n.tell("client-kill", func(ctx context.Context) error {
				killed, err := n.admin.ClientKillByFilter(ctx, "TYPE", "normal").Result()
				n.killedClients.Add(killed)
				if err == nil {
					_, err = n.admin.ClientKillByFilter(ctx, "TYPE", "pubsub").Result()
				}
				return err
			})
		})
	}},
	{name: "debug-sleep", exclusive: true, strike: func(n *nemesis, span time.Duration, dice *rand.Rand) error {
		n.say("debug-sleep", "", true)
		defer n.say("debug-sleep", "", false)
		return n.tell("debug-sleep", func(ctx context.Context) error {
			seconds := (span/2 + time.Duration(dice.Int64N(int64(span)))).Seconds()
			return n.admin.Do(ctx, "DEBUG", "SLEEP", fmt.Sprintf("%.1f", seconds)).Err()
		})
	}},
	{name: "maxmemory", exclusive: true, strike: func(n *nemesis, span time.Duration, dice *rand.Rand) error {
		if err := n.tell("maxmemory", func(ctx context.Context) error { return n.admin.ConfigSet(ctx, "maxmemory", "1").Err() }); err != nil {
			return err
		}
		n.say("maxmemory", "", true)
		err := n.wait(span)
		n.say("maxmemory", "", false)
		if lifted := n.liftMaxmemory(); lifted != nil {
			return lifted
		}
		return err
	}},
	{name: "poison", strike: func(n *nemesis, span time.Duration, dice *rand.Rand) error {
		n.say("poison", "", true)
		n.poisoner.poisonJob()
		return n.wait(span)
	}},
}

// dropping loses two of three replies to calls of one edge.
func dropping(name, key string) fault {
	return fault{name: name, strike: func(n *nemesis, span time.Duration, dice *rand.Rand) error {
		var calls atomic.Int64
		lost := n.lost[name]
		return n.onPaths(name, span, n.paths(), func(p *redistest.Proxy, on bool) {
			if !on {
				p.DropMatching(nil)
				return
			}
			p.DropMatching(func(request []byte) bool {
				if !bytes.Contains(request, []byte(key)) || calls.Add(1)%3 == 0 {
					return false
				}
				lost.Add(1)
				return true
			})
		})
	}}
}

// volley does it again and again for that long.
func (n *nemesis) volley(span, every time.Duration, shoot func() error) error {
	end := time.After(span)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := shoot(); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-end:
			return nil
		case <-n.ctx.Done():
			return nil
		}
	}
}

// wait is how long a fault lasts.
func (n *nemesis) wait(span time.Duration) error {
	select {
	case <-time.After(span):
	case <-n.ctx.Done():
	}
	return nil
}

func (n *nemesis) say(fault, victim string, on bool) {
	n.journal.Say(history.Event{What: history.Fault, Fault: fault, Victim: victim, On: on})
}

func (n *nemesis) kill(p *peer, name string) error {
	if p == nil {
		return nil
	}
	n.say(name, p.id, true)
	p.signal(syscall.SIGKILL)
	select {
	case <-p.over:
	case <-n.ctx.Done():
	}
	return nil
}

func (n *nemesis) pause(p *peer, name string, span time.Duration) error {
	if p == nil || !p.pause() {
		return nil
	}
	n.say(name, p.id, true)
	defer n.say(name, p.id, false)
	defer p.resume()
	return n.wait(span)
}

// onPaths does something to ways to Redis, and undoes it.
func (n *nemesis) onPaths(name string, span time.Duration, paths []*redistest.Proxy, do func(p *redistest.Proxy, on bool)) error {
	n.say(name, "", true)
	defer n.say(name, "", false)
	for _, p := range paths {
		do(p, true)
		defer do(p, false)
	}
	return n.wait(span)
}

// outage takes Redis away and brings it back, with all that it had.
func (n *nemesis) outage(name string, span time.Duration, end func(ctx context.Context) error) error {
	n.server.Lock()
	defer n.server.Unlock()
	n.say(name, "", true)
	defer n.say(name, "", false)
	n.sample()
	if err := end(n.ctx); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	n.say(history.Away, "", true)
	err := n.wait(span / 2)
	n.say(history.Away, "", false)
	if back := n.redis.Restart(); back != nil {
		return fmt.Errorf("%s: %w", name, back)
	}
	return err
}

// tell has Redis do something, unless it is away.
func (n *nemesis) tell(name string, do func(ctx context.Context) error) error {
	n.server.RLock()
	defer n.server.RUnlock()
	if n.ctx.Err() != nil {
		return nil
	}
	if err := do(n.ctx); err != nil && n.ctx.Err() == nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

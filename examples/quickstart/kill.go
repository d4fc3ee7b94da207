package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/dianemo/dianemo"
)

// A kill is what -kill does: it cuts one peer off from Redis, as if its process
// had died with jobs in hand.
type kill struct {
	at int // the number of the claim at which it happens; 0: never

	mu     sync.Mutex
	claims int
	victim *member
	when   time.Time
	taken  []dianemo.ReapInfo
	after  time.Duration // from the cut until the last of them was taken
	by     *member       // who took them
}

func newKill(wanted bool, files int) *kill {
	k := &kill{}
	if wanted {
		k.at = (files + 1) / 2
	}
	return k
}

// hasten makes the fleet notice within two seconds, where it would take twenty.
// So close a limit is for demonstrations: a busy host can delay beats by as much.
func (k *kill) hasten(config *dianemo.Config) {
	config.BeatEvery = 250 * time.Millisecond
	config.SilentAfter = 1500 * time.Millisecond
	config.Lease = 750 * time.Millisecond
	// The dead finish nothing; and there is nothing to wait for when their Run
	// finds that it can't settle.
	config.Finish = dianemo.None
	config.StuckAfter = 500 * time.Millisecond
}

// claimed is called for each job that a member has claimed, before the job
// begins. So a peer that is cut here dies with at least this one in hand.
func (k *kill) claimed(m *member) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.claims++; k.claims != k.at {
		return
	}
	k.victim, k.when = m, time.Now()
	m.dead.Store(true)
	m.redis.Close() // it can tell nobody anything any more, not even that it goes
	m.stop()        // and its handlers end where they are
}

// reaped is called on the leader for each job that it took from a silent peer.
func (k *kill) reaped(leader *member, job dianemo.ReapInfo) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.victim == nil || job.Peer != k.victim.peer.ID() {
		return
	}
	k.taken, k.after, k.by = append(k.taken, job), time.Since(k.when), leader
}

// print tells what became of the jobs that the dead peer held.
func (k *kill) print(fleet *fleet, screen *screen) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.victim == nil {
		return
	}
	screen.print("\nPeer %d was cut off from the store when half of the jobs had been claimed.", k.victim.number)
	if k.by == nil {
		screen.print("Nothing was taken from it yet.") // Ctrl-C came first
		return
	}
	screen.print("Jobs that it held: %d. After %.1f s peer %d, the leader, took them from it, to be run again:",
		len(k.taken), k.after.Seconds(), k.by.number)
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	for _, taken := range k.taken {
		job, err := fleet.client.Get(ctx, taken.ID)
		var args File
		if err == nil {
			err = job.DecodeArgs(&args)
		}
		if err != nil {
			screen.print("  %v", err)
			continue
		}
		by := ""
		if m := fleet.byID(job.Peer); m != nil && m != k.victim {
			by = fmt.Sprintf("on peer %d", m.number)
		}
		screen.print("  %-12s %-10s %s", job.State, by, printable(string(args.Path)))
	}
	screen.print("(Hashing twice does no harm, so the kind says Reruns: 3. By default a job of priority 1\n" +
		"that is lost with its peer ends unreachable, because it is never started twice.)")
}

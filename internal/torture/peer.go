//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/history"
	"github.com/dianemo/dianemo/redisstore"
)

// peerVariable makes this program a peer.
const peerVariable = "DIANEMO_TORTURE_PEER"

// A worker is what runs in a peer process.
type worker struct {
	id      string
	journal *history.Journal
}

func connect(addr string) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: addr, DisableIdentity: true,
		DialTimeout: redisTimeout, ReadTimeout: redisTimeout, WriteTimeout: redisTimeout})
}

// peerMain runs a peer until it is terminated.
func peerMain(encoded string) int {
	if err := runPeer(encoded); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func runPeer(encoded string) error {
	var s settings
	if err := json.Unmarshal([]byte(encoded), &s); err != nil {
		return err
	}
	rdb := connect(s.Redis)
	defer rdb.Close()
	w := &worker{}
	peer, err := dianemo.NewPeer(redisstore.New(rdb, redisstore.Options{Namespace: namespace, Partitions: s.Partitions}),
		dianemo.Config{Tokens: tokens, Reserve: reserve, BeatEvery: beatEvery, SilentAfter: silentAfter, Lease: lease,
			Finish: finish, StuckAfter: stuckAfter, Load: dianemo.LoadConfig{Off: true}, Hooks: w.hooks(),
			Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))})
	if err != nil {
		return err
	}
	w.id = peer.ID()
	if w.journal, err = history.Open(filepath.Join(s.Dir, w.id+".jsonl"), w.id); err != nil {
		return err
	}
	for _, s := range sorts {
		if err := s.kind.Handle(peer, w.handle); err != nil {
			return err
		}
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	w.journal.Say(history.Event{What: history.Begin, Hello: &history.Hello{PID: os.Getpid(), Partitions: s.Partitions, Tokens: tokens, Reserve: reserve,
		BeatEvery: beatEvery, SilentAfter: silentAfter, Lease: lease}})
	// Who started this process learns its id, and that it may be terminated from now on.
	fmt.Println(w.id)
	said := history.Event{What: history.Leave}
	if err := peer.Run(ctx); err != nil {
		said.Err = err.Error()
	}
	w.journal.Say(said)
	return nil
}

func (w *worker) handle(ctx context.Context, job *dianemo.Job[args]) error {
	said := history.Event{What: history.Start, Job: job.ID, Mark: job.Args.Mark, Kind: job.Kind, Priority: job.Priority,
		Weight: job.Weight, Attempt: job.Attempt, Epoch: job.Epoch, Schedule: job.Schedule}
	if job.Schedule != "" {
		said.Instant = job.ScheduledFor.UnixMilli()
	}
	w.journal.Say(said)
	err := w.work(ctx, job)
	said.What = history.End
	w.journal.Say(said)
	return err
}

func (w *worker) work(ctx context.Context, job *dianemo.Job[args]) error {
	if job.Args.Poison {
		return syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	if !job.Args.Quiet { // most jobs of most programs leave none, and are settled together
		if err := job.SetResult(result{w.id, job.Epoch}); err != nil {
			return err
		}
	}
	over := ctx.Done()
	if job.Args.Stubborn {
		over = nil
	}
	timer := time.NewTimer(job.Args.Work)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-over:
		return context.Cause(ctx)
	}
	if job.Attempt <= job.Args.Fails {
		return errors.New("as told")
	}
	return nil
}

func (w *worker) hooks() *dianemo.Hooks {
	say := func(e history.Event) { w.journal.Say(e) }
	return &dianemo.Hooks{
		Claim: func(i dianemo.ClaimInfo) {
			say(history.Event{What: history.Claim, Job: i.ID, Kind: i.Kind, Priority: i.Priority, Weight: i.Weight, Attempt: i.Attempt, Epoch: i.Epoch})
		},
		Settle: func(i dianemo.SettleInfo) {
			say(history.Event{What: history.Settle, Job: i.ID, Kind: i.Kind, Priority: i.Priority, Weight: i.Weight, Epoch: i.Epoch,
				Outcome: i.Outcome, State: i.State, Reason: i.Reason, Stale: i.Stale})
		},
		Beat: func(i dianemo.BeatInfo) {
			if i.Err == nil {
				say(history.Event{What: history.Beat, Partition: i.Partition, Began: history.Now().Add(-i.Took)})
			}
		},
		Reap: func(i dianemo.ReapInfo) {
			say(history.Event{What: history.Reap, Job: i.ID, Kind: i.Kind, Priority: i.Priority, Silent: i.Peer, State: i.State})
		},
		Miss: func(i dianemo.MissInfo) {
			say(history.Event{What: history.Miss, Job: i.ID, Kind: i.Kind, Priority: i.Priority, State: i.State})
		},
		Release: func(i dianemo.ReleaseInfo) {
			say(history.Event{What: history.Release, Job: i.ID, Kind: i.Kind, Priority: i.Priority, State: i.State, Parent: i.Parent})
		},
		Fire: func(i dianemo.FireInfo) {
			say(history.Event{What: history.Fire, Job: i.ID, Kind: i.Kind, Priority: i.Priority, State: i.State, Schedule: i.Schedule, Instant: i.At.UnixMilli()})
		},
		Lead: func(i dianemo.LeadInfo) {
			say(history.Event{What: history.Lead, Term: i.Term, Leading: i.Leading})
		},
		Repair: func(i dianemo.RepairInfo) {
			say(history.Event{What: history.Repair, Job: i.ID, Partition: i.Partition, Reason: fmt.Sprintf("%+v", i.Repaired)})
		},
	}
}

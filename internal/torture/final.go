//go:build linux

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/audit"
	"github.com/dianemo/dianemo/internal/history"
)

// settle sees the fleet come to rest: it is led, what waits is run, what comes is run at once, and all
// tokens come back.
func (n *nemesis) settle(ctx context.Context, client *dianemo.Client, last *producer, final *history.Final, say func(format string, args ...any)) error {
	bidding, over := context.WithTimeout(ctx, leading)
	final.Led = n.led(bidding)
	over()
	if err := last.pauseSchedules(ctx); err != nil {
		return err
	}
	final.Drained = drain(ctx, client)
	if final.Drained == 0 {
		say("not drained")
		return nil
	}
	say("drained: %v", final.Drained.Sub(final.Calm).Round(10*time.Millisecond))
	final.Probes = last.probes(ctx, probing)
	var err error
	final.Charged, err = charged(ctx, client)
	return err
}

// inventory is of all that is there when the peers have gone.
func (n *nemesis) inventory(client *dianemo.Client, partitions int, foreign map[string]string, final *history.Final) error {
	bad, err := n.fleet.complaints()
	if err != nil {
		return err
	}
	if len(bad) > 0 {
		return fmt.Errorf("peers broke down: %q", bad)
	}
	ctx := context.Background()
	if final.Jobs, err = jobs(ctx, client); err != nil {
		return err
	}
	if final.Audit, err = audit.Keys(ctx, n.admin, namespace, partitions); err != nil {
		return err
	}
	now, err := audit.Snapshot(ctx, n.admin, namespace)
	final.Foreign = audit.Foreign(foreign, now)
	return err
}

// drain waits until no job is left that has not ended, and says when that was; 0 if it never was.
func drain(ctx context.Context, client *dianemo.Client) history.Moment {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		counts, err := client.Counts(ctx)
		if err == nil {
			left := int64(0)
			for _, c := range counts {
				if !c.State.Finished() {
					left += c.Jobs
				}
			}
			if left == 0 {
				return history.Now()
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0
		}
	}
}

// led waits until a living peer holds the lease, and says when that was; 0 if it never was.
func (n *nemesis) led(ctx context.Context) history.Moment {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if n.leaderIn(ctx) != nil {
			return history.Now()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return 0
		}
	}
}

// charged are the tokens that peers show as in use.
func charged(ctx context.Context, client *dianemo.Client) (map[string]int, error) {
	// They show themselves once a beat: what was true at the drain is seen after that.
	until := time.Now().Add(3 * beatEvery)
	for {
		peers, err := client.Peers(ctx)
		if err != nil {
			return nil, err
		}
		all := map[string]int{}
		for _, p := range peers {
			for _, tokens := range p.Running {
				all[p.ID] += tokens
			}
			if all[p.ID] == 0 {
				delete(all, p.ID)
			}
		}
		if len(all) == 0 || time.Now().After(until) {
			return all, nil
		}
		time.Sleep(beatEvery / 4) // there is no word of it
	}
}

// jobs reads all jobs there are.
func jobs(ctx context.Context, client *dianemo.Client) ([]history.Job, error) {
	var all []history.Job
	for filter := (dianemo.Filter{Limit: dianemo.MaxList}); ; {
		page, err := client.List(ctx, filter)
		if err != nil {
			return nil, err
		}
		for _, listed := range page.Jobs {
			info, err := client.Get(ctx, listed.ID)
			if err != nil {
				return nil, fmt.Errorf("job %s is listed: %w", listed.ID, err)
			}
			job, err := finalJob(info)
			if err != nil {
				return nil, err
			}
			all = append(all, job)
		}
		if filter.After = page.Next; page.Next == "" {
			return all, nil
		}
	}
}

func finalJob(info *dianemo.JobInfo) (history.Job, error) {
	mark, err := markOf(info)
	if err != nil {
		return history.Job{}, err
	}
	job := history.Job{ID: info.ID, Mark: mark, Kind: info.Kind, State: info.State, Reason: info.Reason, Attempt: info.Attempt,
		Runs: info.Runs, Epoch: info.Epoch, Peer: info.Peer, Schedule: info.Schedule, Workflow: dianemo.IsWorkflow(info.Kind)}
	if info.Schedule != "" {
		job.Instant = info.ScheduledFor.UnixMilli()
	}
	for _, r := range info.History {
		job.History = append(job.History, history.Run{Epoch: r.Epoch, Peer: r.Peer, Outcome: r.Outcome})
	}
	if info.Result != nil && !job.Workflow {
		var r result
		if err := info.DecodeResult(&r); err != nil {
			return job, err
		}
		job.ResultEpoch, job.ResultPeer = r.Epoch, r.Peer
	}
	return job, nil
}

// canaries are keys of others, with names as near to the namespace's as can be.
func canaries(ctx context.Context, rdb *redis.Client) error {
	for _, name := range []string{namespace, namespace + ":0:spec", "{" + namespace + "2}:peers", "{" + namespace + "-x:0}:spec",
		"{x" + namespace + ":0}:meta", "{" + strings.ToUpper(namespace) + ":0}:lanes", "spec", "session:1"} {
		if err := rdb.HSet(ctx, name, "not", "ours").Err(); err != nil {
			return err
		}
	}
	return nil
}

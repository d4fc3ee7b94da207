package main

import (
	"flag"
	"fmt"
	"time"
)

// Settings say what is simulated.
type Settings struct {
	Peers, Tokens     int
	Partitions, Nodes int
	Cluster           bool          // a survey asks each partition by itself; implied by more nodes than one
	Apart             bool          // the keys of the namespace have a node of their own
	Rate              float64       // jobs that come each second
	Steady            bool          // they come evenly spaced, as those of the benchmark; else at random
	Batch             int           // jobs of one EnqueueMany
	Producers         int           // clients
	Takes             time.Duration // mean of a job; the times are exponential
	Backlog           int           // jobs that wait at the beginning
	Beat, Lease       time.Duration
	Lag               time.Duration // from a process to a node
	Together          bool          // all peers start at once, at the beginning of what is counted
	Spread            time.Duration // else they start one after the other in this time, at the beginning of the world
	OutageAt, Outage  time.Duration // the nodes can't be reached
	KillAt            time.Duration // the leader dies then, and the share Kill of the peers
	Kill              float64
	Warm, For         time.Duration // what is counted begins after Warm, and lasts for For
	Seed              uint64
	Costs             Costs
}

// Default are the settings of flags that are not given.
func Default() Settings {
	return Settings{Peers: 1000, Tokens: 64, Partitions: 64, Nodes: 1, Rate: 1000, Batch: 1, Producers: 100, Takes: 20 * time.Millisecond,
		Beat: 5 * time.Second, Lease: 15 * time.Second, Lag: 100 * micro, Spread: 20 * time.Second, Warm: 30 * time.Second, For: 10 * time.Second, Seed: 1, Costs: DefaultCosts}
}

func (s *Settings) flags(f *flag.FlagSet) {
	f.IntVar(&s.Peers, "peers", s.Peers, "peers")
	f.IntVar(&s.Tokens, "tokens", s.Tokens, "jobs that a peer runs at a time")
	f.IntVar(&s.Partitions, "partitions", s.Partitions, "partitions of the namespace")
	f.IntVar(&s.Nodes, "nodes", s.Nodes, "redis-servers that hold partitions; more than 1: a cluster")
	f.BoolVar(&s.Cluster, "cluster", s.Cluster, "a cluster even if it is one node")
	f.BoolVar(&s.Apart, "apart", s.Apart, "one more node that holds no partition, but the keys of the namespace")
	f.Float64Var(&s.Rate, "rate", s.Rate, "jobs that are enqueued each second")
	f.BoolVar(&s.Steady, "steady", s.Steady, "they come evenly spaced, as those of dianemo bench; else at random")
	f.IntVar(&s.Batch, "batch", s.Batch, "jobs of one call of EnqueueMany")
	f.IntVar(&s.Producers, "producers", s.Producers, "clients that enqueue")
	f.DurationVar(&s.Takes, "takes", s.Takes, "how long a job takes, on average")
	f.IntVar(&s.Backlog, "backlog", s.Backlog, "jobs that wait at the beginning")
	f.DurationVar(&s.Beat, "beat", s.Beat, "Config.BeatEvery")
	f.DurationVar(&s.Lease, "lease", s.Lease, "Config.Lease")
	f.DurationVar(&s.Lag, "lag", s.Lag, "from a process to a node, one way")
	f.BoolVar(&s.Together, "together", s.Together, "all peers start at once, and that is counted too")
	f.DurationVar(&s.Spread, "spread", s.Spread, "in which time they start otherwise")
	f.DurationVar(&s.OutageAt, "outage-at", s.OutageAt, "when an outage of all nodes begins")
	f.DurationVar(&s.Outage, "outage", s.Outage, "how long it lasts")
	f.DurationVar(&s.KillAt, "kill-at", s.KillAt, "when the leader dies; 0: it does not")
	f.Float64Var(&s.Kill, "kill", s.Kill, "share of the peers that die with it")
	f.DurationVar(&s.Warm, "warm", s.Warm, "what is not counted, at the beginning")
	f.DurationVar(&s.For, "for", s.For, "how long is counted")
	f.Uint64Var(&s.Seed, "seed", s.Seed, "of all that is random")
	f.Var(&s.Costs, "cost", "what calls cost a node, in µs: `name=fixed+each,...`")
}

func (s *Settings) check() error {
	for _, f := range []struct {
		flag        string
		value, most int
	}{
		{"peers", s.Peers, 100_000}, {"tokens", s.Tokens, 1 << 20}, {"partitions", s.Partitions, 4096}, {"nodes", s.Nodes, 4096},
		{"batch", s.Batch, 100_000}, {"producers", s.Producers, 100_000},
	} {
		if f.value < 1 || f.value > f.most {
			return fmt.Errorf("-%s=%d: 1 to %d are allowed", f.flag, f.value, f.most)
		}
	}
	if s.Rate < 0 || s.Backlog < 0 || s.Lag < 0 || s.Spread <= 0 || s.Beat <= 0 || s.Lease <= 0 || s.For <= 0 || s.Kill < 0 || s.Kill > 1 {
		return fmt.Errorf("rates, numbers and times can't be negative, nor -spread, -beat, -lease or -for 0, nor -kill above 1")
	}
	s.Cluster = s.Cluster || s.Nodes > 1 || s.Apart
	return nil
}

//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/audit"
	"github.com/dianemo/dianemo/internal/history"
	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/redisstore"
)

func main() {
	if s := os.Getenv(peerVariable); s != "" {
		os.Exit(peerMain(s))
	}
	var o options
	var chosen string
	var runs int
	flag.Uint64Var(&o.seed, "seed", 1, "of all choices")
	flag.Float64Var(&o.minutes, "minutes", 2, "for how long things go wrong")
	flag.StringVar(&chosen, "faults", "", "which, by name, with commas between; default all")
	flag.IntVar(&runs, "runs", 1, "how many, each with the next seed")
	flag.BoolVar(&o.keep, "keep", false, "keep the history of a run that was green")
	check := flag.String("check", "", "only check the history that is kept there")
	flag.Parse()
	if *check != "" {
		os.Exit(again(*check))
	}
	if chosen != "" {
		o.faults = strings.Split(chosen, ",")
	}
	os.Exit(several(o, runs))
}

// again checks a history that was kept, and returns the exit status.
func again(dir string) int {
	var final history.Final
	b, err := os.ReadFile(filepath.Join(dir, "final.json"))
	if err == nil {
		err = json.Unmarshal(b, &final)
	}
	events, unread := history.Read(dir)
	if err = errors.Join(err, unread); err != nil {
		fmt.Fprintln(os.Stderr, "torture:", err)
		return 2
	}
	return judge(events, final)
}

// judge prints what is wrong, and returns the exit status.
func judge(events []history.Event, final history.Final) int {
	violations := history.Check(events, final)
	for _, v := range violations {
		fmt.Println("VIOLATION", v)
	}
	if len(violations) > 0 {
		return 1
	}
	return 0
}

// several makes runs until one is not green, and returns the exit status.
func several(o options, runs int) int {
	var sum outcome
	for i := range runs {
		out, code, err := torture(o)
		if err != nil {
			fmt.Fprintln(os.Stderr, "torture:", err)
			return 2
		}
		if code != 0 {
			return code
		}
		sum.add(out)
		if o.seed++; i > 0 {
			fmt.Printf("\n%d runs:\n", i+1)
			if _, err := sum.print(os.Stdout); err != nil {
				fmt.Fprintln(os.Stderr, "torture:", err)
				return 2
			}
		}
	}
	return 0
}

type options struct {
	seed    uint64
	minutes float64
	faults  []string
	keep    bool
}

// How long the fleet may take to come to rest when nothing goes wrong any more.
const (
	patience = 130 * time.Second
	leading  = 15 * lease // for a leader to be there, which is to take two
	probing  = 20         // jobs
)

// torture makes one run and returns its exit status.
func torture(o options) (out outcome, code int, err error) {
	chosen, err := choose(o.faults)
	if err != nil {
		return out, 0, err
	}
	dir, err := os.MkdirTemp("", "torture-")
	if err != nil {
		return out, 0, err
	}
	defer func() {
		if code == 0 && err == nil && !o.keep {
			err = os.RemoveAll(dir)
			return
		}
		fmt.Printf("the history is in %s\n", dir)
	}()
	dice := rand.New(rand.NewPCG(o.seed, 0))
	partitions := []int{1, 4}[dice.IntN(2)]
	fmt.Printf("torture: seed %d, %v minutes, %d partitions, %d processors\n", o.seed, o.minutes, partitions, runtime.NumCPU())
	begin := time.Now()
	epoch := history.Now() - history.Moment(begin.UnixNano())
	n, final, err := live(o, dir, dice, chosen, partitions, epoch, func(format string, args ...any) {
		fmt.Printf("%7s  %s\n", time.Since(begin).Round(100*time.Millisecond), fmt.Sprintf(format, args...))
	})
	if err != nil {
		return out, 0, err
	}
	events, err := history.Read(dir)
	if err != nil {
		return out, 0, err
	}
	b, err := json.MarshalIndent(final, "", "\t")
	if err != nil {
		return out, 0, err
	}
	if err := os.WriteFile(filepath.Join(dir, "final.json"), b, 0o644); err != nil {
		return out, 0, err
	}
	out = outcomeOf(events, final, n.reached(chosen, events, epoch))
	missed, err := out.print(os.Stdout)
	if err != nil {
		return out, 0, err
	}
	if code := judge(events, final); code != 0 {
		return out, code, nil
	}
	if len(missed) > 0 {
		fmt.Println("never reached:", strings.Join(missed, ", "))
		return out, 3, nil
	}
	fmt.Println("green")
	return out, 0, nil
}

// live is the test itself: it returns what is there in the end.
func live(o options, dir string, dice *rand.Rand, chosen []fault, partitions int, epoch history.Moment, say func(format string, args ...any)) (n *nemesis, final history.Final, err error) {
	// Whatever was acknowledged is on disk.
	server, err := redistest.Launch("--appendonly", "yes", "--appendfsync", "always", "--enable-debug-command", "local", "--maxmemory-policy", "noeviction")
	if err != nil {
		return nil, final, err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	// By one connection: CLIENT KILL spares that which it comes by.
	admin := redis.NewClient(&redis.Options{Addr: server.Addr(), DisableIdentity: true, MaxRetries: -1, ReadTimeout: 30 * time.Second, PoolSize: 1})
	defer func() { err = errors.Join(err, admin.Close()) }()
	all := context.Background()
	if err := canaries(all, admin); err != nil {
		return nil, final, err
	}
	foreign, err := audit.Snapshot(all, admin, namespace)
	if err != nil {
		return nil, final, err
	}

	own, err := redistest.NewProxy(server.Addr())
	if err != nil {
		return nil, final, err
	}
	defer func() { err = errors.Join(err, own.Close()) }()
	rdb := connect(own.Addr())
	defer func() { err = errors.Join(err, rdb.Close()) }()
	log, err := os.Create(filepath.Join(dir, "client.log"))
	if err != nil {
		return nil, final, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	client, err := dianemo.NewClient(redisstore.New(rdb, redisstore.Options{Namespace: namespace, Partitions: partitions}),
		dianemo.ClientConfig{Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		return nil, final, err
	}
	defer client.Close()

	journal := func(name string) *history.Journal {
		j, opened := history.Open(filepath.Join(dir, name+".jsonl"), name)
		err = errors.Join(err, opened)
		return j
	}
	producerOf := func(name string, seed uint64) *producer {
		return &producer{name: name, client: client, journal: journal(name), dice: rand.New(rand.NewPCG(seed, 0)), every: 42 * time.Millisecond}
	}
	f := &fleet{redis: server, partitions: partitions, dir: dir}
	n = &nemesis{redis: server, admin: admin, fleet: f, own: own, journal: journal("nemesis"), poisoner: producerOf("poisoner", dice.Uint64()), lost: map[string]*atomic.Int64{}}
	for _, f := range faults {
		if strings.HasPrefix(f.name, "drop-") && f.name != "drop-replies" {
			n.lost[f.name] = &atomic.Int64{}
		}
	}
	last := producerOf("last", dice.Uint64())
	producers := []*producer{producerOf("a", dice.Uint64()), producerOf("b", dice.Uint64())}
	if err != nil {
		return nil, final, err
	}
	var launches sync.WaitGroup
	errs := make([]error, peersAtOnce)
	for i := range errs {
		launches.Go(func() { errs[i] = f.launch() })
	}
	launches.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, final, err
	}
	if err := last.schedules(all); err != nil {
		return nil, final, err
	}

	loading, unload := context.WithCancel(all)
	var load sync.WaitGroup
	for _, p := range producers {
		load.Go(func() { p.produce(loading) })
	}
	span := time.Duration(o.minutes * float64(time.Minute))
	raging, calm := context.WithTimeout(all, span)
	n.ctx = raging
	steps := plan(dice, chosen, span)
	wrong := n.rage(steps, say)
	calm()
	if wrong == nil {
		wrong = n.insist(dir, dice, chosen, epoch, say)
	}
	wrong = errors.Join(wrong, n.heal())
	resting, give := context.WithTimeout(all, patience)
	defer give()
	wrong = errors.Join(wrong, f.whole(resting))
	final.Calm = history.Now()
	say("calm")
	unload()
	load.Wait()
	n.poisoner.wg.Wait()
	if wrong != nil {
		return nil, final, errors.Join(wrong, f.terminate())
	}
	err = n.settle(resting, client, last, &final, say)
	if err = errors.Join(err, f.terminate()); err != nil {
		return nil, final, err
	}
	err = n.inventory(client, partitions, foreign, &final)
	return n, final, err
}

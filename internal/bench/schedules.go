package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/measure"
	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/redisstore"
)

// schedules shows what n of them cost a leader while none fires, how late one is,
// and what happens in a second in which all fire.
func schedules(n int) error {
	server, err := redistest.Launch()
	if err != nil {
		return err
	}
	defer server.Close()
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer rdb.Close()
	ctx := context.Background()
	store := redisstore.New(rdb, redisstore.Options{Namespace: "bench"})
	client, err := dianemo.NewClient(store, dianemo.ClientConfig{Logger: quiet})
	if err != nil {
		return err
	}
	defer client.Close()
	fired, late := make(chan dianemo.FireInfo, 2*n), make(chan time.Duration, 2*n)
	begun := atomic.Int64{}
	peer, err := dianemo.NewPeer(store, dianemo.Config{Tokens: 512, Logger: quiet, Load: dianemo.LoadConfig{Off: true},
		Hooks: &dianemo.Hooks{Fire: func(i dianemo.FireInfo) { fired <- i }}})
	if err != nil {
		return err
	}
	err = kind.Handle(peer, func(_ context.Context, job *dianemo.Job[string]) error {
		begun.Add(1)
		late <- time.Since(job.ScheduledFor)
		return nil
	})
	if err != nil {
		return err
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- peer.Run(running) }()

	yearly, err := dianemo.Cron("@yearly", "UTC")
	if err != nil {
		return err
	}
	begin := time.Now()
	put := func(i int, rule dianemo.Rule) error {
		return client.PutSchedule(ctx, dianemo.Schedule{Name: "schedule-" + strconv.Itoa(i), Rule: rule, Job: kind.New(payload)})
	}
	for i := range n {
		if err := put(i, yearly); err != nil {
			return err
		}
	}
	fmt.Printf("%d schedules made, one by one            %8.0f /s\n", n, float64(n)/time.Since(begin).Seconds())
	<-time.After(2 * time.Second) // what they have set off is over

	const quietFor = 30 * time.Second
	commands, cpu, redisCPU, err := usage(rdb)
	if err != nil {
		return err
	}
	<-time.After(quietFor)
	commands2, cpu2, redisCPU2, err := usage(rdb)
	if err != nil {
		return err
	}
	fmt.Printf("a leader while none fires, CPU of one core   %8.2f %%   Redis %.2f %%, %.1f commands/s\n", 100*(cpu2-cpu)/quietFor.Seconds(),
		100*(redisCPU2-redisCPU)/quietFor.Seconds(), float64(commands2-commands)/quietFor.Seconds())

	second, err := dianemo.Interval(time.Second)
	if err != nil {
		return err
	}
	if err := put(n, second); err != nil {
		return err
	}
	var lates []time.Duration
	for range 30 {
		lates = append(lates, <-late)
	}
	slices.Sort(lates)
	fmt.Printf("one each second, start after its instant     %8.2f ms   p50; max of 30 %.2f ms\n", ms(lates[15]), ms(lates[29]))
	if err := client.RemoveSchedule(ctx, "schedule-"+strconv.Itoa(n)); err != nil {
		return err
	}
	for len(fired) > 0 {
		<-fired
	}

	at := time.Now().Add(time.Duration(n)*time.Millisecond + 5*time.Second).Truncate(time.Second)
	once, err := dianemo.At(at)
	if err != nil {
		return err
	}
	for i := range n {
		if err := put(i, once); err != nil {
			return err
		}
	}
	if time.Now().After(at) {
		return fmt.Errorf("it took too long to change %d schedules", n)
	}
	rdb.ConfigSet(ctx, "slowlog-log-slower-than", "500")
	rdb.ConfigSet(ctx, "slowlog-max-len", "10000")
	rdb.SlowLogReset(ctx)
	begun.Store(0)
	for range n {
		<-fired
	}
	all := time.Since(at)
	for begun.Load() < int64(n) {
		<-late
	}
	fmt.Printf("all %d at one instant, made after          %8.0f ms   run after %.0f ms\n", n, ms(all), ms(time.Since(at)))
	logged, err := rdb.SlowLogGet(ctx, 10000).Result()
	if err != nil {
		return err
	}
	slow := map[string][]time.Duration{} // by the script's first key, without its caller
	for _, l := range logged {
		name := l.Args[0]
		if len(l.Args) > 3 {
			_, name, _ = strings.Cut(l.Args[3], "}:")
			name, _, _ = strings.Cut(strings.TrimPrefix(name, "call:"), ":")
		}
		slow[name] = append(slow[name], l.Duration)
	}
	for _, name := range slices.Sorted(maps.Keys(slow)) {
		all := slow[name]
		slices.Sort(all)
		fmt.Printf("  Redis was held by %-12s  %4d times for longer than 0.5 ms, p50 %.2f, p99 %.2f, max %.2f ms\n", name, len(all),
			ms(all[len(all)/2]), ms(all[len(all)*99/100]), ms(all[len(all)-1]))
	}
	stop()
	return <-ended
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// usage is the number of commands that Redis has had, and the seconds of CPU that
// this process and Redis have used.
func usage(rdb *redis.Client) (commands int64, own, server float64, err error) {
	used, err := measure.ReadServer(context.Background(), rdb)
	return used.Commands, measure.OwnUsage().CPU.Seconds(), used.CPU.Seconds(), err
}

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/redisstore"
)

// The program's other parts are itself, started with one of these.
const (
	peerVariable = "DIANEMO_BENCH_PEER" // the address of Redis
	burnVariable = "DIANEMO_BENCH_BURN" // how many CPUs
)

var waits = dianemo.NewKind[int]("bench.waits", dianemo.Policy{})

// giveWay shows two peers in processes of their own while a third process,
// which has nothing to do with them, uses half of the CPUs, then all, then none.
// Each peer has 16 tokens and more jobs than it can run, which wait for 100 ms:
// with all tokens it claims 160 a second.
func giveWay() error {
	server, err := redistest.Launch()
	if err != nil {
		return err
	}
	defer server.Close()
	rdb := redis.NewClient(&redis.Options{Addr: server.Addr()})
	defer rdb.Close()
	client, err := dianemo.NewClient(redisstore.New(rdb, redisstore.Options{Namespace: "bench"}), dianemo.ClientConfig{Logger: quiet})
	if err != nil {
		return err
	}
	defer client.Close()
	requests := make([]dianemo.Request, 500)
	for i := range requests {
		requests[i] = waits.New(i)
	}
	for range 16 {
		if _, err := client.EnqueueMany(context.Background(), requests...); err != nil {
			return err
		}
	}

	var mu sync.Mutex
	said := [2]string{"-", "-"}
	for i := range said {
		out, end, err := again(peerVariable + "=" + server.Addr())
		if err != nil {
			return err
		}
		defer end()
		go func() { // ends with the process
			for in := bufio.NewScanner(out); in.Scan(); {
				mu.Lock()
				said[i] = in.Text()
				mu.Unlock()
			}
		}()
	}
	fmt.Printf("%d CPUs, two peers in two processes; of each: share that others use, available of its tokens, claims in the last second\n\n", runtime.NumCPU())
	const row = "%4s  %-22s  %-24s  %-24s\n"
	fmt.Printf(row, "s", "burning outside", "peer A", "peer B")
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	second := 0
	for _, phase := range []struct {
		cpus, seconds int
	}{{0, 5}, {(runtime.NumCPU() + 1) / 2, 5}, {runtime.NumCPU(), 5}, {0, 5}} {
		end := func() {}
		if phase.cpus > 0 {
			if _, end, err = again(fmt.Sprintf("%s=%d", burnVariable, phase.cpus)); err != nil {
				return err
			}
		}
		for range phase.seconds {
			<-ticker.C
			second++
			mu.Lock()
			fmt.Printf(row, fmt.Sprint(second), fmt.Sprintf("%d CPUs", phase.cpus), said[0], said[1])
			mu.Unlock()
		}
		end()
	}
	return nil
}

// again starts this program in another part, which ends with its standard
// input.
func again(part string) (io.Reader, func(), error) {
	program, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	cmd := exec.Command(program)
	cmd.Env, cmd.Stderr = append(os.Environ(), part), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	return out, func() {
		in.Close()
		_ = cmd.Wait() // what went wrong it has said itself
	}, nil
}

// part runs another part of the program, if this is to be one.
func part() (bool, error) {
	if cpus := os.Getenv(burnVariable); cpus != "" {
		var n int
		if _, err := fmt.Sscan(cpus, &n); err != nil {
			return true, err
		}
		runtime.GOMAXPROCS(n + 1) // one that hears when to end
		for range n {
			go func() {
				for n := uint64(1); n > 0; n++ { // burns
				}
			}()
		}
		_, err := io.Copy(io.Discard, os.Stdin)
		return true, err
	}
	if address := os.Getenv(peerVariable); address != "" {
		return true, givingWay(address)
	}
	return false, nil
}

func givingWay(address string) error {
	rdb := redis.NewClient(&redis.Options{Addr: address})
	defer rdb.Close()
	var claims atomic.Int64
	peer, err := dianemo.NewPeer(redisstore.New(rdb, redisstore.Options{Namespace: "bench"}), dianemo.Config{Tokens: 16, Finish: dianemo.None, Logger: quiet,
		Hooks: &dianemo.Hooks{
			Claim: func(dianemo.ClaimInfo) { claims.Add(1) },
			Load: func(i dianemo.LoadInfo) {
				words := []string{fmt.Sprintf("%3.0f%% %2d/%d %4d", i.Share*100, i.Available, i.Tokens, claims.Swap(0))}
				if i.Hot {
					words = append(words, "hot")
				}
				fmt.Println(strings.Join(words, " "))
			},
		}})
	if err != nil {
		return err
	}
	err = waits.Handle(peer, func(ctx context.Context, _ *dianemo.Job[int]) error {
		timer := time.NewTimer(100 * time.Millisecond)
		defer timer.Stop()
		select {
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with the process at the latest
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is the signal, however it came
		cancel()
	}()
	return peer.Run(ctx)
}

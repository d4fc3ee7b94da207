package measure

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/dianemo/dianemo"
)

const (
	warmUp     = 10          // jobs that are not timed
	lookAround = time.Second // unless settings say otherwise
)

// peersAtWork makes the crew and waits until all of it is known to be there, has
// looked around and is idle, but for the jobs that wait.
func (b *bench) peersAtWork(ctx context.Context, client *dianemo.Client, s spec, n int) (*crew, error) {
	crew, err := b.crew(s, n)
	if err != nil {
		return nil, err
	}
	err = func() error {
		crew.begin()
		until := time.Now().Add(patience)
		for {
			select {
			case err := <-crew.failed:
				return err
			default:
			}
			peers, err := client.Peers(ctx)
			if err != nil {
				return err
			}
			if len(peers) == len(crew.members) {
				return wait(ctx, cmp.Or(b.LookAround, lookAround))
			}
			if time.Now().After(until) {
				return fmt.Errorf("%d of %d peers show themselves after %v", len(peers), len(crew.members), patience)
			}
			if err := wait(ctx, 20*time.Millisecond); err != nil {
				return err
			}
		}
	}()
	if err != nil {
		_, _ = crew.stop()
		return nil, err
	}
	return crew, nil
}

// timedJobs runs a figure of jobs whose start is timed. add enqueues them.
func (b *bench) timedJobs(ctx context.Context, figure string, waiting int, add func(ctx context.Context, client *dianemo.Client) error) (totals, error) {
	client, _, end, err := b.client()
	if err != nil {
		return totals{}, err
	}
	defer end()
	if waiting > 0 {
		if err := b.fill(ctx, client, waiting); err != nil {
			return totals{}, err
		}
	}
	s := b.spec
	s.Count = true
	if waiting > 0 {
		s.Reserve = b.reserve()
	}
	crew, err := b.peersAtWork(ctx, client, s, b.Peers)
	if err != nil {
		return totals{}, err
	}
	for i := 0; err == nil && i < warmUp; i++ {
		_, err = b.kinds[i%b.Kinds].Enqueue(ctx, client, b.payload)
	}
	if err == nil {
		err = crew.await(ctx, plain, warmUp, func(int64) {})
	}
	if err == nil {
		_, err = crew.mark()
	}
	tell := b.progress.of(b.Samples)
	if err == nil {
		err = add(ctx, client)
	}
	if err == nil {
		err = crew.await(ctx, timed, int64(b.Samples), tell)
	}
	sum, err := crew.finish(err)
	if err != nil {
		return sum, err
	}
	var h Histogram
	h.add(sum.Delays)
	for _, q := range []struct {
		name  string
		share float64
	}{{P50, 0.5}, {P90, 0.9}, {P99, 0.99}, {P999, 0.999}, {Longest, 1}} {
		b.note(figure, q.name, Micros(h.Quantile(q.share)))
	}
	if b.delays[figure] == nil {
		b.delays[figure] = &Histogram{}
	}
	b.delays[figure].add(sum.Delays)
	return sum, nil
}

// pickUp is from the call of Enqueue to the handler, of jobs that come at a steady
// rate, whatever became of the one before: a peer that is late is not spared.
func (b *bench) pickUp(ctx context.Context) error {
	priority := 0 // the default
	if b.Waiting > 0 {
		priority = 1
	}
	sum, err := b.timedJobs(ctx, PickUp, b.Waiting, func(ctx context.Context, client *dianemo.Client) error {
		begin, gap := time.Now(), time.Second/time.Duration(b.Rate)
		for i := range b.Samples {
			at := begin.Add(time.Duration(i) * gap)
			if err := wait(ctx, time.Until(at)); err != nil {
				return err
			}
			from := map[string]string{fromHeader: strconv.FormatInt(time.Now().UnixNano(), 10)}
			_, err := b.kinds[i%b.Kinds].EnqueueWith(ctx, client, b.payload, dianemo.Options{Priority: priority, Headers: from})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if b.Waiting == 0 { // else most claims are for the others
		b.note(PickUp, "claims_per_job", float64(sum.Claims)/float64(b.Samples))
	}
	return nil
}

// schedule is from when a job is due to the handler. They are enqueued before and
// come due one after the other.
func (b *bench) schedule(ctx context.Context) error {
	_, err := b.timedJobs(ctx, Schedule, 0, func(ctx context.Context, client *dianemo.Client) error {
		ahead := time.Second + time.Duration(b.Samples)*100*time.Microsecond
		begin, gap := time.Now().Add(ahead).Truncate(time.Millisecond), time.Second/time.Duration(b.Rate)
		requests := make([]dianemo.Request, b.Samples)
		for i := range requests {
			due := begin.Add((time.Duration(i) * gap).Truncate(time.Millisecond))
			requests[i] = b.kinds[i%b.Kinds].NewWith(b.payload, dianemo.Options{RunAt: due, Headers: map[string]string{fromHeader: fromDue}})
		}
		if _, err := client.EnqueueMany(ctx, requests...); err != nil {
			return err
		}
		if late := time.Since(begin); late > 0 {
			return fmt.Errorf("the jobs were due when they had been enqueued, which took %v: take fewer --samples", late+ahead)
		}
		return nil
	})
	return err
}

// idle is what peers cost that have nothing to do. They are always in processes of
// their own: what this one does meanwhile is not theirs.
func (b *bench) idle(ctx context.Context) error {
	client, _, end, err := b.client()
	if err != nil {
		return err
	}
	defer end()
	s := b.spec
	s.Count, s.Load = true, true // to read the load is a part of what they cost
	n := max(b.Peers, 1)
	crew, err := b.peersAtWork(ctx, client, s, n)
	if err != nil {
		return err
	}
	var from, to reading
	_, err = crew.mark()
	if err == nil {
		from, err = b.read(ctx)
	}
	tell, tick := b.progress.of(int(b.Idle)), time.Second
	for passed := time.Duration(0); err == nil && passed < b.Idle; passed = time.Since(from.at) {
		tell(int64(passed))
		err = wait(ctx, min(tick, b.Idle-passed))
	}
	if err == nil {
		to, err = b.read(ctx)
	}
	sum, err := crew.finish(err)
	if err != nil {
		return err
	}
	seconds := to.at.Sub(from.at).Seconds()
	b.note(Idle, "commands_per_second", float64(sum.Commands)/seconds/float64(n))
	b.note(Idle, "cpu_percent", 100*sum.CPU.Seconds()/seconds/float64(n))
	if b.backend.inner == nil {
		b.note(Idle, "redis_commands_per_second", float64(to.server.Commands-from.server.Commands)/seconds/float64(n))
		b.note(Idle, "redis_cpu_percent", 100*(to.server.CPU-from.server.CPU).Seconds()/seconds)
	}
	return nil
}

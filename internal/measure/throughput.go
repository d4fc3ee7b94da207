package measure

import (
	"context"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/dianemo/dianemo"
)

const (
	enqueueFor  = 2 * time.Second // at most: one by one is slow where Redis is far
	bulkCallers = 4
)

// enqueue is one by one, from many callers.
func (b *bench) enqueue(ctx context.Context) error {
	client, _, end, err := b.client()
	if err != nil {
		return err
	}
	defer end()
	tell := b.progress.of(b.Jobs)
	runtime.GC()
	from, err := b.read(ctx)
	if err != nil {
		return err
	}
	var next, done atomic.Int64
	err = together(ctx, b.Callers, func(ctx context.Context, _ int) error {
		for time.Since(from.at) < enqueueFor {
			i := int(next.Add(1)) - 1
			if i >= b.Jobs {
				break
			}
			if _, err := b.kinds[i%b.Kinds].Enqueue(ctx, client, b.payload); err != nil {
				return err
			}
			tell(done.Add(1))
		}
		return nil
	})
	if err != nil {
		return err
	}
	to, err := b.read(ctx)
	if err != nil {
		return err
	}
	b.work(Enqueue, int(done.Load()), to.at.Sub(from.at), to.own.Since(from.own), from, to)
	return nil
}

// fill enqueues n jobs in bulk.
func (b *bench) fill(ctx context.Context, client *dianemo.Client, n int) error {
	tell := b.progress.of(n)
	var next, done atomic.Int64
	return together(ctx, bulkCallers, func(ctx context.Context, _ int) error {
		requests := make([]dianemo.Request, b.Batch)
		for {
			first := int(next.Add(int64(b.Batch))) - b.Batch
			if first >= n {
				return nil
			}
			some := requests[:min(b.Batch, n-first)]
			for i := range some {
				some[i] = b.kinds[(first+i)%b.Kinds].New(b.payload)
			}
			if _, err := client.EnqueueMany(ctx, some...); err != nil {
				return err
			}
			tell(done.Add(int64(len(some))))
		}
	})
}

// bulkAndDrain fills the namespace, and drains what it is filled with.
func (b *bench) bulkAndDrain(ctx context.Context) error {
	client, rdb, end, err := b.client()
	if err != nil {
		return err
	}
	defer end()
	if err := rdb.Ping(ctx).Err(); err != nil { // a connection's buffers are no job's
		return err
	}
	runtime.GC()
	from, err := b.read(ctx)
	if err != nil {
		return err
	}
	if err := b.fill(ctx, client, b.Jobs); err != nil {
		return err
	}
	to, err := b.read(ctx)
	if err != nil {
		return err
	}
	if b.wants(Bulk) {
		b.work(Bulk, b.Jobs, to.at.Sub(from.at), to.own.Since(from.own), from, to)
		if err := b.memory(ctx, from.server.Memory); err != nil {
			return err
		}
	}
	if !b.wants(Drain) {
		return nil
	}
	return b.drain(ctx)
}

func (b *bench) memory(ctx context.Context, before int64) error {
	if b.backend.inner != nil {
		return nil
	}
	if err := b.log.read(ctx); err != nil {
		return err
	}
	now, err := b.backend.usage(ctx)
	b.note(Bulk, "redis_bytes_per_job", float64(now.Memory-before)/float64(b.Jobs))
	return err
}

// drain is from when the peers begin until they have ended, by when all results
// are stored.
func (b *bench) drain(ctx context.Context) error {
	crew, err := b.crew(b.spec, b.Peers)
	if err != nil {
		return err
	}
	runtime.GC()
	from, err := b.read(ctx)
	if err == nil {
		_, err = crew.mark()
	}
	begin := time.Now()
	if err == nil {
		crew.begin()
		err = crew.await(ctx, plain, int64(b.Jobs), b.progress.of(b.Jobs))
	}
	totals, ended := crew.stop()
	if err == nil {
		err = ended
	}
	if err != nil {
		return err
	}
	to, err := b.read(ctx)
	if err != nil {
		return err
	}
	took := totals.Until.Sub(begin)
	b.work(Drain, b.Jobs, took, totals.Usage, from, to)
	if b.Takes > 0 {
		b.note(Drain, "efficiency", float64(b.Jobs)/took.Seconds()/b.allowed())
	}
	return nil
}

// allowed is how many jobs a second the peers' tokens allow.
func (b *bench) allowed() float64 {
	weight := 0
	for i := range b.Kinds {
		weight += b.Weights[i%len(b.Weights)]
	}
	tokens := float64(max(b.Peers, 1) * b.Tokens)
	return tokens / (float64(weight) / float64(b.Kinds)) / b.Takes.Seconds()
}

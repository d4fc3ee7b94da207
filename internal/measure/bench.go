package measure

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/dianemo/dianemo"
)

// A bench measures; each figure begins with the namespace empty.
type bench struct {
	Settings
	backend  *backend
	spec     spec
	kinds    []dianemo.Kind[string]
	payload  string
	log      *slowLog
	progress *Progress
	values   map[string]map[string][]float64
	delays   map[string]*Histogram
}

// A Progress says how far Run is, to anyone at any time. The zero value works.
type Progress struct {
	steps, step atomic.Int64
	name        atomic.Pointer[string]
	done, all   atomic.Int64
}

// Now is the share that is done, 0 to 1, and what is done now.
func (p *Progress) Now() (float64, string) {
	name := p.name.Load()
	if name == nil {
		return 0, ""
	}
	within := min(float64(p.done.Load())/float64(max(p.all.Load(), 1)), 1)
	return (float64(p.step.Load()) + within) / float64(p.steps.Load()), *name
}

func (p *Progress) enter(step int, name string) {
	p.done.Store(0)
	p.all.Store(0)
	p.step.Store(int64(step))
	p.name.Store(&name)
}

func (p *Progress) of(all int) func(done int64) {
	p.done.Store(0)
	p.all.Store(int64(all))
	return p.done.Store
}

// Run measures. opened is told where the jobs will be, before the first. Whatever
// happens, also when ctx ends, the namespace is removed before Run returns.
func Run(ctx context.Context, s Settings, opened func(Backend, Settings), progress *Progress) (report *Report, err error) {
	if err := s.Check(); err != nil {
		return nil, err
	}
	begin := time.Now()
	backend, err := openBackend(ctx, s)
	if err != nil {
		return nil, err
	}
	defer func() {
		if tidy := backend.close(); err == nil {
			err = tidy
		} else if tidy != nil {
			err = fmt.Errorf("%w; and %w", err, tidy)
		}
	}()
	if s.Jobs == 0 {
		s.Jobs = DefaultJobs
		if backend.inner != nil {
			s.Jobs = EmbeddedJobs
		}
	}
	opened(backend.Backend, s)
	b := &bench{Settings: s, backend: backend, payload: strings.Repeat("x", s.Payload-2), progress: progress, // and two quotes
		values: map[string]map[string][]float64{}, delays: map[string]*Histogram{},
		spec: spec{URL: backend.url, Namespace: backend.Namespace, Plain: backend.inner != nil, Partitions: s.Partitions, Tokens: s.Tokens,
			Weights: s.Weights, Kinds: s.Kinds, Keep: s.Keep, Load: s.Load, Takes: s.Takes}}
	b.kinds = b.spec.kinds()
	rdb, store, err := b.spec.store()
	if err != nil {
		return nil, err
	}
	rdb.Close() // the names are all that is asked of it
	if b.log, err = backend.openSlowLog(ctx, s.SlowLog, store.ScriptName); err != nil {
		return nil, err
	}
	if err := b.rounds(ctx); err != nil {
		return nil, err
	}
	report = &Report{Dianemo: dianemo.Version, Go: runtime.Version(), CPUs: runtime.NumCPU(), Redis: backend.Backend, Settings: s,
		Figures: map[string]map[string]Value{}, Histograms: map[string][]Bucket{}, Scripts: b.log.report(), Seconds: time.Since(begin).Seconds()}
	for figure, values := range b.values {
		report.Figures[figure] = map[string]Value{}
		for name, rounds := range values {
			report.Figures[figure][name] = valueOf(rounds)
		}
	}
	for figure, h := range b.delays {
		report.Histograms[figure] = h.Buckets()
	}
	return report, nil
}

// rounds takes the figures in turn, so that what changes meanwhile changes all.
func (b *bench) rounds(ctx context.Context) error {
	var steps []func(context.Context) error
	var names []string
	for _, s := range []struct {
		figures []string
		name    string
		take    func(context.Context) error
	}{
		{[]string{Enqueue}, "enqueue", b.enqueue},
		{[]string{Bulk, Drain}, "bulk and drain", b.bulkAndDrain},
		{[]string{PickUp}, "pick-up", b.pickUp},
		{[]string{Schedule}, "schedule", b.schedule},
		{[]string{Idle}, "idle", b.idle},
	} {
		if b.wants(s.figures...) {
			steps, names = append(steps, s.take), append(names, s.name)
		}
	}
	b.progress.steps.Store(int64(len(steps) * b.Rounds))
	for round := range b.Rounds {
		for i, take := range steps {
			b.progress.enter(round*len(steps)+i, names[i])
			err := b.backend.clear(ctx)
			if err == nil {
				err = take(ctx)
			}
			if err == nil {
				err = b.log.read(ctx)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", names[i], err)
			}
		}
	}
	return nil
}

func (b *bench) note(figure, name string, value float64) {
	if b.values[figure] == nil {
		b.values[figure] = map[string][]float64{}
	}
	b.values[figure][name] = append(b.values[figure][name], value)
}

// client makes a client, and the function that closes it.
func (b *bench) client() (*dianemo.Client, *redis.Client, func(), error) {
	rdb, store, err := b.spec.store()
	if err != nil {
		return nil, nil, nil, err
	}
	client, err := dianemo.NewClient(store, dianemo.ClientConfig{Logger: quiet})
	if err != nil {
		rdb.Close()
		return nil, nil, nil, err
	}
	return client, rdb, func() {
		client.Close()
		rdb.Close()
	}, nil
}

// A reading is what was used up to now.
type reading struct {
	at     time.Time
	own    Usage
	server ServerUsage
}

func (b *bench) read(ctx context.Context) (reading, error) {
	server, err := b.backend.usage(ctx)
	return reading{time.Now(), OwnUsage(), server}, err
}

// work notes what some jobs took: in this process from one reading to the next,
// unless peers say otherwise.
func (b *bench) work(figure string, jobs int, took time.Duration, own Usage, from, to reading) {
	b.note(figure, JobsPerSecond, float64(jobs)/took.Seconds())
	b.note(figure, CPUPerJob, Micros(own.CPU)/float64(jobs))
	b.note(figure, AllocationsPerJob, float64(own.Allocations)/float64(jobs))
	if b.backend.inner == nil {
		b.note(figure, RedisCPUPerJob, Micros(to.server.CPU-from.server.CPU)/float64(jobs))
	}
}

// together runs n functions at once, until the first error.
func together(ctx context.Context, n int, fn func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			if err := fn(ctx, i); err != nil {
				cancel(err)
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

package redisstore_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/internal/sample"
	"github.com/dianemo/dianemo/redisstore"
	"github.com/dianemo/dianemo/redisstore/embedded"
)

// A modelWalk is a random walk: of calls to a store and to the model of it, whose answers
// must be the same, and so must be what both hold.
type modelWalk struct {
	t         *testing.T
	store     dianemo.Store
	rdb       redis.UniversalClient
	namespace string
	setTime   func(time.Time)
	seed      uint64
	rng       *rand.Rand
	model     *modelWorld

	step, steps int
	every       int // after so many steps all is compared
	log         []string
	later       []modelLate // calls that are still to be sent, or again
	did         map[string]int
	stood       map[string]dianemo.State // where each job stood after the last step
	modelHands
}

// A modelCall is one call: to the store and to the model.
type modelCall struct {
	name, text string
	real       func(ctx context.Context) (any, error)
	model      func() (any, error)
	heard      func(answer any) // what its caller makes of the store's answer
	once       bool             // it is a read: nothing comes of sending it again
}

type modelLate struct {
	call  modelCall
	at    int // step
	again bool
}

const modelLog = 30

// do sends a call, and perhaps others late, or this one again.
func (w *modelWalk) do(c modelCall) {
	switch n := w.rng.IntN(100); {
	case c.once:
		w.send(c, false)
	case n < 2:
		// It is on its way for so long that others, of the same caller, too, overtake it.
		w.later = append(w.later, modelLate{c, w.step + 1 + w.rng.IntN(10), false})
	default:
		w.send(c, false)
		if n < 12 {
			w.send(c, true)
		}
		if n >= 8 && n < 20 {
			w.later = append(w.later, modelLate{c, w.step + 1 + w.rng.IntN(12), true})
		}
	}
	for i := 0; i < len(w.later); i++ {
		if late := w.later[i]; late.at <= w.step {
			w.later = append(w.later[:i], w.later[i+1:]...)
			w.send(late.call, late.again)
			i = -1
		}
	}
}

// send sends it and compares the answers.
func (w *modelWalk) send(c modelCall, again bool) {
	w.step++
	want, wantErr := c.model()
	got, err := c.real(w.t.Context())
	is, should := modelSay(got, err, again), modelSay(want, wantErr, again)
	name := c.name
	if again {
		name += " again"
	}
	w.did[name]++
	if err != nil {
		w.did[name+": "+modelError(err)]++
	}
	line := fmt.Sprintf("%d at %d: %s %s\n\t-> %s", w.step, w.model.now, name, c.text, is)
	if w.log = append(w.log, line); len(w.log) > modelLog {
		w.log = w.log[1:]
	}
	if is != should {
		w.fail("the answer should be\n\t   %s", should)
	}
	if c.heard != nil && err == nil {
		c.heard(got)
	}
	w.moves(c.name)
	if w.step%w.every == 0 {
		w.compare()
	}
	if !w.t.Failed() {
		w.pass()
	}
}

func (w *modelWalk) fail(format string, args ...any) {
	w.t.Helper()
	text := strings.Join(w.log, "\n")
	w.t.Fatalf("SEED=%d, step %d: %s\nThe last steps:\n%s", w.seed, w.step, fmt.Sprintf(format, args...), text)
}

// compare compares all that both hold.
func (w *modelWalk) compare() {
	w.t.Helper()
	is, err := dumpOf(w.t.Context(), w.rdb, w.namespace)
	require.NoError(w.t, err)
	if found := w.model.dump(w.namespace).differences(is); len(found) > 0 {
		w.fail("what is stored is not what the model has:\n%s", strings.Join(found[:min(len(found), 20)], "\n"))
	}
}

// pass lets time pass: often none, mostly some ms, at times hours.
func (w *modelWalk) pass() {
	var d time.Duration
	switch n := w.rng.IntN(1000); {
	case n < 500:
		return
	case n < 800:
		d = time.Duration(1+w.rng.IntN(20000)) * time.Microsecond
	case n < 960:
		d = time.Duration(1+w.rng.IntN(3000)) * time.Millisecond
	case n < 990:
		d = time.Duration(1+w.rng.IntN(60)) * time.Second
	case n < 998:
		d = time.Duration(1+w.rng.IntN(20)) * time.Minute
	default:
		d = time.Duration(1+w.rng.IntN(5)) * time.Hour
	}
	w.advance(d)
}

func (w *modelWalk) advance(d time.Duration) {
	w.model.now += d.Microseconds()
	w.setTime(time.UnixMicro(w.model.now))
}

// run makes so many steps.
func (w *modelWalk) run() {
	w.setTime(time.UnixMicro(w.model.now))
	require.NoError(w.t, w.store.Open(w.t.Context()))
	w.begin()
	for w.step < w.steps {
		w.act()
	}
	w.compare()
	w.counts()
	w.tell()
	w.reached()
}

// reached fails a walk that did not make each of the transitions of jobs.
func (w *modelWalk) reached() {
	names := strings.Join(slices.Collect(maps.Keys(w.did)), "\n")
	for _, edges := range dianemo.Edges {
		for edge := range edges { // one that leaves the state as it is shows as the call
			require.True(w.t, w.did[string(edge)] > 0 || strings.Contains(names, fmt.Sprintf("-%s-> ", edge)), "no %s in %d steps", edge, w.step)
		}
	}
}

// tell says what the walk came upon.
func (w *modelWalk) tell() {
	for _, name := range slices.Sorted(maps.Keys(w.did)) {
		w.t.Logf("%6d %s", w.did[name], name)
	}
}

// counts compares what readers count.
func (w *modelWalk) counts() {
	counts, err := w.store.Counts(w.t.Context())
	require.NoError(w.t, err)
	want := map[string]int64{}
	for _, p := range w.model.parts {
		for _, j := range p.jobs {
			state := j.state
			switch {
			case state != dianemo.Scheduled:
			case j.runs > 0:
				state = dianemo.Retrying
			case j.due <= p.ms():
				state = dianemo.Queued
			}
			want[fmt.Sprint(state, j.lane.Kind, j.lane.Priority)]++
		}
	}
	for _, c := range counts {
		name := fmt.Sprint(c.State, c.Kind, c.Priority)
		require.Equal(w.t, want[name], c.Jobs, name)
		delete(want, name)
	}
	require.Empty(w.t, want)
}

// modelNumber reads one from the environment.
func modelNumber(t *testing.T, name string, otherwise uint64) uint64 {
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	require.NoError(t, err, name)
	return n
}

// The scripts against a model of them, in random steps by a clock of the test's own. Each
// fifth call is sent again, at once or after others, and some come late. SEED chooses
// other walks; EVERY=1 compares what is stored after each step, not each hundredth. The
// short form makes the first third of one walk of each sort.
func TestTheScriptsDoAsTheModelDoes_Long(t *testing.T) {
	t.Parallel()
	walks, steps := sample.Rows(t, []uint64{0, 1, 2, 3}, 4), sample.Part(t, 12_500, 3)
	seed := modelNumber(t, "SEED", 1)
	for _, partitions := range []int{1, 8} {
		options := func() redisstore.Options {
			return redisstore.Options{Namespace: fmt.Sprintf("walk-%d", namespaces.Add(1)), Partitions: partitions}
		}
		for _, n := range walks {
			t.Run(fmt.Sprintf("redis/%d/%d", partitions, n), func(t *testing.T) {
				t.Parallel()
				options, own := options(), redistest.Start(t) // a walk looks through all keys, over and over
				client, clock := clocked(t, own)
				w := newModelWalk(t, redisstore.New(client, options), own.Client(t), options, seed+n)
				w.setTime, w.steps, w.model.forgets = clock.set, steps, false
				w.run()
			})
		}
		t.Run(fmt.Sprintf("embedded/%d", partitions), func(t *testing.T) {
			t.Parallel()
			options := options()
			s, err := embedded.New(options)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, s.Close()) })
			w := newModelWalk(t, s, s.Client(), options, seed)
			w.setTime, w.steps = s.SetTime, sample.Part(t, 5_000, 10)
			w.run()
		})
	}
}

func newModelWalk(t *testing.T, store dianemo.Store, rdb redis.UniversalClient, options redisstore.Options, seed uint64) *modelWalk {
	begin := time.Date(2025, 3, 1, 12, 0, 0, 123_456_000, time.UTC)
	return &modelWalk{t: t, store: store, rdb: rdb, namespace: options.Namespace, seed: seed,
		rng: rand.New(rand.NewPCG(seed, uint64(options.Partitions))), model: newModelWorld(options.Partitions, true, begin), did: map[string]int{}, every: int(modelNumber(t, "EVERY", 100))}
}

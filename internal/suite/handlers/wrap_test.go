package handlers_test

import (
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

// What a tracer does: a header goes in where the job is enqueued, and comes out
// around its handler.
func TestAHeaderTravelsFromEnqueueToHandler_Long(t *testing.T) {
	t.Parallel()
	type trace struct{}
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		var seen []string
		config := dianemo.Config{
			WrapEnqueue: func(next dianemo.EnqueueFunc) dianemo.EnqueueFunc {
				return func(ctx context.Context, requests []dianemo.Request) ([]string, error) {
					for i, q := range requests {
						if q.Header("trace") == "" {
							requests[i] = q.WithHeader("trace", q.Kind()+" "+ctx.Value(trace{}).(string))
						}
					}
					ids, err := next(ctx, requests)
					seen = append(seen, ids...)
					return ids, err
				}
			},
			Wrap: func(next dianemo.Handler) dianemo.Handler {
				return func(ctx context.Context, job *dianemo.Job[json.RawMessage]) error {
					return next(context.WithValue(ctx, trace{}, job.Headers["trace"]), job)
				}
			},
		}
		got := make(chan map[string]string, 1)
		var kind dianemo.Kind[suite.Args]
		peer := suite.Start(t, store, config, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
				got <- map[string]string{"context": ctx.Value(trace{}).(string), "user": job.Headers["user"], "trace": job.Headers["trace"]}
				return nil
			})
		})
		ctx := context.WithValue(t.Context(), trace{}, "t-1")
		mine := map[string]string{"user": "ann"}
		requests := []dianemo.Request{kind.NewWith(suite.Args{}, dianemo.Options{Headers: mine})}
		ids, err := peer.EnqueueMany(ctx, requests...)
		require.NoError(t, err)
		require.Equal(t, map[string]string{"context": "kind t-1", "user": "ann", "trace": "kind t-1"}, suite.Receive(t, got))
		require.Equal(t, ids, seen)
		require.Equal(t, map[string]string{"user": "ann"}, mine, "the caller's map is the caller's")
		require.Empty(t, requests[0].Header("trace"), "and so are its requests")
		require.Equal(t, map[string]string{"user": "ann", "trace": "kind t-1"}, suite.Get(t, peer, ids[0]).Headers)

		_, err = kind.EnqueueWith(ctx, peer, suite.Args{}, dianemo.Options{ID: ids[0]})
		var exists *dianemo.ExistsError
		require.ErrorAs(t, err, &exists)
		require.Equal(t, ids[0], exists.ID)
	})
}

func TestAHookMayRefuseAnEnqueue(t *testing.T) {
	t.Parallel()
	store := suite.Embedded(t, 1)
	no := errors.New("not today")
	c, err := dianemo.NewClient(store, dianemo.ClientConfig{WrapEnqueue: func(dianemo.EnqueueFunc) dianemo.EnqueueFunc {
		return func(context.Context, []dianemo.Request) ([]string, error) { return nil, no }
	}})
	require.NoError(t, err)
	defer c.Close()
	id, err := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{}).Enqueue(t.Context(), c, suite.Args{})
	require.Empty(t, id)
	require.Equal(t, no, err)

	c, err = dianemo.NewClient(store, dianemo.ClientConfig{WrapEnqueue: func(dianemo.EnqueueFunc) dianemo.EnqueueFunc {
		return func(context.Context, []dianemo.Request) ([]string, error) { return nil, &dianemo.BatchError{} }
	}})
	require.NoError(t, err)
	defer c.Close()
	_, err = dianemo.NewKind[suite.Args]("kind", dianemo.Policy{}).Enqueue(t.Context(), c, suite.Args{})
	require.Error(t, err)
}

// Wrap is around each sort of handler, and what it does counts.
func TestWrapIsAroundEveryHandler_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		made := 0
		order := make(chan string, 20)
		layer := func(name string, next dianemo.Handler) dianemo.Handler {
			return func(ctx context.Context, job *dianemo.Job[json.RawMessage]) error {
				order <- name + " " + job.Kind + " " + string(job.Args)
				defer func() { order <- "end of " + name }()
				switch string(job.Args) {
				case `{"N":1}`:
					panic("in the middle")
				case `{"N":2}`:
					return dianemo.Fail(suite.ErrBoom)
				case `{"N":3}`:
					other := *job
					other.Args = json.RawMessage(`{"N":30}`)
					return next(ctx, &other)
				}
				return next(ctx, job)
			}
		}
		config := dianemo.Config{Tokens: 1, Wrap: func(next dianemo.Handler) dianemo.Handler {
			made++
			return layer("outer", layer("inner", next))
		}}
		kinds := map[string]dianemo.Kind[suite.Args]{}
		peer := suite.Start(t, store, config, func(p *dianemo.Peer) {
			kinds["typed"] = suite.Handle(t, p, "typed", dianemo.Policy{Retries: dianemo.None}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				order <- "handler"
				if job.Args.N == 4 {
					panic("in the handler")
				}
				job.Progress(1, 2, "half")
				return job.SetResult(job.Args.N)
			})
			require.NoError(t, p.HandleRaw("raw", dianemo.Policy{Retries: dianemo.None}, func(_ context.Context, job *dianemo.Job[json.RawMessage]) error {
				order <- "handler"
				job.Progress(1, 2, "half")
				return job.SetResult(job.Args)
			}))
			kinds["raw"] = dianemo.NewKind[suite.Args]("raw", dianemo.Policy{})
		})
		require.Equal(t, 2, made, "once for each kind")
		one := func(kind string, n int) *dianemo.JobInfo {
			id, err := kinds[kind].Enqueue(t.Context(), peer, suite.Args{N: n})
			require.NoError(t, err)
			peer.Next()
			return suite.Get(t, peer, id)
		}
		said := func() (all []string) {
			for len(order) > 0 {
				all = append(all, <-order)
			}
			return all
		}
		for _, kind := range []string{"typed", "raw"} {
			job := one(kind, 0)
			require.Equal(t, dianemo.Succeeded, job.State)
			require.Equal(t, map[string]string{"typed": "0", "raw": `{"N":0}`}[kind], string(job.Result))
			require.Equal(t, []string{"outer " + kind + ` {"N":0}`, "inner " + kind + ` {"N":0}`, "handler", "end of inner", "end of outer"}, said())
		}
		job := one("typed", 1)
		require.Equal(t, []any{dianemo.Failed, "panic"}, []any{job.State, job.Reason})
		require.Contains(t, job.LastError(), "in the middle")
		require.Contains(t, job.LastError(), "wrap_test.go")
		job = one("raw", 2)
		require.Equal(t, []any{dianemo.Failed, "boom"}, []any{job.State, job.LastError()})
		said()
		require.Equal(t, "30", string(one("typed", 3).Result), "it handed on other arguments")
		said()
		job = one("typed", 4)
		require.Equal(t, []any{dianemo.Failed, "panic"}, []any{job.State, job.Reason})
		require.Equal(t, []string{`outer typed {"N":4}`, `inner typed {"N":4}`, "handler", "end of inner", "end of outer"}, said(), "a panic passes through")
	})
}

// A typed handler behind a Wrap must get each field that it gets without one.
func TestAWrappedHandlerGetsTheSameJob(t *testing.T) {
	t.Parallel()
	job := map[bool]dianemo.Job[suite.Args]{}
	for _, wrapped := range []bool{false, true} {
		config := dianemo.Config{}
		if wrapped {
			config.Wrap = func(next dianemo.Handler) dianemo.Handler { return next }
		}
		got := make(chan dianemo.Job[suite.Args], 1)
		store := suite.Embedded(t, 1)
		peer := suite.Start(t, store, config, func(p *dianemo.Peer) {
			suite.Handle(t, p, "kind", dianemo.Policy{}, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				got <- *job
				return nil
			})
		})
		// A schedule's job has them all.
		suite.Put(t, peer.Client, dianemo.Schedule{Name: "hourly", Rule: suite.Every(t, time.Hour), Job: dianemo.NewKind[suite.Args]("kind", dianemo.Policy{}).NewWith(suite.Args{N: 7},
			dianemo.Options{Weight: 3, Headers: map[string]string{"a": "b"}})})
		_, err := peer.TriggerSchedule(t.Context(), "hourly")
		require.NoError(t, err)
		job[wrapped] = suite.Receive(t, got)
	}
	direct, wrapped := reflect.ValueOf(job[false]), reflect.ValueOf(job[true])
	for i := range direct.NumField() {
		field := direct.Type().Field(i)
		if !field.IsExported() {
			continue
		}
		if slices.Contains([]string{"Parents", "Workflow", "Name"}, field.Name) {
			continue // a child has these, and no occurrence is one: see TestAChildReadsItsParentsResults_Long and TestAWrappedEnqueueSeesAWorkflow_Long
		}
		require.False(t, direct.Field(i).IsZero(), field.Name)
		require.False(t, wrapped.Field(i).IsZero(), field.Name)
		switch field.Name {
		case "ID", "Epoch", "Due", "EnqueuedAt", "ScheduledFor": // of two occurrences
		default:
			require.Equal(t, direct.Field(i).Interface(), wrapped.Field(i).Interface(), field.Name)
		}
	}
}

func TestJobsUnderAnOldNameAreRun_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		old := dianemo.NewKind[suite.Args]("mail", dianemo.Policy{})
		c := suite.Client(t, store)
		before := suite.Enqueue(t, c, old, dianemo.Options{Priority: 3}) // waits when the peer starts
		renamed := dianemo.NewKind[suite.Args]("mail.send", dianemo.Policy{Weight: 2}).Aliases("post").Aliases("mail")
		kinds := make(chan string, 3)
		peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			require.NoError(t, renamed.Handle(p, func(_ context.Context, job *dianemo.Job[suite.Args]) error {
				kinds <- job.Kind
				return nil
			}))
		})
		require.Equal(t, "mail", suite.Receive(t, kinds))
		settled := peer.Next()
		require.Equal(t, []any{before, "mail", 2}, []any{settled.ID, settled.Kind, settled.Weight}, "by today's policy")
		after := suite.Enqueue(t, c, renamed, dianemo.Options{})
		require.Equal(t, "mail.send", suite.Receive(t, kinds))
		peer.Next()
		late := suite.Enqueue(t, c, old, dianemo.Options{})
		require.Equal(t, "mail", suite.Receive(t, kinds))
		peer.Next()
		for id, kind := range map[string]string{before: "mail", after: "mail.send", late: "mail"} {
			job := suite.Get(t, c, id)
			require.Equal(t, []any{dianemo.Succeeded, kind}, []any{job.State, job.Kind})
		}
		peers, err := c.Peers(t.Context())
		require.NoError(t, err)
		require.Len(t, peers, 1)
		require.Equal(t, []string{"mail", "mail.send", "post"}, peers[0].Kinds)
	})
}

func TestWrongHandlersAreRefused(t *testing.T) {
	t.Parallel()
	store := suite.Embedded(t, 1)
	peer, err := dianemo.NewPeer(store, dianemo.Config{Logger: suite.Quiet})
	require.NoError(t, err)
	kind := func(name string, aliases ...string) dianemo.Kind[suite.Args] {
		return dianemo.NewKind[suite.Args](name, dianemo.Policy{}).Aliases(aliases...)
	}
	raw := func(context.Context, *dianemo.Job[json.RawMessage]) error { return nil }
	require.NoError(t, kind("a", "b").Handle(peer, suite.Returns(nil)))
	for name, err := range map[string]error{
		"an alias that has a handler":  kind("c", "a").Handle(peer, suite.Returns(nil)),
		"an alias that has an alias":   kind("c", "b").Handle(peer, suite.Returns(nil)),
		"a kind that is an alias":      kind("b").Handle(peer, suite.Returns(nil)),
		"an alias of the kind's name":  kind("c", "c").Handle(peer, suite.Returns(nil)),
		"an alias twice":               kind("c", "d", "d").Handle(peer, suite.Returns(nil)),
		"a bad alias":                  kind("c", "d", "e:f").Handle(peer, suite.Returns(nil)),
		"a raw kind that has one":      peer.HandleRaw("b", dianemo.Policy{}, raw),
		"a raw kind of a bad name":     peer.HandleRaw("", dianemo.Policy{}, raw),
		"a raw kind of a bad policy":   peer.HandleRaw("c", dianemo.Policy{Priority: 10}, raw),
		"a raw kind without a handler": peer.HandleRaw("c", dianemo.Policy{}, nil),
		"a raw kind without a peer":    (*dianemo.Peer)(nil).HandleRaw("c", dianemo.Policy{}, raw),
	} {
		var field *dianemo.FieldError
		require.ErrorAs(t, err, &field, name)
	}
	require.NoError(t, kind("c", "d").Handle(peer, suite.Returns(nil)), "nothing of what was refused is left")

	unwrapped, err := dianemo.NewPeer(store, dianemo.Config{Wrap: func(dianemo.Handler) dianemo.Handler { return nil }})
	require.NoError(t, err)
	require.ErrorIs(t, kind("a").Handle(unwrapped, suite.Returns(nil)), dianemo.ErrInvalid)
	_, err = dianemo.NewPeer(store, dianemo.Config{WrapEnqueue: func(dianemo.EnqueueFunc) dianemo.EnqueueFunc { return nil }})
	require.ErrorIs(t, err, dianemo.ErrInvalid)
	_, err = dianemo.ResultOf[int](nil)
	require.ErrorIs(t, err, dianemo.ErrInvalid)
	_, err = dianemo.ResultOf[int](&dianemo.JobInfo{})
	require.ErrorIs(t, err, dianemo.ErrNotFound)
	n, err := dianemo.ResultOf[struct{ A, B int }](&dianemo.JobInfo{Result: []byte(`{"A":1,"B":"x"}`)})
	require.Error(t, err)
	require.Zero(t, n, "nothing half decoded")
}

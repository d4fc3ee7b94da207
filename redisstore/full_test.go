package redisstore_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/redisstore"
)

// fills is a store on a server of its own. Once it is armed, the next call of this script is carried
// out, its reply is lost, the server becomes full, and the client library sends it again.
func fills(t *testing.T, script string) (f *fixture, armed *atomic.Bool) {
	own := redistest.Start(t, "--maxmemory-policy", "noeviction")
	admin, client := own.Client(t), own.Client(t)
	armed = &atomic.Bool{}
	var store *redisstore.Store
	client.AddHook(scriptHook(func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
		sha, _ := cmd.Args()[1].(string)
		if store.ScriptName(sha) == script && armed.CompareAndSwap(true, false) {
			if err := next(ctx, redis.NewCmd(ctx, cmd.Args()...)); err != nil {
				return err
			}
			if err := admin.ConfigSet(ctx, "maxmemory", "1").Err(); err != nil {
				return err
			}
		}
		return next(ctx, cmd)
	}))
	store = redisstore.New(client, redisstore.Options{Namespace: "full"})
	require.NoError(t, store.Open(t.Context()))
	return &fixture{Store: store, t: t, rdb: admin, namespace: "full"}, armed
}

func TestAnEnqueueThatWasCarriedOutIsNotRefusedWhenItIsSentAgainToAFullStore(t *testing.T) {
	t.Parallel()
	f, armed := fills(t, "enqueue")
	f.enqueue(record("first", lane("kind"))) // the script is known
	armed.Store(true)
	f.enqueue(record("job", lane("kind")), record("other", lane("kind")))
	require.Equal(t, dianemo.Queued, f.state("job"))

	_, err := f.Enqueue(t.Context(), 0, f.call("producer"), []dianemo.Record{record("late", lane("kind"))})
	require.ErrorIs(t, err, dianemo.ErrStoreFull)
	require.ErrorContains(t, err, "OOM")
	require.Empty(t, f.state("late"))
}

func TestAnEnqueueThatAFullStoreRefusedStaysRefusedIfItComesOnceMore(t *testing.T) {
	t.Parallel()
	f, _ := fills(t, "enqueue")
	f.enqueue(record("first", lane("kind")))
	require.NoError(t, f.rdb.ConfigSet(t.Context(), "maxmemory", "1").Err())
	call, late := f.call("producer"), []dianemo.Record{record("late", lane("kind"))}
	_, err := f.Enqueue(t.Context(), 0, call, late)
	require.ErrorIs(t, err, dianemo.ErrStoreFull)
	require.NoError(t, f.rdb.ConfigSet(t.Context(), "maxmemory", "0").Err())
	_, err = f.Enqueue(t.Context(), 0, call, late)
	require.ErrorIs(t, err, dianemo.ErrStoreFull, "a sending that was on its way")
	require.Empty(t, f.state("late"))
	f.enqueue(late...)
	require.Equal(t, dianemo.Queued, f.state("late"))
}

func TestAnOccurrenceThatWasMadeIsNotRefusedWhenItIsSentAgainToAFullStore(t *testing.T) {
	t.Parallel()
	f, armed := fills(t, "fire")
	client, err := dianemo.NewClient(f.Store, dianemo.ClientConfig{})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	rule, err := dianemo.Interval(time.Hour)
	require.NoError(t, err)
	kind := dianemo.NewKind[struct{}]("kind", dianemo.Policy{})
	require.NoError(t, client.PutSchedule(t.Context(), dianemo.Schedule{Name: "hourly", Rule: rule, Job: kind.New(struct{}{})}))
	_, err = client.TriggerSchedule(t.Context(), "hourly") // the scripts are known
	require.NoError(t, err)
	var clock time.Time
	f.waitMillis(&clock, 2) // so that its id is another one
	armed.Store(true)
	id, err := client.TriggerSchedule(t.Context(), "hourly")
	require.NoError(t, err)
	require.Equal(t, dianemo.Queued, f.state(id))
	_, err = client.TriggerSchedule(t.Context(), "hourly")
	require.ErrorIs(t, err, dianemo.ErrStoreFull)
}

func TestAScheduleThatWasPutIsNotRefusedWhenItIsSentAgainToAFullStore(t *testing.T) {
	t.Parallel()
	f, armed := fills(t, "schedule")
	client, err := dianemo.NewClient(f.Store, dianemo.ClientConfig{})
	require.NoError(t, err)
	t.Cleanup(client.Close)
	rule, err := dianemo.Interval(time.Hour)
	require.NoError(t, err)
	put := func(name string) error {
		kind := dianemo.NewKind[struct{}]("kind", dianemo.Policy{})
		return client.PutSchedule(t.Context(), dianemo.Schedule{Name: name, Rule: rule, Job: kind.New(struct{}{})})
	}
	require.NoError(t, put("first")) // the script is known
	armed.Store(true)
	require.NoError(t, put("hourly"))
	_, err = client.GetSchedule(t.Context(), "hourly")
	require.NoError(t, err)
	require.ErrorIs(t, put("late"), dianemo.ErrStoreFull)
	_, err = client.GetSchedule(t.Context(), "late")
	require.ErrorIs(t, err, dianemo.ErrNoSchedule)
}

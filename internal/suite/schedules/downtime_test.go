package schedules_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

// Nobody was up for six hours, and for two weeks, as an hourly schedule of each policy
// finds it. The clock is the embedded store's.
func TestADowntimeUnderEachPolicy(t *testing.T) {
	t.Parallel()
	midnight := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	for _, row := range []struct {
		policy dianemo.MissedPolicy
		grace  time.Duration
		down   time.Duration
		// How many occurrences are run, recorded as missed, and only counted.
		run, missed, unrecorded int
	}{
		{dianemo.MissedLatest, 0, 6 * time.Hour, 1, 5, 0},
		{dianemo.MissedLatest, 5 * time.Minute, 6 * time.Hour, 0, 6, 0},
		{dianemo.MissedSkip, 0, 6 * time.Hour, 0, 6, 0},
		{dianemo.MissedAll, 0, 6 * time.Hour, 6, 0, 0},
		{dianemo.MissedAll, 150 * time.Minute, 6 * time.Hour, 3, 3, 0},
		{dianemo.MissedLatest, 0, 14 * 24 * time.Hour, 1, 20, 315},
		{dianemo.MissedSkip, 0, 14 * 24 * time.Hour, 0, 20, 316},
		{dianemo.MissedAll, dianemo.Unlimited, 14 * 24 * time.Hour, 100, 20, 216},
		{dianemo.MissedAll, 0, 14 * 24 * time.Hour, 24, 20, 292},
	} {
		suite.RunVirtual(t, fmt.Sprintf("%s, grace %v, %v", row.policy, row.grace, row.down), func(t *testing.T) {
			store := suite.Embedded(t, 1)
			store.SetTime(midnight)
			c := suite.Client(t, store)
			kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{Grace: row.grace})
			suite.Put(t, c, dianemo.Schedule{Name: "s", Rule: suite.Every(t, time.Hour), Job: kind.New(suite.Args{}), Missed: row.policy})
			up := midnight.Add(row.down + 10*time.Minute)
			store.SetTime(up)

			fired, ran := make(chan dianemo.FireInfo, 1000), make(chan dianemo.Job[suite.Args], 1000)
			config := suite.Quick
			config.Hooks = &dianemo.Hooks{Fire: func(i dianemo.FireInfo) { fired <- i }}
			peer := suite.Start(t, store, config, func(p *dianemo.Peer) { suite.Handle(t, p, "kind", dianemo.Policy{}, suite.Sees(ran)) })
			last := up.Truncate(time.Hour)
			states := map[time.Time]dianemo.State{}
			for range row.run + row.missed {
				event := suite.Receive(t, fired)
				require.Empty(t, states[event.At], "%v is fired twice", event.At)
				states[event.At] = event.State
			}
			for i := range row.run {
				require.Equal(t, dianemo.Scheduled, states[last.Add(-time.Duration(i)*time.Hour)])
				suite.Receive(t, ran)
			}
			for i := range row.missed {
				at := last.Add(-time.Duration(row.run+i) * time.Hour)
				job := suite.Get(t, c, dianemo.OccurrenceID("s", at))
				require.Equal(t, dianemo.Missed, job.State)
				require.Equal(t, "late", job.Reason)
				require.Equal(t, at, job.ScheduledFor)
			}
			info, err := c.GetSchedule(t.Context(), "s")
			require.NoError(t, err)
			require.EqualValues(t, row.unrecorded, info.Unrecorded.Count)
			require.True(t, info.Decided.Equal(last))
			require.True(t, info.Next.Equal(last.Add(time.Hour)))

			// What was missed can be run after all, and what has no record can be made.
			if row.missed > 0 {
				id := dianemo.OccurrenceID("s", last.Add(-time.Duration(row.run)*time.Hour))
				require.NoError(t, c.Requeue(t.Context(), id))
				require.Equal(t, id, suite.Receive(t, ran).ID)
			}
			if u := info.Unrecorded; u.Count > 0 {
				require.True(t, u.First.Equal(midnight.Add(time.Hour)))
				done, err := c.Backfill(t.Context(), "s", dianemo.Backfill{From: u.First, To: u.Last.Add(1), Max: 1000})
				require.NoError(t, err)
				require.Len(t, done.IDs, row.unrecorded)
				for range row.unrecorded {
					suite.Receive(t, ran)
				}
			}
			require.NoError(t, peer.Stop())
			require.Empty(t, ran)
		})
	}
}

// A restored backup: the cursor and the jobs are those of an hour ago.
func TestAfterARestoredBackupLaterOccurrencesFollowTheMissedPolicy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := suite.Embedded(t, 1)
		midnight := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
		store.SetTime(midnight)
		c := suite.Client(t, store)
		kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
		suite.Put(t, c, dianemo.Schedule{Name: "s", Rule: suite.Every(t, 10*time.Minute), Job: kind.New(suite.Args{})})
		ctx, rdb := t.Context(), store.Client()
		backup := map[string]string{}
		for _, key := range []string{"schedules", "cursors"} {
			backup[key] = rdb.HGet(ctx, "{dianemo:0}:"+key, "s").Val()
		}
		fires := rdb.ZScore(ctx, "{dianemo:0}:fires", "s").Val()

		config, fired := suite.Quick, make(chan dianemo.FireInfo, 100)
		config.Hooks = &dianemo.Hooks{Fire: func(i dianemo.FireInfo) { fired <- i }}
		peer := suite.Start(t, store, config, func(p *dianemo.Peer) { suite.Handle(t, p, "kind", dianemo.Policy{}, suite.Returns(nil)) })
		for i := 1; i <= 6; i++ {
			store.SetTime(midnight.Add(time.Duration(i) * 10 * time.Minute))
			require.Equal(t, dianemo.Scheduled, suite.Receive(t, fired).State)
			peer.Next()
		}
		require.NoError(t, peer.Stop())
		for key, value := range backup {
			require.NoError(t, rdb.HSet(ctx, "{dianemo:0}:"+key, "s", value).Err())
		}
		for _, id := range []string{"s@20260302T005000Z", "s@20260302T010000Z"} { // younger than the backup
			require.NoError(t, rdb.HDel(ctx, "{dianemo:0}:spec", id).Err())
			require.NoError(t, rdb.HDel(ctx, "{dianemo:0}:meta", id).Err())
			require.NoError(t, rdb.ZRem(ctx, "{dianemo:0}:done:succeeded:kind", id).Err())
		}
		require.NoError(t, rdb.ZAddArgs(ctx, "{dianemo:0}:fires", zscore("s", fires)).Err())
		suite.Start(t, store, config, func(p *dianemo.Peer) { suite.Handle(t, p, "kind", dianemo.Policy{}, suite.Returns(nil)) })
		again := map[string]dianemo.State{}
		for range 2 { // the others have their jobs still
			event := suite.Receive(t, fired)
			again[event.ID] = event.State
		}
		require.Equal(t, map[string]dianemo.State{"s@20260302T005000Z": dianemo.Missed, "s@20260302T010000Z": dianemo.Scheduled}, again)
	})
}

func TestAnOccurrenceWaitsForTheOneBeforeAndFollowsAtOnce_Long(t *testing.T) {
	t.Parallel()
	suite.EachOnTime(t, func(t *testing.T, store dianemo.Store) {
		ran, goOn := make(chan dianemo.Job[suite.Args], 100), make(chan struct{})
		var kind dianemo.Kind[suite.Args]
		suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
				ran <- *job
				<-goOn
				return nil
			})
		})
		c := suite.Client(t, store)
		suite.Put(t, c, dianemo.Schedule{Name: "s", Rule: suite.Every(t, time.Second), Job: kind.New(suite.Args{}), Overlap: dianemo.OverlapWait})
		first := suite.Receive(t, ran)
		require.Eventually(t, func() bool { // the next one is due, and waits
			info, err := c.GetSchedule(t.Context(), "s")
			return err == nil && time.Since(info.Next) > 1200*time.Millisecond && info.Last == first.ID
		}, suite.Patience, 10*time.Millisecond)
		require.Empty(t, ran)
		goOn <- struct{}{}
		second := suite.Receive(t, ran)
		require.Equal(t, first.ScheduledFor.Add(time.Second), second.ScheduledFor)
		close(goOn)
		require.Equal(t, second.ScheduledFor.Add(time.Second), suite.Receive(t, ran).ScheduledFor)
	})
}

func TestAnOccurrenceAfterTheFinishOfTheLast_Long(t *testing.T) {
	t.Parallel()
	suite.EachOnTime(t, func(t *testing.T, store dianemo.Store) {
		ran, goOn := make(chan dianemo.Job[suite.Args], 100), make(chan struct{})
		var kind dianemo.Kind[suite.Args]
		peer := suite.Start(t, store, dianemo.Config{}, func(p *dianemo.Peer) {
			kind = suite.Handle(t, p, "kind", dianemo.Policy{}, func(ctx context.Context, job *dianemo.Job[suite.Args]) error {
				ran <- *job
				<-goOn
				return nil
			})
		})
		rule, err := dianemo.AfterFinish(time.Second)
		require.NoError(t, err)
		c := suite.Client(t, store)
		suite.Put(t, c, dianemo.Schedule{Name: "s", Rule: rule, Job: kind.New(suite.Args{})})
		first := suite.Receive(t, ran)
		goOn <- struct{}{}
		peer.Next()
		second := suite.Receive(t, ran)
		ended := suite.Get(t, c, first.ID).EndedAt
		require.True(t, second.ScheduledFor.Equal(ended.Add(time.Second)), "%v after %v", second.ScheduledFor, ended)
		info, err := c.GetSchedule(t.Context(), "s")
		require.NoError(t, err)
		require.Equal(t, dianemo.Active, info.State)
		require.Zero(t, info.Next)
		close(goOn)
	})
}

func zscore(member string, score float64) redis.ZAddArgs {
	return redis.ZAddArgs{Members: []redis.Z{{Score: score, Member: member}}}
}

// It comes back with one run, and no flood of records.
func TestAfterFinishComesBackAfterADowntime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, row := range []struct {
			policy dianemo.Policy
			after  time.Duration
			down   time.Duration
		}{
			{dianemo.Policy{Priority: 1}, time.Second, 5 * time.Minute},
			{dianemo.Policy{}, 10 * time.Second, 48 * time.Hour},
		} {
			store := suite.Embedded(t, 1)
			noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
			store.SetTime(noon)
			c := suite.Client(t, store)
			rule, err := dianemo.AfterFinish(row.after)
			require.NoError(t, err)
			suite.Put(t, c, dianemo.Schedule{Name: "s", Rule: rule, Job: dianemo.NewKind[suite.Args]("kind", row.policy).New(suite.Args{})})
			store.SetTime(noon.Add(row.down))
			fired, ran := make(chan dianemo.FireInfo, 1000), make(chan dianemo.Job[suite.Args], 100)
			config := suite.Quick
			config.Hooks = &dianemo.Hooks{Fire: func(i dianemo.FireInfo) { fired <- i }}
			suite.Start(t, store, config, func(p *dianemo.Peer) { suite.Handle(t, p, "kind", row.policy, suite.Sees(ran)) })
			require.Equal(t, dianemo.Missed, suite.Receive(t, fired).State)
			store.SetTime(noon.Add(row.down + row.after))
			require.Equal(t, dianemo.Scheduled, suite.Receive(t, fired).State)
			suite.Receive(t, ran)
			require.Empty(t, fired)
		}
	})
}

func TestWhatWasDueBeforeAPauseIsRecordedAsMissed(t *testing.T) {
	t.Parallel()
	store := suite.Embedded(t, 1)
	noon := time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)
	store.SetTime(noon)
	c := suite.Client(t, store)
	suite.Put(t, c, dianemo.Schedule{Name: "s", Rule: suite.Every(t, time.Hour), Job: dianemo.NewKind[suite.Args]("kind", dianemo.Policy{}).New(suite.Args{})})
	store.SetTime(noon.Add(6*time.Hour + 10*time.Minute))
	require.NoError(t, c.PauseSchedule(t.Context(), "s"))
	store.SetTime(noon.Add(8*time.Hour + 10*time.Minute))
	require.NoError(t, c.ResumeSchedule(t.Context(), "s"))
	page, err := c.List(t.Context(), dianemo.Filter{})
	require.NoError(t, err)
	require.Len(t, page.Jobs, 6)
	for _, job := range page.Jobs {
		require.Equal(t, dianemo.Missed, job.State)
	}
	info, err := c.GetSchedule(t.Context(), "s")
	require.NoError(t, err)
	require.True(t, info.Next.Equal(noon.Add(9*time.Hour)))
}

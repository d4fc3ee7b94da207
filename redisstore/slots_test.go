package redisstore_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

func keyed(id string, until dianemo.UniqueUntil, lasts time.Duration) dianemo.Record {
	r := record(id, lane("kind"))
	r.Unique = dianemo.Unique{Key: "u", Until: until, For: lasts}
	return r
}

func TestRepairGivesALivingJobItsUniqueSlotAgain_Long(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(f *fixture, key string) error{
		"deleted": func(f *fixture, key string) error { return f.rdb.Del(f.t.Context(), key).Err() },
		"of another type": func(f *fixture, key string) error {
			f.rdb.Del(f.t.Context(), key)
			return f.rdb.Set(f.t.Context(), key, "x", 0).Err()
		},
		"garbage": func(f *fixture, key string) error { return f.rdb.HSet(f.t.Context(), key, "kind:u", "x").Err() },
		"of a job that is gone": func(f *fixture, key string) error {
			return f.rdb.HSet(f.t.Context(), key, "kind:u", all+"gone|f|0|0").Err()
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, state := range []string{"waits", "runs", "for an hour", "until started"} {
				t.Run(state, func(t *testing.T) {
					t.Parallel()
					each(t, func(t *testing.T, f *fixture) {
						until, lasts := dianemo.UntilFinished, time.Duration(0)
						if state == "for an hour" {
							lasts = time.Hour
						} else if state == "until started" {
							until = dianemo.UntilStarted
						}
						f.enqueue(keyed(all+"first", until, lasts))
						want := dianemo.Queued
						if state == "runs" {
							require.Len(t, f.claim(f.Partition(all), owner, claimLane(lane("kind"))).Jobs, 1)
							want = dianemo.Running
						}
						require.NoError(t, damage(f, f.key(all, "unique")))
						require.Contains(t, fmt.Sprint(f.repair(f.Partition(all))), "holds it again")
						f.sound(f.Partition(all))
						require.Equal(t, want, f.state(all+"first"))
						reply := f.enqueue(keyed(all+"second", until, lasts))
						require.Equal(t, map[int]string{0: all + "first"}, reply.Holders)
					})
				})
			}
		})
	}
}

func TestRepairGivesNoSlotToAJobThatDoesNotHoldItAnyMore_Long(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"started", "its time is over", "ended"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, f *fixture) {
				until, lasts := dianemo.UntilFinished, time.Duration(0)
				switch state {
				case "started":
					until = dianemo.UntilStarted
				case "its time is over":
					lasts = time.Millisecond
				}
				f.enqueue(keyed(all+"first", until, lasts))
				if state != "its time is over" {
					jobs := f.claim(f.Partition(all), owner, claimLane(lane("kind"))).Jobs
					require.Len(t, jobs, 1)
					if state == "ended" {
						f.settle(f.Partition(all), owner, dianemo.Settlement{ID: jobs[0].ID, Lane: lane("kind"), Epoch: jobs[0].Epoch, Outcome: dianemo.Succeed})
					}
				}
				var clock time.Time
				f.waitMillis(&clock, 2)
				require.NoError(t, f.rdb.Del(t.Context(), f.key(all, "unique")).Err())
				f.sound(f.Partition(all))
				require.Empty(t, f.enqueue(keyed(all+"second", until, 0)).Holders)
				f.sound(f.Partition(all))
			})
		})
	}
}

func TestRepairRemovesTheSlotOfAJobThatIsGone_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		f.enqueue(keyed(all+"first", dianemo.UntilFinished, 0))
		require.NoError(t, f.rdb.HSet(t.Context(), f.key(all, "unique"), "kind:v", all+"gone|f|0|0").Err())
		require.Contains(t, fmt.Sprint(f.repair(f.Partition(all))), "the slot is removed")
		require.Equal(t, []string{"kind:u"}, f.rdb.HKeys(t.Context(), f.key(all, "unique")).Val())
		f.sound(f.Partition(all))
	})
}

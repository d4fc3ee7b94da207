package redisstore_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// What no program writes into a record, by the fields' places: see splitRecord.
func spoiled(record string) map[string]string {
	numbers := []string{"nan", "inf", "1e400", "0x10", "99999999999999999999", "x", "1.5", "-", " 1", "+1"}
	values := map[int][]string{1: {"", "x"}, 3: numbers, 4: append(numbers, "", "-1"),
		6: {"", "x", "kind:2:86400000", "kind:77:1:0", "kind:0:1:0", "kind:2:-2:0", "kind:2:01:0", "kind:2:1:99999999", "k d:2:1:0", "kind:2:99999999999999999:0", ":2:1:0"},
		7: append(numbers, ""), 8: numbers, 9: append(numbers, "", "-1"), 10: append(numbers, "", "-1"), 11: append(numbers, "", "-1"),
		12: append(numbers, "-1"), 13: append(numbers, "-1"), 14: append(numbers, "-1")}
	names := strings.Fields("version state reason ended epoch peer lane due started fails reruns runs max_reruns weight size unique tail")
	all := map[string]string{}
	for field, bad := range values {
		for _, value := range bad {
			parts := splitRecord(record)
			parts[field] = value
			all[names[field]+"="+value] = strings.Join(parts, "|")
		}
	}
	return all
}

func (f *fixture) spoil(id string, record string) {
	f.t.Helper()
	require.NoError(f.t, f.rdb.HSet(f.t.Context(), f.key(id, "meta"), id, record).Err())
}

func (f *fixture) record(id string) string {
	f.t.Helper()
	record, err := f.rdb.HGet(f.t.Context(), f.key(id, "meta"), id).Result()
	require.NoError(f.t, err)
	return record
}

func TestAJobThatWaitsWithASpoiledRecordIsClaimedAsCorruptAndNothingElseSuffers_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		partition := f.Partition(all)
		heavy := record(all+"0", lane("kind"))
		heavy.Weight = 1 // so it has a record
		f.enqueue(heavy)
		bad := spoiled(f.record(all + "0"))
		what := map[string]string{}
		for name, spoilt := range bad {
			if name == "state=x" || name == "state=" {
				continue
			}
			r := heavy
			r.ID = all + name
			r.ID = strings.NewReplacer("=", "@", ":", "_", " ", "_").Replace(r.ID)
			require.NotContains(t, what, r.ID)
			what[r.ID] = name
			f.enqueue(r)
			f.spoil(r.ID, spoilt)
		}
		corrupt := 0
		for {
			jobs := f.claim(partition, owner, claimLane(lane("kind"))).Jobs
			if len(jobs) == 0 {
				break
			}
			for _, job := range jobs {
				require.Equal(t, what[job.ID] != "", job.Corrupt != "", what[job.ID])
				require.Empty(t, f.settle(partition, owner, dianemo.Settlement{ID: job.ID, Lane: lane("kind"), Epoch: job.Epoch, Outcome: dianemo.FailRun, Reason: "corrupt"}), what[job.ID])
				if what[job.ID] != "" {
					corrupt++
				}
			}
		}
		require.Equal(t, len(what), corrupt)
		f.sound(partition)
	})
}

func TestRepairMendsASpoiledRecordWhereverItsJobIs_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		p := f.populate()
		for _, name := range []string{"retrying", "heavy", "running", "failed"} {
			for field, spoilt := range spoiled(f.record(all + name)) {
				if !slices.Contains([]string{"state=x", "epoch=nan", "lane=kind:77:1:0", "due=0x10", "runs=inf", "weight=x"}, field) {
					continue // each costs two walks
				}
				f.spoil(all+name, spoilt)
				job, err := f.Get(t.Context(), all+name)
				require.Error(t, err, "%s %s: %v", name, field, job)
				require.NotEmpty(t, f.repair(p.partition), "%s %s", name, field)
				f.sound(p.partition)
				want := map[string]dianemo.State{"retrying": dianemo.Failed, "heavy": dianemo.Failed, "running": dianemo.Running, "failed": dianemo.Failed}[name]
				require.Equal(t, want, f.state(all+name), "%s %s", name, field)
				if name == "retrying" || name == "heavy" {
					// It waits again, for the next field.
					require.NoError(t, f.requeue(all+name).Err)
				}
			}
		}
	})
}

func TestASpoiledRecordOfASilentPeersRunIsReaped_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		partition := f.Partition(all)
		fields := []string{"epoch=nan", "fails=inf", "runs=1e400", "weight=x", "lane=x", "due=", "state=x"}
		for i, field := range fields {
			id := all + string(rune('a'+i))
			f.enqueue(record(id, lane("kind")))
			require.Len(t, f.claim(partition, owner, claimLane(lane("kind"))).Jobs, 1)
			f.spoil(id, spoiled(f.record(id))[field])
		}
		require.Len(t, f.reap(partition), len(fields))
		for i, field := range fields {
			require.Equal(t, dianemo.Unreachable, f.state(all+string(rune('a'+i))), field)
		}
		f.sound(partition)
	})
}

func TestAWishAboutASpoiledRecordSaysCorruptAtOnce_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		r := record("job", lane("kind"))
		r.Weight, r.Delay = 1, time.Hour
		f.enqueue(r)
		for name, spoilt := range spoiled(f.record("job")) {
			f.spoil("job", spoilt)
			for _, job := range []dianemo.Wished{f.cancel("job"), f.requeue("job"), f.reschedule("job", dianemo.Change{Priority: 1})} {
				require.ErrorContains(t, job.Err, "corrupt", name)
				require.NotErrorIs(t, job.Err, dianemo.ErrMoved, name)
			}
		}
	})
}

func TestWhatAWishOrACensusReadsOfAnotherTypeIsMovedOutOfTheWay_Long(t *testing.T) {
	t.Parallel()
	unique := record("job", lane("kind"))
	unique.Unique = dianemo.Unique{Key: "u", Replace: true}
	for name, read := range map[string]func(f *fixture) error{
		"meta": func(f *fixture) error {
			_, err := f.Cancel(f.t.Context(), f.Partition("job"), f.call("operator"), []string{"job"})
			return err
		},
		"spec": func(f *fixture) error {
			_, err := f.Cancel(f.t.Context(), f.Partition("job"), f.call("operator"), []string{"job"})
			return err
		},
		"unique": func(f *fixture) error {
			_, err := f.Enqueue(f.t.Context(), f.Partition("job"), f.call("producer"), []dianemo.Record{unique})
			return err
		},
		"run:" + owner: func(f *fixture) error {
			_, err := f.Held(f.t.Context(), f.Partition("job"), owner)
			return err
		},
		"run:reaped": func(f *fixture) error {
			_, err := f.Reap(f.t.Context(), f.Partition("job"), f.call("leader"), "reaped", dianemo.Chore{Term: 1, Limit: 100})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, f *fixture) {
				require.NoError(t, f.rdb.Set(t.Context(), f.key("job", name), "x", 0).Err())
				var broken *dianemo.BrokenError
				require.ErrorAs(t, read(f), &broken)
				require.NotEmpty(t, broken.Found)
				require.NoError(t, read(f))
			})
		})
	}
}

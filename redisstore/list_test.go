package redisstore_test

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/redisstore"
)

// onRedis runs a test on a real Redis, undisturbed, with 1 and 8 partitions.
func onRedis(t *testing.T, test func(t *testing.T, f *fixture)) {
	for _, partitions := range []int{1, 8} {
		t.Run(fmt.Sprint(partitions), func(t *testing.T) {
			t.Parallel()
			options := redisstore.Options{Namespace: fmt.Sprintf("test-%d", namespaces.Add(1)), Partitions: partitions}
			store := redisstore.New(server.Client(t), options)
			require.NoError(t, store.Open(t.Context()))
			test(t, &fixture{Store: store, t: t, rdb: server.Client(t), namespace: options.Namespace})
		})
	}
}

// pages reads a list to its end, and returns all jobs and how many pages there
// were.
func (f *fixture) pages(filter dianemo.Filter, between func(page []dianemo.StoredJob)) ([]dianemo.StoredJob, int) {
	f.t.Helper()
	var all []dianemo.StoredJob
	listing := dianemo.Listing{Filter: filter}
	for n := 1; ; n++ {
		reply, err := f.List(f.t.Context(), listing)
		require.NoError(f.t, err)
		require.LessOrEqual(f.t, len(reply.Jobs), filter.Limit)
		all = append(all, reply.Jobs...)
		if reply.Next == (dianemo.Place{}) {
			return all, n
		}
		require.NotEqual(f.t, listing.After, reply.Next, "it does not get on")
		listing.After = reply.Next
		if between != nil {
			between(reply.Jobs)
		}
		require.Less(f.t, n, 100_000)
	}
}

// scatter enqueues one job each, in whatever partition its id says.
func (f *fixture) scatter(records ...dianemo.Record) {
	f.t.Helper()
	by := map[int][]dianemo.Record{}
	for _, r := range records {
		p := f.Partition(r.ID)
		if by[p] = append(by[p], r); len(by[p]) == dianemo.MaxCallJobs {
			f.enqueue(by[p]...)
			by[p] = nil
		}
	}
	for _, rest := range by {
		if len(rest) > 0 {
			f.enqueue(rest...)
		}
	}
}

// timeOf is a job's time in the order of lists.
func timeOf(info *dianemo.JobInfo) time.Time {
	switch {
	case info.State == dianemo.Running:
		return time.UnixMicro(info.Epoch)
	case info.State.Finished():
		return info.EndedAt
	}
	return info.Due
}

func compareJobs(a, b *dianemo.JobInfo) int {
	return cmp.Or(timeOf(a).Compare(timeOf(b)), cmp.Compare(a.ID, b.ID))
}

// Lists of all sorts against a model: what Get says of each job, filtered and
// sorted.
func TestAListHasWhatTheFilterSaysInOrder_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		var ids []string
		var records []dianemo.Record
		var lanes []dianemo.ClaimLane
		kinds := []string{"apple", "pear", "plum"}
		at := time.Now().Add(-time.Hour).Truncate(time.Second)
		for i := range 90 {
			l := dianemo.Lane{Kind: kinds[i%3], Priority: 1 + i%2, Grace: dianemo.Unlimited}
			if c := claimLane(l); !slices.Contains(lanes, c) {
				lanes = append(lanes, c)
			}
			r := record(fmt.Sprintf("job-%02d", i), l)
			r.RunAt = at.Add(time.Duration(i/8) * time.Millisecond) // several of the same time
			if i%5 == 0 {
				r.RunAt = at.Add(24 * time.Hour)
			}
			ids, records = append(ids, r.ID), append(records, r)
		}
		f.scatter(records...)
		// A third of each partition's jobs is run, with all sorts of ends.
		for p := range f.Partitions() {
			reply, err := f.Turn(t.Context(), p, f.call(owner), nil, dianemo.Claim{Limit: max(30/f.Partitions(), 5), Room: roomFor(1000), Lanes: lanes, BeatEvery: 5 * time.Second})
			require.NoError(t, err)
			for i, outcome := range []dianemo.Outcome{dianemo.Succeed, dianemo.FailRun, dianemo.Retry, dianemo.Succeed} {
				if i < len(reply.Jobs) {
					job := reply.Jobs[i]
					require.Empty(t, f.settle(p, owner, dianemo.Settlement{ID: job.ID, Lane: job.Lane, Epoch: job.Epoch, Outcome: outcome, In: time.Hour}))
				}
			}
		}
		var model []*dianemo.JobInfo
		states := map[dianemo.State]int{}
		for _, id := range ids {
			job, err := f.Get(t.Context(), id)
			require.NoError(t, err)
			job.Info.History = nil
			model = append(model, &job.Info)
			states[job.Info.State]++
		}
		slices.SortFunc(model, compareJobs)
		require.Len(t, states, 6, "each of the states that can be reached is there")

		rng := rand.New(rand.NewPCG(1, 2))
		some := func() time.Time { return timeOf(model[rng.IntN(len(model))]) }
		filters := []dianemo.Filter{{}, {Newest: true}, {Priority: 1}, {Kinds: []string{"pear"}}, {Kinds: []string{"none"}},
			{States: []dianemo.State{dianemo.Queued}}, {States: []dianemo.State{dianemo.Scheduled}}, {States: []dianemo.State{dianemo.Retrying}},
			{States: []dianemo.State{dianemo.Running}}, {States: []dianemo.State{dianemo.Succeeded}, Newest: true},
			{States: []dianemo.State{dianemo.Blocked, dianemo.Cancelled}}}
		for range 15 {
			filter := dianemo.Filter{Newest: rng.IntN(2) == 0, Priority: rng.IntN(3)}
			for state := range states {
				if rng.IntN(2) == 0 {
					filter.States = append(filter.States, state)
				}
			}
			if rng.IntN(2) == 0 {
				filter.Kinds = kinds[:2]
			}
			if rng.IntN(2) == 0 {
				filter.From = some()
			}
			if rng.IntN(2) == 0 {
				if filter.To = some(); !filter.From.Before(filter.To) {
					filter.From = time.Time{}
				}
			}
			filters = append(filters, filter)
		}
		for _, filter := range filters {
			want := []string{}
			for _, info := range model {
				if (len(filter.States) == 0 || slices.Contains(filter.States, info.State)) &&
					(len(filter.Kinds) == 0 || slices.Contains(filter.Kinds, info.Kind)) &&
					(filter.Priority == 0 || filter.Priority == info.Priority) &&
					!timeOf(info).Before(filter.From) && (filter.To.IsZero() || timeOf(info).Before(filter.To)) {
					want = append(want, info.ID)
				}
			}
			if filter.Newest {
				slices.Reverse(want)
			}
			filter.Limit = 1 + rng.IntN(40)
			got := []string{}
			jobs, _ := f.pages(filter, nil)
			for i := range jobs {
				got = append(got, jobs[i].Info.ID)
				at := slices.IndexFunc(model, func(info *dianemo.JobInfo) bool { return info.ID == jobs[i].Info.ID })
				require.Equal(t, *model[at], jobs[i].Info, "as Get has it, but for its history")
				require.NotEmpty(t, jobs[i].Spec)
			}
			require.Equal(t, want, got, "%+v", filter)
		}
	})
}

// Keyset paging where the time alone tells nothing: page after page, while those
// at which the pages ended go away.
func TestThousandsOfJobsOfOneMillisecondArePagedRight_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		const n = 3000
		l := lane("kind")
		at := time.Now().Add(time.Hour).Truncate(time.Millisecond)
		want := make([]string, n)
		records := make([]dianemo.Record, n)
		for i := range n {
			want[i] = fmt.Sprintf("job-%c%d", "-/Az"[i%4], i) // orders of bytes and of locales differ
			records[i] = record(want[i], l)
			records[i].RunAt = at
		}
		f.scatter(records...)
		slices.Sort(want)
		for _, newest := range []bool{false, true} {
			var got []string
			gone := map[string]bool{}
			jobs, pages := f.pages(dianemo.Filter{Limit: 400, Newest: newest}, func(page []dianemo.StoredJob) {
				last := page[len(page)-1].Info.ID
				gone[last] = true
				require.NoError(t, f.rdb.ZRem(t.Context(), f.key(last, "lane:kind:2:-1:0:new"), last).Err())
			})
			for i := range jobs {
				got = append(got, jobs[i].Info.ID)
			}
			if newest {
				slices.Reverse(got)
			}
			require.Equal(t, want, got)
			require.LessOrEqual(t, pages, n/400+1)
			want = slices.DeleteFunc(want, func(id string) bool { return gone[id] })
		}
	})
}

// Jobs that stay are listed exactly once, and none twice in one index, whatever
// comes and goes around them.
func TestPagesAreStableUnderChange(t *testing.T) {
	t.Parallel()
	onRedis(t, func(t *testing.T, f *fixture) {
		var stay []string
		var records []dianemo.Record
		soon := time.Now().Add(time.Hour)
		for i := range 200 {
			r := record(fmt.Sprintf("stay-%d", i), lane([]string{"stay", "ended"}[i%2]))
			if i%2 == 0 {
				r.RunAt = soon.Add(time.Duration(i/10) * time.Millisecond)
			}
			stay, records = append(stay, r.ID), append(records, r)
		}
		f.scatter(records...)
		turn := func(peer, kind string) {
			for p := range f.Partitions() {
				jobs := f.claim(p, peer, claimLane(lane(kind))).Jobs
				var ends []dianemo.Settlement
				for _, job := range jobs {
					ends = append(ends, dianemo.Settlement{ID: job.ID, Lane: job.Lane, Epoch: job.Epoch, Outcome: dianemo.Succeed})
				}
				if len(ends) > 0 {
					require.Empty(t, f.settle(p, peer, ends...))
				}
			}
		}
		turn(owner, "ended")

		var wg sync.WaitGroup
		stop := make(chan struct{})
		defer func() { close(stop); wg.Wait() }()
		change := &fixture{Store: f.Store, t: f.t, rdb: f.rdb, namespace: f.namespace, calls: 1_000_000}
		read := make(chan struct{}, 1) // a page: what comes must not outrun the reader
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-read:
				}
				var records []dianemo.Record
				for i := range 40 {
					r := record(fmt.Sprintf("pass-%d-%d", n, i), lane("pass"))
					if i%10 == 0 {
						r.RunAt = soon.Add(time.Duration(i) * time.Millisecond)
						r.Lane.Kind = "stay" // they come among those that stay
					}
					records = append(records, r)
				}
				change.scatter(records...)
				for p := range change.Partitions() {
					jobs := change.claim(p, "churn", claimLane(lane("pass"))).Jobs
					var ends []dianemo.Settlement
					for _, job := range jobs {
						ends = append(ends, dianemo.Settlement{ID: job.ID, Lane: job.Lane, Epoch: job.Epoch, Outcome: dianemo.Succeed})
					}
					if len(ends) > 0 {
						_, err := change.Turn(t.Context(), p, change.call("churn"), ends, dianemo.Claim{})
						if err != nil {
							return // the test is over
						}
					}
				}
			}
		})
		nextPage := func([]dianemo.StoredJob) {
			select {
			case read <- struct{}{}:
			default:
			}
		}
		for i := range 6 {
			type where struct {
				id    string
				state dianemo.State
				kind  string
			}
			seen := map[where]int{}
			count := map[string]int{}
			// Finished jobs grow without end behind the reader, so only up to now.
			jobs, _ := f.pages(dianemo.Filter{Limit: 25, Newest: i%2 == 0, States: []dianemo.State{dianemo.Queued, dianemo.Scheduled, dianemo.Running}}, nextPage)
			ended, _ := f.pages(dianemo.Filter{Limit: 25, Newest: i%2 == 0, States: []dianemo.State{dianemo.Succeeded}, To: time.Now()}, nextPage)
			for _, list := range [][]dianemo.StoredJob{jobs, ended} {
				for j := range list {
					info := &list[j].Info
					seen[where{info.ID, info.State, info.Kind}]++
					count[info.ID]++
				}
			}
			for at, n := range seen {
				require.Equal(t, 1, n, "%v", at)
			}
			for _, id := range stay {
				require.Equal(t, 1, count[id], id)
			}
		}
	})
}

// A filter that matches next to nothing is answered in bounded steps.
func TestAListReadsABoundedNumberOfJobs(t *testing.T) {
	t.Parallel()
	onRedis(t, func(t *testing.T, f *fixture) {
		const n = 25_000
		pipe := f.rdb.Pipeline()
		begin := time.Now().Add(-time.Hour).UnixMilli()
		for i := range n {
			id, priority := fmt.Sprintf("job-%d", i), 2
			if i == n/2 {
				priority = 1
			}
			ended := begin + int64(i)
			pipe.HSet(t.Context(), f.key(id, "meta"), id, fmt.Sprintf("1|succeeded||%d|5|p|kind:%d:-1:0|5|5|0|0|1|0||||", ended, priority))
			pipe.HSet(t.Context(), f.key(id, "spec"), id, string(record(id, lane("kind")).Spec)+"1234567890123")
			pipe.ZAdd(t.Context(), f.key(id, "done:succeeded:kind"), redis.Z{Score: float64(ended), Member: id})
			if i%5000 == 0 || i == n-1 {
				_, err := pipe.Exec(t.Context())
				require.NoError(t, err)
			}
		}
		for p := range f.Partitions() {
			require.NoError(t, f.rdb.HSet(t.Context(), fmt.Sprintf("{%s:%d}:counts", f.namespace, p), "succeeded:kind:2", n).Err())
		}
		jobs, pages := f.pages(dianemo.Filter{Limit: 10, Priority: 1}, nil)
		require.Len(t, jobs, 1)
		require.Equal(t, fmt.Sprintf("job-%d", n/2), jobs[0].Info.ID)
		require.GreaterOrEqual(t, pages, 2, "one call read everything")
		require.LessOrEqual(t, pages, 10)
		all, pages := f.pages(dianemo.Filter{Limit: dianemo.MaxList}, nil)
		require.Len(t, all, n)
		require.LessOrEqual(t, pages, n/dianemo.MaxList+1, "pages are full where the filter lets all pass")
	})
}

func TestAListOfLargeJobsComesInSmallerPages(t *testing.T) {
	t.Parallel()
	onRedis(t, func(t *testing.T, f *fixture) {
		var records []dianemo.Record
		want := map[string]bool{}
		for i := range 200 {
			r := record(fmt.Sprintf("job-%d", i), lane("kind"))
			if i >= 10 {
				r.Spec = dianemo.EncodeSpec(&dianemo.Spec{Kind: "kind", Priority: 2, Grace: dianemo.Unlimited, Args: []byte(`"` + strings.Repeat("x", 200<<10) + `"`)})
			}
			records, want[r.ID] = append(records, r), true
			if len(records) == 5 {
				f.scatter(records...)
				records = nil
			}
		}
		jobs, pages := f.pages(dianemo.Filter{Limit: dianemo.MaxList}, func(page []dianemo.StoredJob) {
			bytes := 0
			for i := range page {
				bytes += len(page[i].Spec)
			}
			require.Less(t, bytes, 20<<20)
		})
		require.Greater(t, pages, 1)
		require.Len(t, jobs, len(want))
		for i := range jobs {
			require.True(t, want[jobs[i].Info.ID])
			delete(want, jobs[i].Info.ID)
		}
	})
}

// What is broken is listed as far as it can be read; where record and index
// disagree, the record counts.
func TestAListShowsWhatIsBroken_Long(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, f *fixture) {
		l := lane("kind")
		ids := f.ids(6)
		corrupt, newer, stray, gone, bare, well := ids[0], ids[1], ids[2], ids[3], ids[4], ids[5]
		for _, id := range ids {
			f.enqueue(record(id, l))
		}
		partition := f.Partition(ids[0])
		jobs := f.claim(partition, owner, claimLane(l)).Jobs
		require.Len(t, jobs, len(ids))
		for _, job := range jobs {
			require.Empty(t, f.settle(partition, owner, dianemo.Settlement{ID: job.ID, Lane: job.Lane, Epoch: job.Epoch, Outcome: dianemo.Succeed}))
		}
		ctx := t.Context()
		meta, spec := f.key(well, "meta"), f.key(well, "spec")
		require.NoError(t, f.rdb.HSet(ctx, meta, corrupt, "garbage", newer, "2|who|knows",
			stray, strings.Replace(f.rdb.HGet(ctx, meta, stray).Val(), "succeeded", "failed", 1)).Err())
		require.NoError(t, f.rdb.HDel(ctx, meta, gone).Err())
		require.NoError(t, f.rdb.HDel(ctx, spec, gone, bare).Err())
		got := map[string]string{}
		list, _ := f.pages(dianemo.Filter{Limit: 10}, nil)
		for i := range list {
			info := &list[i].Info
			require.Equal(t, []any{dianemo.Succeeded, "kind"}, []any{info.State, info.Kind})
			require.False(t, info.EndedAt.IsZero())
			require.Equal(t, info.ID == bare, len(list[i].Spec) == 0)
			got[info.ID] = info.Reason
		}
		require.Equal(t, map[string]string{corrupt: "corrupt", newer: "newer", bare: "", well: ""}, got)

		states, err := standings(f, ctx, []string{well, corrupt, newer, stray, gone, bare, "nobody"})
		require.NoError(t, err)
		require.Equal(t, []dianemo.State{dianemo.Succeeded, dianemo.Unreadable, dianemo.Unreadable, dianemo.Failed, "", dianemo.Succeeded, ""}, states)
	})
}

func TestStatesAreAsStored_Long(t *testing.T) {
	t.Parallel()
	for _, state := range []dianemo.State{"", dianemo.Scheduled, dianemo.Running, dianemo.Succeeded, dianemo.Failed, dianemo.Missed, dianemo.Unreachable} {
		t.Run(string(state), func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, f *fixture) {
				s := f.bring(state, false, false)
				states, err := standings(f, t.Context(), []string{"other", s.id, "another"})
				require.NoError(t, err)
				require.Equal(t, []dianemo.State{"", state, ""}, states)
				if state == "" { // nothing was sent: the disturbances want a script
					f.enqueue(record(s.id, s.lane))
				}
			})
		})
	}
}

// standings are the states only.
func standings(f *fixture, ctx context.Context, ids []string) ([]dianemo.State, error) {
	found, err := f.Standings(ctx, ids)
	states := make([]dianemo.State, len(found))
	for i := range found {
		states[i] = found[i].State
	}
	return states, err
}

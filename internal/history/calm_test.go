package history

import "testing"

func TestWhenNothingGoesWrongAnyMoreEverythingGoesOn(t *testing.T) {
	t.Parallel()
	probe := `
		20000 c invoke probe
		20001 c ok probe
		final calm=10000 led=10010 drained=19000 probe=probe
		`
	checkRows(t, []row{
		{name: "nobody leads", story: `final calm=1000 led=never`,
			wrong: []string{"calm: nobody led after the faults"}},
		{name: "nobody leads for long", story: `final calm=1000 led=4500`,
			wrong: []string{"calm: nobody led for 3.5s after the faults; two leases and some are 3s"}},
		{name: "who led is dead", story: `
			500 p1 lead on 1
			final calm=1000 led=4500`,
			wrong: []string{"calm: nobody led for 3.5s after the faults"}},
		{name: "who led has given it up", story: `
			500 p1 lead on 1
			700 p1 lead off 1
			1500 p1 beat 1400
			final calm=1000 led=4500`,
			wrong: []string{"calm: nobody led for 3.5s after the faults"}},
		{name: "it never drains", story: `final calm=1000 drained=never`,
			wrong: []string{"calm: the backlog never drained"}},
		{name: "it drains late", story: `final calm=1000 drained=123000`,
			wrong: []string{"calm: the backlog took 2m2s to drain; the bound is 2m0s"}},
		{name: "taken over late", story: `
			job a reruns=1
			die a 5 p1
			60000 p3 reap a p1 scheduled
			run a 60005..60010 p2 succeed attempt=2
			= a succeeded
			final calm=100 drained=60020`,
			wrong: []string{"calm: job id-a (a) was taken from p1 only 59.9s after the faults; the bound is"}},
		{name: "a peer ends by itself", story: `
			5 p1 bye
			final calm=100`,
			wrong: []string{"calm: p1 ended by itself"}},
		{name: "a peer that was terminated forgets a run", story: `
			job a reruns=1
			die a 5 p1
			8 n fault terminate on p1
			10 p1 bye
			700 p3 reap a p1 scheduled
			run a 705..710 p2 succeed attempt=2
			= a succeeded`,
			wrong: []string{"calm: job id-a (a) was started by p1, which ended in good order and did not settle it"}},
		{name: "tokens stay charged", story: `final charged=p1:3`,
			wrong: []string{"calm: p1 shows 3 tokens as in use, and nothing runs"}},
		{name: "a probe is not started", story: probe + `
			= probe queued`,
			wrong: []string{"calm: job (probe) was due, and was not started"}},
		{name: "a probe is started late", story: probe + `
			run probe 23000..23001 p1 succeed
			= probe succeeded`,
			wrong: []string{"calm: job (probe) was due, and was started only after 3s; the bound is 2.2s"}},
		{name: "a probe is refused", story: `
			20000 c invoke probe
			20001 c fail probe
			final probe=probe`,
			wrong: []string{"calm: job (probe) was not accepted, though nothing went wrong any more"}},
		{name: "a probe is forgotten", story: `final probe=probe`,
			wrong: []string{"calm: job (probe) is a probe that nobody asked for"}},

		{name: "a probe is started", story: probe + `
			run probe 20500..20501 p1 succeed
			= probe succeeded`},
		{name: "the leader was looked for late", story: `
			500 p1 lead on 1
			1500 p1 beat 1400
			final calm=1000 led=4500`},
		{name: "it drains late, since retries are far apart", story: `
			job a delay=1s retries=2 retryAfter=10s
			= a cancelled
			final calm=1000 drained=141000`},
	})
}

func TestRecordsAndKeysOfOthersAreAsTheyShouldBe(t *testing.T) {
	t.Parallel()
	checkRows(t, []row{
		{name: "records and indexes disagree", story: `final audit=this`, wrong: []string{"records: this"}},
		{name: "something was put right", story: `5 p1 repair that`, wrong: []string{"records: p1 put something right:  that"}},
		{name: "what a refused submission left was taken away", story: `5 p1 repair that job=nobody`},
		{name: "a job was put right", story: `
			job a
			5 p1 repair that job=id-a
			= a cancelled`, wrong: []string{"records: p1 put something right: id-a that"}},
		{name: "a job is listed twice", story: `
			job a
			= a cancelled
			= a cancelled`,
			wrong: []string{"records: job id-a (a) is listed twice"}},
		{name: "another's key was changed", story: `final foreign=those`, wrong: []string{"foreign: those"}},
	})
}

package history

import "testing"

func TestAJobIsStartedAsOftenAsItMay(t *testing.T) {
	t.Parallel()
	checkRows(t, []row{
		{name: "twice without retries and reruns", story: `
			job a
			die a 5 p1
			700 p3 reap a p1 unreachable
			run a 705..709 p2 succeed
			= a unreachable unrecorded= epoch=706`,
			wrong: []string{
				"one-end: job id-a (a) was said to have ended in 2 ways: succeeded, unreachable",
				"starts: job id-a (a) has neither retries nor reruns, and was started twice: by p1, p2"}},
		{name: "failed with retries left", story: `
			job a retries=2
			run a 5..9 p1 fail
			= a failed`,
			wrong: []string{"starts: job id-a (a) failed after it was tried again 0 times, and had 2 retries"}},
		{name: "failed without a run", story: `
			job a
			= a failed`,
			wrong: []string{"starts: job id-a (a) failed, and was never run"}},
		{name: "missed without a grace", story: `
			job a
			= a missed`,
			wrong: []string{"starts: job id-a (a) is missed, and may wait for ever"}},
		{name: "missed before its grace is over", story: `
			job a grace=1000ms
			50 p1 miss a missed
			= a missed`,
			wrong: []string{"starts: job id-a (a) ended for its grace of 1s (missed), and had waited for 50ms at most"}},
		{name: "missed before the grace of its retry is over", story: `
			job a grace=1000ms retries=1 retryAfter=100ms
			run a 5..9 p1 retry
			120 p1 miss a failed
			= a failed`,
			wrong: []string{"starts: job id-a (a) ended for its grace of 1s (failed), and had waited for 11ms at most"}},
		{name: "succeeded by an attempt that fails", story: `
			job a retries=2 fails=2
			run a 5..9 p1 retry
			run a 20..25 p1 succeed attempt=2
			= a succeeded`,
			wrong: []string{"starts: job id-a (a) succeeded by its attempt 2, and its first 2 fail"}},
		{name: "more dead than reruns", story: `
			job a reruns=1
			die a 5 p1
			die a 705 p2 attempt=2
			die a 1405 p3 attempt=3
			= a unreachable unrecorded=`,
			wrong: []string{"starts: job id-a (a) has 1 reruns, and 3 of its handlers never returned: by p1, p2, p3"}},
		{name: "more retries", story: `
			job a retries=1
			run a 5..9 p1 retry
			run a 15..19 p1 retry attempt=2
			run a 25..29 p1 fail attempt=3
			= a failed`,
			wrong: []string{"starts: job id-a (a) has 1 retries, and was tried again twice"}},
		{name: "more reruns, as the hooks tell", story: `
			job a reruns=1
			5 p1 claim a 5
			700 p3 reap a p1 scheduled
			705 p2 claim a 705
			1400 p3 reap a p2 scheduled
			= a cancelled unrecorded= runs=3 epoch=1500`,
			wrong: []string{"starts: job id-a (a) has 1 reruns, and was taken from a peer to run again twice"}},
		{name: "more reruns, as the record tells", story: `
			job a reruns=1
			die a 5 p1
			die a 705 p2 attempt=2
			run a 1405..1410 p2 succeed attempt=3
			= a succeeded`,
			wrong: []string{"starts: job id-a (a) has 1 reruns, and was taken from a peer to run again twice"}},
		{name: "more than all that", story: `
			job a retries=1 reruns=1
			run a 5..9 p1 retry
			run a 15..19 p1 giveback attempt=2
			die a 25 p1 attempt=2
			705 p2 claim a 705 attempt=3
			705 p2 start a 705 attempt=3
			706 p2 end a 705 attempt=3
			706 p2 settle a 705 fail stale
			run a 1405..1410 p2 succeed attempt=3
			= a succeeded unrecorded=`,
			wrong: []string{"starts: job id-a (a) has 1 retries and 1 reruns, was given back once, and was started 5 times: by p1, p1, p1, p2, p2"}},
		{name: "claimed for a peer that did not hear of it", story: `
			job a reruns=1
			5 p1 settle a 4 giveback reason=lost
			run a 15..19 p2 succeed
			= a succeeded unrecorded= runs=2`,
			wrong: []string{"starts: job id-a (a) was claimed for p1, which did not hear of it and gave it back (giveback)"}},
		{name: "its attempts are forgotten", story: `
			job a retries=2
			run a 5..9 p1 retry
			run a 15..19 p1 succeed attempt=1
			= a succeeded`,
			wrong: []string{"starts: job id-a (a) was started by p1 as attempt 1, after an attempt 1 (retry)"}},
		{name: "tried again too soon", story: `
			job a retries=1 retryAfter=100ms
			run a 5..9 p1 retry
			run a 60..65 p2 succeed attempt=2
			= a succeeded`,
			wrong: []string{"starts: job id-a (a) was started by p2 51ms after an attempt that failed; it was to be tried again after 100ms"}},
		{name: "before its delay is over", story: `
			job a delay=100ms
			run a 60..65 p2 succeed
			= a succeeded`,
			wrong: []string{"starts: job id-a (a) was started by p2 60ms after it was asked for, which was to be delayed by 100ms"}},
		{name: "after its grace is over", story: `
			job b
			run b 1..2 p1 succeed
			job a delay=100ms grace=200ms
			run a 900..905 p2 succeed
			= a succeeded
			= b succeeded`,
			wrong: []string{"starts: job id-a (a) was claimed by p2 498ms or more after its grace of 200ms was over"}},
		{name: "tried again after its grace is over", story: `
			job b
			run b 1..2 p1 succeed
			job a grace=200ms retries=1 retryAfter=100ms
			run a 5..10 p2 retry
			run a 900..905 p2 succeed attempt=2
			= a succeeded
			= b succeeded`,
			wrong: []string{"starts: job id-a (a) was claimed by p2 489ms or more after its grace of 200ms was over"}},
		{name: "run again after its grace is over", story: `
			job b
			run b 1..2 p1 succeed
			job a grace=200ms reruns=1
			die a 5 p2
			1000 p1 reap a p2 scheduled
			run a 1900..1905 p1 succeed attempt=2
			= a succeeded
			= b succeeded`,
			wrong: []string{"starts: job id-a (a) was claimed by p1 599ms or more after its grace of 200ms was over"}},

		{name: "a peer that was killed may have given it back", story: `
			job a reruns=1
			5 p1 claim a 5
			5 p1 start a 5
			6 p1 end a 5
			die a 705 p2
			run a 1405..1410 p3 succeed attempt=2
			= a succeeded unrecorded=`},
		{name: "given back, since Redis was away for too long", story: `
			job a reruns=1
			run a 5..9 p1 giveback reason=lost
			run a 15..19 p2 succeed
			= a succeeded`},
		{name: "given back and put off", story: `
			job a retries=1
			run a 5..9 p1 giveback
			run a 15..19 p2 snooze
			run a 25..29 p2 retry
			run a 35..39 p2 fail attempt=2
			= a failed`},
		{name: "claimed in time, and called late", story: `
			job b
			run b 1..2 p1 succeed
			job a grace=200ms
			run a 100..4001 p2 succeed called=4000
			= a succeeded
			= b succeeded`},
		{name: "its grace counts anew after it was given back", story: `
			job b
			run b 1..2 p1 succeed
			job a grace=200ms retries=1
			run a 100..800 p1 giveback
			run a 900..905 p2 succeed
			= a succeeded
			= b succeeded`},
		{name: "tried again in time, and nobody told when it was settled", story: `
			job b
			run b 1..2 p1 succeed
			job a grace=200ms retries=1 retryAfter=100ms
			quiet a 5..10 p2 retry
			run a 900..905 p2 succeed attempt=2
			= a succeeded
			= b succeeded`},
		{name: "two reruns and the end", story: `
			job a reruns=2
			die a 5 p1
			die a 705 p2 attempt=2
			die a 1405 p3 attempt=3
			2100 p1 reap a p3 unreachable
			= a unreachable`},
	})
}

package history

import "testing"

func TestEpochsGrowAndOneRunCounts(t *testing.T) {
	t.Parallel()
	checkRows(t, []row{
		{name: "started twice under one epoch", story: `
			job a reruns=1
			die a 5 p1
			700 p3 reap a p1 scheduled
			705 p2 start a 5 attempt=2
			= a unreachable unrecorded= epoch=6`,
			wrong: []string{"epochs: job id-a (a) was started twice under the epoch 1800000000005000, by p1 and p2"}},
		{name: "claimed under one epoch by two", story: `
			job a
			5 p1 claim a 5
			6 p2 claim a 5
			= a cancelled unrecorded= epoch=6`,
			wrong: []string{"epochs: job id-a (a) was claimed under the epoch 1800000000005000 by p1 and p2"}},
		{name: "a process's claims go back", story: `
			job a retries=1
			run a 5..9 p1 retry
			20 p1 claim a 4
			= a cancelled`,
			wrong: []string{"epochs: job id-a (a) was claimed by p1 under the epoch 1800000000004000, and before that under 1800000000005000"}},
		{name: "the record's is lower", story: `
			job a
			run a 5..9 p1 succeed
			= a succeeded epoch=4`,
			wrong: []string{
				"epochs: job id-a (a) has the epoch 1800000000004000 in the end, and 1800000000005000 was seen",
				"epochs: job id-a (a) succeeded by the run 1800000000004000 of p1, whose handler was not seen to return"}},
		{name: "the end of one that has lost the job", story: `
			job a reruns=1
			5 p1 claim a 5
			5 p1 start a 5
			run a 705..720 p2 succeed attempt=2
			710 p1 end a 5
			710 p1 settle a 5 succeed
			700 p3 reap a p1 scheduled
			= a succeeded unrecorded=`,
			wrong: []string{
				"one-end: job id-a (a) ended twice",
				"epochs: job id-a (a) ended succeeded by the run 1800000000005000 of p1, and there was a run 1800000000705000",
				"epochs: job id-a (a) was started by p2 under the epoch 1800000000705000 while p1 ran it under 1800000000005000, whose end (succeed) was accepted all the same"}},
		{name: "given back while it ran", story: `
			job a retries=1
			run a 5..20 p1 giveback
			run a 10..30 p2 succeed
			= a succeeded`,
			wrong: []string{"epochs: job id-a (a) was started by p2 under the epoch 1800000000010000 while p1 ran it under 1800000000005000, whose end (giveback) was accepted all the same"}},
		{name: "the same, told by the record alone", story: `
			job a retries=1
			quiet a 5..20 p1 giveback
			run a 10..30 p2 succeed
			= a succeeded`,
			wrong: []string{"whose end (giveback) was accepted all the same"}},
		{name: "refused, and yet it counts", story: `
			job a
			quiet a 5..9 p1 succeed
			10 p1 settle a 5 succeed stale
			= a succeeded`,
			wrong: []string{"epochs: job id-a (a) has the run 1800000000005000 of p1 in its history (succeed), whose end was refused"}},
		{name: "accepted, and yet it does not count", story: `
			job a reruns=1
			die a 5 p1
			9 p1 end a 5
			10 p1 settle a 5 retry
			run a 700..705 p2 succeed attempt=2
			= a succeeded`,
			wrong: []string{
				"epochs: job id-a (a) has the run 1800000000005000 of p1 in its history as lost, which was accepted as retry",
				"starts: job id-a (a) has 0 retries, and was tried again once"}},
		{name: "accepted, and not recorded", story: `
			job a retries=1
			5 p1 claim a 5
			5 p1 start a 5
			9 p1 end a 5
			10 p1 settle a 5 retry
			run a 20..25 p2 succeed attempt=2
			= a succeeded`,
			wrong: []string{"epochs: job id-a (a) has no run 1800000000005000 of p1 in its history, whose end (retry) was accepted"}},
		{name: "the record's runs go back", story: `
			job a retries=1
			run a 20..25 p2 fail attempt=2
			run a 5..9 p1 retry
			= a failed epoch=20`,
			wrong: []string{"epochs: job id-a (a) has a run 1800000000005000 in its history behind a run 1800000000020000"}},
		{name: "the result is another's", story: `
			job a
			run a 5..9 p1 succeed
			= a succeeded result=4`,
			wrong: []string{"epochs: job id-a (a) succeeded by the run 1800000000005000 of p1, and has the result of 1800000000004000 of p1"}},
		{name: "a result of what failed", story: `
			job a
			run a 5..9 p1 fail
			= a failed result=5`,
			wrong: []string{"epochs: job id-a (a) is failed, and has a result, of the run 1800000000005000"}},
		{name: "one term of two leaders", story: `
			5 p1 lead on 7
			6 p2 lead on 7`,
			wrong: []string{"epochs: p1 and p2 both led in the term 7"}},
		{name: "a term goes back", story: `
			5 p1 lead on 7
			6 p1 lead off 7
			7 p1 lead on 6`,
			wrong: []string{"epochs: p1 led in the term 6 after it had in 7"}},

		{name: "a peer stopped between claim and start runs what it has lost", story: `
			job a reruns=1
			5 p1 claim a 5
			700 p3 reap a p1 scheduled
			run a 705..720 p2 succeed attempt=2
			710 p1 start a 5
			715 p1 end a 5
			716 p1 settle a 5 succeed stale
			= a succeeded`},
		{name: "a paused peer's result is refused", story: `
			job a reruns=1
			die a 5 p1
			700 p3 reap a p1 scheduled
			run a 705..720 p2 succeed attempt=2
			900 p1 end a 5
			901 p1 settle a 5 succeed stale
			= a succeeded`},
		{name: "claimed again by the same peer after it was given back unstarted", story: `
			job a
			5 p1 claim a 5
			6 p1 settle a 5 unstarted
			run a 8..9 p1 succeed
			= a succeeded`},
		{name: "the hook of an end that was accepted speaks after the next run", story: `
			job a retries=1
			quiet a 5..9 p1 retry
			run a 20..25 p2 succeed attempt=2
			30 p1 settle a 5 retry
			= a succeeded`},
		{name: "the hooks of two terms are late", story: `
			5 p2 lead on 8
			6 p1 lead on 7
			7 p1 lead off 7`},
	})
}

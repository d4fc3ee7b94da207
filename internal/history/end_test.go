package history

import "testing"

func TestAJobEndsOnce(t *testing.T) {
	t.Parallel()
	checkRows(t, []row{
		{name: "not ended", story: `
			job a
			= a queued`,
			wrong: []string{"one-end: job id-a (a) has not ended: it is queued"}},
		{name: "in two ways", story: `
			job a
			run a 5..9 p1 succeed
			50 p2 miss a missed
			= a succeeded`,
			wrong: []string{
				"one-end: job id-a (a) was said to have ended in 2 ways: succeeded, missed",
				"silence: job id-a (a) is missed, and was started by p1"}},
		{name: "twice in one way", story: `
			job a grace=20ms
			50 p1 miss a missed
			51 p2 miss a missed
			= a missed`,
			wrong: []string{"one-end: job id-a (a) ended twice"}},
		{name: "otherwise than said", story: `
			job a
			run a 5..9 p1 fail
			= a cancelled`,
			wrong: []string{"one-end: job id-a (a) was said to be failed, and is cancelled in the end"}},
		{name: "by an edge that there is not", story: `
			job a reruns=1
			die a 5 p1
			700 p2 reap a p1 failed
			= a failed`,
			wrong: []string{"one-end: job id-a (a) was moved to failed by reap, which never does that"}},
		{name: "otherwise than its run", story: `
			job a retries=1
			run a 5..6 p1 retry state=succeeded
			= a succeeded`,
			wrong: []string{"one-end: job id-a (a) came to succeeded by a run that ended with retry"}},
		{name: "the end of one run is accepted twice", story: `
			job a retries=1
			run a 5..9 p1 retry
			10 p1 settle a 5 retry
			= a cancelled`,
			wrong: []string{"one-end: job id-a (a) had the end of its run 1800000000005000 accepted twice, from p1 and p1"}},
		{name: "started after it was cancelled", story: `
			job a
			10 c invoke a op=cancel
			11 c ok a op=cancel
			run a 500..510 p1 succeed
			job b
			run b 3..4 p1 succeed
			= a succeeded
			= b succeeded`,
			wrong: []string{"one-end: job id-a (a) was claimed by p1 after it was said to be cancelled"}},
		{name: "missed though cancelled", story: `
			job a grace=20ms
			10 c invoke a op=cancel
			11 c ok a op=cancel
			= a missed`,
			wrong: []string{"one-end: job id-a (a) was said to be cancelled, and is missed"}},
		{name: "cancelled by nobody", story: `
			job a
			= a cancelled reason=cancel`,
			wrong: []string{"one-end: job id-a (a) is cancelled, and nobody has asked for it"}},

		{name: "cancelled, and its handler succeeds all the same", story: `
			job a
			10 c invoke a op=cancel
			11 c ok a op=cancel
			run a 5..20 p1 succeed
			= a succeeded`},
		{name: "cancelled by a call whose answer was lost", story: `
			job a retries=1
			run a 5..20 p1 retry state=cancelled
			10 c invoke a op=cancel
			30 c unknown a op=cancel
			= a cancelled reason=cancel`},
		{name: "a cancel is told of one that is cancelled already", story: `
			job a
			5 c invoke a op=cancel
			6 p2 cancel a cancelled
			7 p1 cancel a cancelled
			= a cancelled reason=cancel`},
		{name: "skipped for two parents, as two peers say", story: `
			job a
			run a 2..3 p1 fail
			job b
			run b 2..3 p1 fail
			job c parents=a:succeeded,b:succeeded
			5 p1 release c skipped parent=id-a
			9 p2 release c skipped parent=id-b
			= a failed
			= b failed
			= c skipped reason=parent`},
		{name: "its settlement's hook was never called", story: `
			job a
			quiet a 5..9 p1 succeed
			= a succeeded`},
	})
}

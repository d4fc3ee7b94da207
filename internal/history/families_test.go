package history

import "testing"

func TestNoChildIsStartedBeforeItsParentsHaveEndedAsItWants(t *testing.T) {
	t.Parallel()
	checkRows(t, []row{
		{name: "before one of two has ended", story: `
			job a
			job b
			job c parents=a:succeeded,b:succeeded
			run a 5..9 p1 succeed
			run b 5..30 p2 succeed
			run c 20..25 p1 succeed
			= a succeeded
			= b succeeded
			= c succeeded`,
			wrong: []string{"families: job id-c (c) was started by p1 before its parent b had ended"}},
		{name: "left out, and nobody chose", story: `
			job a
			job b parents=a:succeeded
			run a 5..9 p1 succeed
			= a succeeded
			= b skipped reason=choice`,
			wrong: []string{"families: job id-b (b) is skipped, and all its parents have ended as it wants"}},
		{name: "a workflow that was accepted is given up", story: `
			0 c invoke w/1 op=submit workflow=w call=3
			9 c ok w/1 op=submit
			= w/1 cancelled reason=workflow
			= w cancelled workflow=x reason=gate`,
			wrong: []string{"families: job w was accepted, and was given up"}},
		{name: "before the last attempt of a parent", story: `
			job a retries=1
			job b parents=a:succeeded|failed
			run a 5..9 p1 retry
			run b 20..25 p1 succeed
			run a 30..35 p2 fail attempt=2
			= a failed
			= b succeeded`,
			wrong: []string{"families: job id-b (b) was started by p1 before its parent a had ended"}},
		{name: "though a parent failed", story: `
			job a
			job b parents=a:succeeded
			run a 5..9 p1 fail
			run b 20..25 p1 succeed
			= a failed
			= b succeeded`,
			wrong: []string{"families: job id-b (b) was started by p1, and its parent a is failed"}},
		{name: "skipped for nothing", story: `
			job a
			job b parents=a:failed|succeeded
			run a 5..9 p1 succeed
			= a succeeded
			= b skipped reason=parent`,
			wrong: []string{"families: job id-b (b) is skipped, and all its parents have ended as it wants"}},
		{name: "released by two", story: `
			job a
			job b parents=a:succeeded
			run a 5..9 p1 succeed
			10 p1 release b scheduled parent=id-a
			11 p2 release b scheduled parent=id-a
			run b 20..25 p1 succeed
			= a succeeded
			= b succeeded`,
			wrong: []string{"families: job id-b (b) was released by p1 and by p2"}},
		{name: "released twice by one", story: `
			job a
			job b parents=a:succeeded
			run a 5..9 p1 succeed
			10 p1 release b scheduled parent=id-a
			30 p1 release b scheduled parent=id-a
			run b 40..45 p1 succeed
			= a succeeded
			= b succeeded`,
			wrong: []string{`families: job id-b (b) was released twice by p1, for its parent "id-a"`}},

		{name: "released once, as is said for each of two parents", story: `
			job a
			job b
			job c parents=a:succeeded,b:succeeded
			run a 5..9 p1 succeed
			run b 5..9 p1 succeed
			10 p1 release c scheduled parent=id-a
			10 p1 release c scheduled parent=id-b
			run c 20..25 p1 succeed
			= a succeeded
			= b succeeded
			= c succeeded`},
		{name: "another tells a child that is blocked still", story: `
			job a
			job b
			job c parents=a:succeeded,b:succeeded
			run a 5..9 p1 succeed
			run b 5..19 p1 succeed
			10 p1 release c blocked parent=id-a
			20 p2 release c scheduled parent=id-b
			run c 20..25 p1 succeed
			= a succeeded
			= b succeeded
			= c succeeded`},
		{name: "the hook of the parent's end is never called", story: `
			job a
			job b parents=a:succeeded
			quiet a 5..9 p1 succeed
			run b 10..12 p2 succeed
			= a succeeded
			= b succeeded`},
		{name: "a parent is lost, and its peer still runs it", story: `
			job a
			job b parents=a:unreachable
			die a 5 p1
			700 p3 reap a p1 unreachable
			run b 705..710 p2 succeed
			900 p1 end a 5
			901 p1 settle a 5 succeed stale
			= a unreachable
			= b succeeded`},
	})
}

func TestAWorkflowHasComeToWhatItsJobsHave(t *testing.T) {
	t.Parallel()
	jobs := `
		0 c invoke w/1 op=submit workflow=w call=3
		0 c invoke w/2 op=submit workflow=w call=3
		9 c ok w/1 op=submit
		9 c ok w/2 op=submit
		run w/1 10..11 p1 succeed
		= w/1 succeeded
		`
	checkRows(t, []row{
		{name: "it succeeded, and a job failed", story: jobs + `
			run w/2 10..11 p1 fail
			= w/2 failed
			= w succeeded workflow=x`,
			wrong: []string{"families: job w succeeded, and its job w/2 did not"}},
		{name: "it succeeded, and a job was cancelled", story: jobs + `
			= w/2 cancelled
			= w succeeded workflow=x`,
			wrong: []string{"families: job w succeeded, and its job w/2 was cancelled"}},
		{name: "it failed, and no job did", story: jobs + `
			= w/2 skipped reason=choice
			= w failed workflow=x`,
			wrong: []string{"families: job w failed, and none of its jobs did"}},
		{name: "it is cancelled, and no job is", story: jobs + `
			= w/2 skipped reason=choice
			= w cancelled workflow=x`,
			wrong: []string{"families: job w is cancelled, and none of its jobs is"}},
		{name: "it has not ended", story: jobs + `
			= w/2 skipped reason=choice
			= w blocked workflow=x`,
			wrong: []string{"one-end: job w has not ended: it is blocked"}},

		{name: "it failed as its job did", story: jobs + `
			run w/2 10..11 p1 fail
			20 p1 release w blocked id=w
			21 p2 release w failed id=w
			22 p1 release w failed id=w
			= w/2 failed
			= w failed workflow=x`},
		{name: "it succeeded, and a job was left out", story: jobs + `
			= w/2 skipped reason=choice
			= w succeeded workflow=x`},
		{name: "it was cancelled while a job failed", story: jobs + `
			run w/2 10..11 p1 fail
			= w/2 failed
			= w cancelled workflow=x reason=cancel`},
	})
}

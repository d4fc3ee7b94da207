package history

import "testing"

func TestWhatWasAcceptedIsThereOnceAndWhatWasRefusedIsNot(t *testing.T) {
	t.Parallel()
	checkRows(t, []row{
		{name: "accepted and gone", story: `
			job a`,
			wrong: []string{"acknowledged: job id-a (a) was accepted, and is gone"}},
		{name: "accepted and given up", story: `
			job a
			job b parents=a:succeeded
			run a 5..9 p1 succeed
			= a succeeded
			= b cancelled reason=gate`,
			wrong: []string{"acknowledged: job id-b (b) was accepted, and is cancelled (gate)"}},
		{name: "accepted and set aside", story: `
			job a
			= a cancelled reason=corrupt`,
			wrong: []string{"acknowledged: job id-a (a) was accepted, and is cancelled (corrupt)"}},
		{name: "with another's arguments", story: `
			job b
			10 p1 claim b 10
			10 p1 start x 10 id=id-b
			15 p1 end x 10 id=id-b
			15 p1 settle b 10 fail
			= b failed runs=1 epoch=10`,
			wrong: []string{"acknowledged: job id-b (b) was started by p1 with the arguments of x"}},
		{name: "there twice", story: `
			job a
			run a 5..9 p1 succeed
			= a succeeded
			= a cancelled id=other history= `,
			wrong: []string{"acknowledged: job id-a (a) was asked for and not refused once, and there are 2 of it: id-a, other"}},
		{name: "refused and there", story: `
			0 c invoke a
			1 c fail a
			run a 5..9 p1 succeed
			= a succeeded`,
			wrong: []string{"acknowledged: job id-a (a) was refused, and exists: it is succeeded"}},
		{name: "refused, started and let go of", story: `
			0 c invoke a
			1 c fail a
			run a 5..9 p1 succeed`,
			wrong: []string{"acknowledged: job id-a (a) was refused, and exists: it was started by p1"}},
		{name: "nobody asked for it", story: `
			run a 5..9 p1 succeed
			= a succeeded`,
			wrong: []string{"acknowledged: job id-a (a) exists, and nobody has asked for it"}},
		{name: "accepted as one, and another", story: `
			job a
			0 c invoke b
			2 c ok b id=id-a
			run a 5..9 p1 succeed
			= a succeeded`,
			wrong: []string{"acknowledged: job id-a (a) was accepted as b, and is another"}},
		{name: "accepted twice under one id", story: `
			job a
			2 c invoke a
			3 c ok a
			run a 5..9 p1 succeed
			= a succeeded`,
			wrong: []string{"acknowledged: job id-a (a) was accepted twice under one id"}},
		{name: "let go of before it was started", story: `
			job a forgotten=`,
			wrong: []string{"acknowledged: job id-a (a) was accepted, and is gone"}},
		{name: "half of a workflow", story: `
			0 c invoke w/1 op=submit workflow=w call=7
			0 c invoke w/2 op=submit workflow=w call=7
			9 c unknown w/1 op=submit
			9 c unknown w/2 op=submit
			run w/1 5..9 p1 succeed
			= w/1 succeeded`,
			wrong: []string{"acknowledged: job id-w/1 (w/1) was started, and w/2 of the same workflow is not there"}},
		{name: "a workflow's job is gone", story: `
			0 c invoke w/1 op=submit workflow=w call=7
			9 c ok w/1 op=submit`,
			wrong: []string{"acknowledged: job (w/1) was accepted once, and there are 0 of it"}},

		{name: "unanswered and there", story: `
			0 c invoke a
			9 c unknown a
			run a 5..9 p1 succeed
			= a succeeded`},
		{name: "unanswered and not there", story: `
			0 c invoke a
			9 c unknown a`},
		{name: "its client was killed before the answer", story: `
			0 c invoke a
			run a 5..9 p1 succeed
			= a succeeded`},
		{name: "asked for again under its own id, since the first answer was lost", story: `
			0 c invoke a
			5 c unknown a
			6 c invoke a
			7 c fail a
			run a 5..9 p1 succeed
			= a succeeded`},
		{name: "let go of when it had succeeded", story: `
			job a forgotten=
			run a 5..9 p1 succeed`},
		{name: "let go of, and the hook of its settlement was never called", story: `
			job a forgotten=
			5 p1 claim a 5
			5 p1 start a 5
			6 p1 end a 5`},
		{name: "a workflow that was refused late is cancelled", story: `
			0 c invoke w/1 op=submit workflow=w
			9 c fail w/1 op=submit
			= w/1 cancelled reason=workflow`},
	})
}

func TestOfAUniqueKeyOneJobLives(t *testing.T) {
	t.Parallel()
	checkRows(t, []row{
		{name: "two run at a time", story: `
			job a unique=k
			job b unique=k
			run a 5..20 p1 succeed
			run b 10..12 p2 succeed
			= a succeeded
			= b succeeded`,
			wrong: []string{"acknowledged: job id-b (b) lived at the same time as job id-a with the same unique key, for 11ms"}},
		{name: "one is accepted while the other waits to be tried again", story: `
			job a unique=k retries=1
			run a 5..20 p1 retry
			30 c invoke b unique=k
			31 c ok b
			run a 90..95 p1 succeed attempt=2
			run b 100..112 p2 succeed
			= a succeeded
			= b succeeded`,
			wrong: []string{"acknowledged: job id-b (b) lived at the same time as job id-a with the same unique key, for 64ms"}},
		{name: "refused for nobody", story: `
			job a unique=k
			run a 5..20 p1 succeed
			30 c invoke b unique=k
			31 c fail b err=job_"id-a"_holds_the_unique_key_"k"_and_is_succeeded
			= a succeeded`,
			wrong: []string{`acknowledged: job (b) was refused for its unique key "k", which no job can have had then`}},

		{name: "refused for one that lives", story: `
			job a unique=k
			run a 5..20 p1 succeed
			10 c invoke b unique=k
			31 c fail b err=job_"id-a"_holds_the_unique_key_"k"_and_is_running
			= a succeeded`},
		{name: "refused for one whose call was not answered", story: `
			0 c invoke a unique=k
			5 c unknown a
			10 c invoke b unique=k
			31 c fail b err=job_"id-a"_holds_the_unique_key_"k"_and_is_running`},
		{name: "one after the other, and the first's answer comes late", story: `
			0 c invoke a unique=k
			run a 5..9 p1 succeed
			10 c invoke b unique=k
			11 c ok b
			run b 12..15 p2 succeed
			20 c ok a
			= a succeeded
			= b succeeded`},
		{name: "a peer that was taken for dead still runs the first", story: `
			job a unique=k
			die a 5 p1
			700 p3 reap a p1 unreachable
			710 c invoke b unique=k
			711 c ok b
			run b 715..720 p2 succeed
			900 p1 end a 5
			901 p1 settle a 5 succeed stale
			= a unreachable
			= b succeeded`},
	})
}

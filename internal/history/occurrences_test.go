package history

import "testing"

func TestEachInstantOfAScheduleHasOneOccurrence(t *testing.T) {
	t.Parallel()
	// A job that is asked for and claimed at once says what the clocks are apart.
	clock := `
		job x
		run x 1..2 p1 succeed
		= x succeeded
		final calm=4900
		9000 p1 lead on 1
		`
	made := clock + `
		500 c invoke s every=1s
		501 c ok s
		`
	first := `
		1001 p1 fire s@1000 scheduled
		run s@1000 1002..1010 p1 succeed
		= s@1000 succeeded
		`
	last := `
		3001 p1 fire s@3000 scheduled
		4001 p1 fire s@4000 scheduled
		run s@3000 3002..3010 p1 succeed
		= s@3000 succeeded
		run s@4000 4002..4010 p1 succeed
		= s@4000 succeeded
		`
	second := `
		2001 p1 fire s@2000 scheduled
		run s@2000 2002..2010 p1 succeed
		= s@2000 succeeded
		`
	checkRows(t, []row{
		{name: "an instant has none", story: made + first + last,
			wrong: []string{"occurrences: the schedule s has no job of 08:00:02.000"}},
		{name: "an instant's is gone", story: made + first + last + `
			2001 p1 fire s@2000 scheduled`,
			wrong: []string{"occurrences: job s@2000 (s) is of 08:00:02.000, and is gone"}},
		{name: "one between two instants", story: made + first + second + last + `
			run s@2500 2502..2510 p1 succeed
			= s@2500 succeeded`,
			wrong: []string{"occurrences: job s@2500 (s) is of 08:00:02.500, which is no instant of its rule, every 1s"}},
		{name: "two of one instant", story: made + first + second + last + `
			= s@2000 cancelled id=other`,
			wrong: []string{"occurrences: job other (s) is of 08:00:02.000, and so is job s@2000"}},
		{name: "of before the schedule was made", story: made + first + second + last + `
			run s@-1000 502..510 p1 succeed
			= s@-1000 succeeded`,
			wrong: []string{"occurrences: job s@-1000 (s) is of 07:59:59.000, and its schedule was made after that"}},
		{name: "started before its instant", story: made + first + second + `
			3001 p1 fire s@3000 scheduled
			run s@3000 3002..3010 p1 succeed
			= s@3000 succeeded
			run s@4000 3202..3210 p1 succeed
			= s@4000 succeeded`,
			wrong: []string{"occurrences: job s@4000 (s) was started by p1 697ms before 08:00:04.000, of which it is"}},
		{name: "fired twice", story: made + first + second + last + `
			2003 p2 fire s@2000 scheduled`,
			wrong: []string{"occurrences: job s@2000 (s) was fired twice, by p1 and p2"}},
		{name: "let go of and made again", story: clock + `
			500 c invoke s every=1s forgotten=
			501 c ok s
			1001 p1 fire s@1000 scheduled
			run s@1000 1002..1010 p1 succeed
			1020 p2 fire s@1000 scheduled
			run s@1000 1022..1030 p2 succeed` + second + last,
			wrong: []string{
				"one-end: job s@1000 (s) ended twice",
				"epochs",
				"starts: job s@1000 (s) has neither retries nor reruns, and was started twice",
				"occurrences: job s@1000 (s) came to its end twice",
				"occurrences: job s@1000 (s) was fired twice, by p1 and p2"}},
		{name: "of a schedule that was refused", story: clock + `
			500 c invoke s every=1s
			501 c fail s` + first,
			wrong: []string{"occurrences: the schedule s was refused, and has 1 jobs"}},

		{name: "one each", story: made + first + second + last},
		{name: "let go of when they had succeeded", story: clock + `
			500 c invoke s every=1s forgotten=
			501 c ok s
			run s@1000 1002..1010 p1 succeed
			run s@2000 2002..2010 p1 succeed
			run s@3000 3002..3010 p1 succeed
			run s@4000 4002..4010 p1 succeed`},
		{name: "made late, when somebody led again", story: made + `
			3500 p2 fire s@1000 scheduled
			3500 p2 fire s@2000 scheduled
			3500 p2 fire s@3000 scheduled
			run s@1000 3502..3510 p1 succeed
			run s@2000 3502..3511 p1 succeed
			run s@3000 3502..3512 p1 succeed
			run s@4000 4002..4010 p1 succeed
			= s@1000 succeeded
			= s@2000 succeeded
			= s@3000 succeeded
			= s@4000 succeeded`},
		{name: "the last moments are not judged, those before them are", story: made + first + second + `
			run s@3000 3002..3010 p1 succeed
			= s@3000 succeeded
			run s@4000 4002..4010 p1 succeed
			= s@4000 succeeded
			final calm=8900`,
			wrong: []string{"occurrences: the schedule s has no job of 08:00:05.000"}},
		{name: "who made it is not known", story: clock + first},
	})
}

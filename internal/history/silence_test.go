package history

import (
	"strings"
	"testing"
)

func TestOnlyWhoWasSilentLosesItsRuns(t *testing.T) {
	t.Parallel()
	// p1 has claimed a at 5 ms; the clocks are known by x.
	begin := `
		job x
		run x 2..3 p2 succeed
		= x succeeded
		job a reruns=1
		`
	taken := `
		die a 5 p1
		2000 p3 reap a p1 scheduled
		run a 2005..2010 p2 succeed attempt=2
		= a succeeded
		`
	beats := func(peer string, at ...string) string {
		text := ""
		for _, from := range at {
			text += "\n" + from + "9 " + peer + " beat " + from + "0"
		}
		return text + "\n"
	}
	all := []string{"10", "20", "30", "40", "50", "60", "70", "80", "90", "100", "110", "120", "130", "140", "150", "160", "170", "180", "190"}
	checkRows(t, []row{
		{name: "from one that was heard of all the time", story: begin + taken + beats("p1", all...),
			wrong: []string{"silence: job id-a (a) was taken from p1, which was never silent for 600ms while it had the job"}},
		{name: "the same, of which only the record tells", story: begin + `
			die a 5 p1
			run a 2005..2010 p2 succeed attempt=2
			= a succeeded` + beats("p1", all...),
			wrong: []string{"silence: job id-a (a) was taken from p1"}},
		{name: "too soon after its last beat", story: begin + taken + beats("p1", "10", "60", "110", "155"),
			wrong: []string{"silence: job id-a (a) was taken from p1"}},
		{name: "too soon after its claim", story: begin + `
			die a 5 p1
			400 p3 reap a p1 scheduled
			run a 405..410 p2 succeed attempt=2
			= a succeeded`,
			wrong: []string{"silence: job id-a (a) was taken from p1"}},
		{name: "too soon after an outage", story: begin + taken + beats("p1", "10", "20", "30", "185") + beats("p2", "10", "20", "30", "180") + `
			-5000 p1 hello
			-5000 p2 hello
			-5000 p3 hello
			400 nemesis fault away on
			1700 nemesis fault away off`,
			wrong: []string{"silence: job id-a (a) was taken from p1"}},
		{name: "heard of in the job's partition all the time", story: "-10 p1 hello partitions=4" + begin + taken +
			strings.ReplaceAll(beats("p1", all...), "beat", "beat partition=2"),
			wrong: []string{"silence: job id-a (a) was taken from p1"}},

		{name: "heard of in another partition than the job's", story: "-10 p1 hello partitions=4" + begin + taken + beats("p1", all...)},
		{name: "who does not say how many partitions there are", story: `
			-10 p1 hello partitions=0
			-10 p2 hello partitions=0
			-10 p3 hello partitions=0` +
			begin + taken + beats("p1", all...)},
		{name: "from one that was killed", story: begin + taken},
		{name: "when it had been silent for long enough in between", story: begin + taken + beats("p1", "10", "20", "95", "100", "110", "120", "130", "140", "150", "160", "170", "180", "190")},
		{name: "a beat that was sent before it was stopped, and carried out or not", story: begin + taken + "\n1950 p1 beat 150" + beats("p1", "10")},
		{name: "the leader was stopped between the reap and its hook", story: begin + `
			die a 5 p1
			run a 805..810 p2 succeed attempt=2
			5000 p3 reap a p1 scheduled
			= a succeeded` + beats("p1", "90", "100", "110", "120", "130", "140")},
		{name: "the others are idle, so that nobody's beats are seen", story: begin + `
			die a 5 p1
			3000 p3 reap a p1 scheduled
			run a 3005..3010 p2 succeed attempt=2
			= a succeeded`},
		{name: "long after an outage", story: begin + `
			die a 5 p1
			2400 p3 reap a p1 scheduled
			run a 2405..2410 p2 succeed attempt=2
			= a succeeded
			-5000 p1 hello
			-5000 p2 hello
			-5000 p3 hello
			400 nemesis fault away on
			1700 nemesis fault away off`},
		{name: "before an outage, as is heard after it", story: begin + taken + `
			-5000 p1 hello
			-5000 p2 hello
			-5000 p3 hello
			700 nemesis fault away on
			1700 nemesis fault away off`},
		{name: "an outage that a new peer, by another way, knows nothing of", story: begin + taken + `
			-5000 p1 hello
			-5000 p2 hello
			-5000 p3 hello
			400 nemesis fault away on
			500 p4 hello
			1700 nemesis fault away off`},
		{name: "an outage that was none, since somebody was heard", story: begin + taken + beats("p2", "100") + `
			-5000 p1 hello
			-5000 p2 hello
			-5000 p3 hello
			400 nemesis fault away on
			1700 nemesis fault away off`},
	})
}

func TestOnlyWhatWasNeverStartedIsMissedAndOnlyWhatMayNotRunAgainUnreachable(t *testing.T) {
	t.Parallel()
	checkRows(t, []row{
		{name: "missed, and was started", story: `
			job a reruns=1 grace=20ms
			die a 5 p1
			= a missed unrecorded= runs=0`,
			wrong: []string{"silence: job id-a (a) is missed, and was started by p1"}},
		{name: "missed, and has runs", story: `
			job a grace=20ms
			= a missed runs=1`,
			wrong: []string{"silence: job id-a (a) is missed, and its record has 1 runs"}},
		{name: "missed as a hook says, and was started", story: `
			job a forgotten=
			run a 5..9 p1 giveback
			700 p2 miss a missed`,
			wrong: []string{"silence: job id-a (a) is missed, and was started by p1"}},
		{name: "unreachable with reruns left", story: `
			job a reruns=2
			die a 5 p1
			die a 705 p2 attempt=2
			1400 p3 reap a p2 unreachable
			= a unreachable`,
			wrong: []string{"silence: job id-a (a) is unreachable after 2 of its runs were lost, and had 2 reruns"}},
		{name: "unreachable after a run that was not lost", story: `
			job a retries=1
			run a 5..9 p1 retry
			= a unreachable`,
			wrong: []string{"silence: job id-a (a) is unreachable, and its last run was not lost"}},

		{name: "claimed, given back unstarted, and missed", story: `
			job a grace=20ms
			5 p1 claim a 5
			6 p1 settle a 5 unstarted
			700 p2 miss a missed
			= a missed epoch=5`},
		{name: "run, and then not in time", story: `
			job a grace=100ms retries=1
			run a 5..9 p1 retry
			700 p2 miss a failed
			= a failed`},
	})
}

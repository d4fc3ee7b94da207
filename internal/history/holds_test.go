package history

import "testing"

func TestHistoriesThatHold(t *testing.T) {
	t.Parallel()
	checkRows(t, []row{
		{name: "a job that succeeds", story: `
			job a
			run a 5..9 p1 succeed
			= a succeeded`},
		{name: "a retry", story: `
			job a retries=1 retryAfter=20ms
			run a 5..9 p1 retry
			run a 30..31 p2 succeed attempt=2
			= a succeeded`},
		{name: "a peer is killed, and another one runs its job", story: `
			job a reruns=1
			die a 5 p1
			700 p3 reap a p1 scheduled
			run a 705..710 p2 succeed attempt=2
			= a succeeded`},
	})
}

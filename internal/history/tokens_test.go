package history

import "testing"

func TestWhatRunsOnAPeerFitsItsTokensAndLeavesTheReserve(t *testing.T) {
	t.Parallel()
	two := `
		job a
		job b
		`
	ends := `
		= a succeeded
		= b succeeded`
	checkRows(t, []row{
		{name: "more than its tokens", story: two + `
			run a 5..9 p1 succeed weight=6
			run b 6..8 p1 succeed weight=5` + ends,
			wrong: []string{"tokens: job id-b (b) made p1 run 11 tokens at levels from 1 on, where it has 10"}},
		{name: "more than was asked for it", story: `
			job a weight=6
			job b weight=6
			run a 5..9 p1 succeed
			run b 6..8 p1 succeed` + ends,
			wrong: []string{"tokens: job id-b (b) made p1 run 12 tokens at levels from 1 on, where it has 10"}},
		{name: "into the reserve", story: two + `
			-10 p1 hello tokens=10 reserve=4
			run a 5..9 p1 succeed weight=4
			run b 6..8 p1 succeed weight=3` + ends,
			wrong: []string{"tokens: job id-b (b) made p1 run 7 tokens at levels from 2 on, where it has 6"}},
		{name: "an urgent job on top of too much", story: two + `
			-10 p1 hello tokens=10 reserve=4
			run a 5..9 p1 succeed weight=6
			run b 6..8 p1 succeed weight=5 priority=1` + ends,
			wrong: []string{"tokens: job id-b (b) made p1 run 11 tokens at levels from 1 on, where it has 10"}},
		{name: "claimed while a handler that was settled already goes on", story: two + `
			run a 5..9 p1 succeed weight=6
			6 p1 settle a 5 succeed
			run b 7..8 p1 succeed weight=6` + ends,
			wrong: []string{
				"one-end",
				"one-end",
				"tokens: job id-b (b) made p1 run 12 tokens at levels from 1 on, where it has 10"}},

		{name: "all of its tokens, the reserve by an urgent job", story: two + `
			-10 p1 hello tokens=10 reserve=4
			run a 5..9 p1 succeed weight=6
			run b 6..8 p1 succeed weight=4 priority=1` + ends},
		{name: "urgent jobs in the tokens of others", story: two + `
			-10 p1 hello tokens=10 reserve=4
			run a 5..9 p1 succeed weight=6 priority=1
			run b 6..8 p1 succeed weight=4 priority=1` + ends},
		{name: "on two peers", story: two + `
			run a 5..9 p1 succeed weight=6
			run b 6..8 p2 succeed weight=6` + ends},
		{name: "a handler that panicked", story: two + `
			5 p1 claim a 5 weight=6
			5 p1 start a 5 weight=6
			6 p1 settle a 5 fail
			run b 7..8 p1 succeed weight=6
			= a failed unrecorded= epoch=5 runs=1
			= b succeeded`},
	})
}

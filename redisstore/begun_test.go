package redisstore

import (
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

func TestAClaimWithOneUnreadableRecordGivesTheOtherJobsAllTheSame(t *testing.T) {
	t.Parallel()
	now := time.UnixMilli(1_700_000_000_000)
	spec := string(dianemo.EncodeSpec(&dianemo.Spec{Kind: "kind", Priority: 2, Args: []byte(`{}`)})) + "1700000000000"
	lane := dianemo.Lane{Kind: "kind", Priority: 2}
	claim := dianemo.Claim{Lanes: []dianemo.ClaimLane{{Lane: lane, Weight: 1}}}
	for _, place := range []int64{0, 1} { // given again, for the first time
		size := strconv.Itoa(len(spec))
		jobs := []any{place, "bad r11 " + size + " newer r11 " + size + " good 1700000000000 " + size,
			"1|running|x" + spec + "2|who|knows" + spec + spec}
		var answer dianemo.TurnReply
		require.NoError(t, claimed([]any{"ok", now.UnixMicro(), []any{jobs}, []any{}, []any{}, "", int64(0)}, claim, &answer))
		require.Len(t, answer.Jobs, 3)
		for i, id := range []string{"bad", "newer", "good"} {
			require.Equal(t, id, answer.Jobs[i].ID)
			require.Equal(t, id != "good", answer.Jobs[i].Corrupt != "")
			require.True(t, place == 0 || answer.Jobs[i].Lane == lane)
		}
		require.Equal(t, now.UnixMicro(), answer.Jobs[0].Epoch)
	}
}

func TestAClaimWhoseAnswerIsCutShortIsAnError(t *testing.T) {
	t.Parallel()
	claim := dianemo.Claim{Lanes: []dianemo.ClaimLane{{Lane: dianemo.Lane{Kind: "kind", Priority: 2}, Weight: 1}}}
	for what, jobs := range map[string][]any{
		"no texts":          {int64(1), "a 1 5"},
		"a short spec":      {int64(1), "a 1 5", "1234"},
		"a short record":    {int64(1), "a r9 5", "12345"},
		"no number":         {int64(1), "a 1 five", "12345"},
		"a negative one":    {int64(1), "a r-3 5", "12345"},
		"too few words":     {int64(1), "a 1", "12345"},
		"the second's spec": {int64(1), "a 1 5 b 1 5", "123456"},
	} {
		var answer dianemo.TurnReply
		require.ErrorContains(t, claimed([]any{"ok", int64(1), []any{jobs}, []any{}, []any{}, "", int64(0)}, claim, &answer), "claim answered", what)
	}
}

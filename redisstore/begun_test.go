package redisstore

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

func TestAClaimWithOneUnreadableRecordGivesTheOtherJobsAllTheSame(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	spec := string(dianemo.EncodeSpec(&dianemo.Spec{Kind: "kind", Priority: 2, Args: []byte(`{}`)})) + "1700000000000"
	lane := dianemo.Lane{Kind: "kind", Priority: 2}
	claim := dianemo.Claim{Lanes: []dianemo.ClaimLane{{Lane: lane, Weight: 1}}}
	for _, place := range []int64{0, 1} { // given again, for the first time
		jobs := []any{place, "bad - newer - good 1700000000000", spec, "1|running|x", spec, "2|who|knows", spec}
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
	claim := dianemo.Claim{Lanes: []dianemo.ClaimLane{{Lane: dianemo.Lane{Kind: "kind", Priority: 2}, Weight: 1}}}
	for what, jobs := range map[string][]any{
		"no words":          {int64(1)},
		"no spec":           {int64(1), "a 1"},
		"no record":         {int64(1), "a -", "spec"},
		"the second's spec": {int64(1), "a 1 b 1", "spec"},
	} {
		var answer dianemo.TurnReply
		require.ErrorContains(t, claimed([]any{"ok", int64(1), []any{jobs}, []any{}, []any{}, "", int64(0)}, claim, &answer), "claim answered", what)
	}
}

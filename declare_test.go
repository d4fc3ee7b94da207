package dianemo_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
)

// there waits until a schedule is there, and reads it.
func there(t *testing.T, c *dianemo.Client, name string) *dianemo.ScheduleInfo {
	t.Helper()
	var info *dianemo.ScheduleInfo
	require.Eventually(t, func() (ok bool) {
		var err error
		info, err = c.GetSchedule(t.Context(), name)
		return err == nil
	}, 20*time.Second, 5*time.Millisecond, name)
	return info
}

// declares registers schedules.
func declares(t *testing.T, schedules ...dianemo.Schedule) func(p *dianemo.Peer) {
	return func(p *dianemo.Peer) {
		for _, s := range schedules {
			require.NoError(t, p.Schedule(s))
		}
	}
}

// What is read of a rule of one's own are the next instants only: put, they would be
// a schedule that ends.
func TestARuleOfOnesOwnThatWasReadCanNotBePut(t *testing.T) {
	store := embeddedStore(t, 1)
	c := client(t, store)
	kind := dianemo.NewKind[Args]("kind", dianemo.Policy{})
	start(t, store, quick, declares(t, dianemo.Schedule{Name: "s", Rule: ownRule{time.Hour}, Job: kind.New(Args{})}))
	info := there(t, c, "s")
	changed := info.Schedule
	changed.Overlap = dianemo.OverlapSkip
	var wrong *dianemo.FieldError
	require.ErrorAs(t, c.PutSchedule(t.Context(), changed), &wrong)
	require.Equal(t, "rule", wrong.Field)
	_, err := dianemo.RuleText(changed.Rule)
	require.ErrorIs(t, err, dianemo.ErrInvalid)
	peer, err := dianemo.NewPeer(store, quick)
	require.NoError(t, err)
	require.ErrorIs(t, peer.Schedule(changed), dianemo.ErrInvalid)

	again := there(t, c, "s")
	require.Equal(t, dianemo.OverlapAllow, again.Overlap)
	require.Len(t, again.Preview(10), 10)
	require.Equal(t, again.Preview(10), dianemo.Preview(again.Rule, again.Decided, 10))
}

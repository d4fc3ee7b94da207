package sample_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo/internal/sample"
)

func TestTheShortFormPicksAPartInOrderAndTheLongOneTakesAll_Long(t *testing.T) {
	rows := make([]int, 95)
	for i := range rows {
		rows[i] = i
	}
	t.Setenv("DIANEMO_LONG", "")
	picked := sample.Rows(t, rows, 10)
	require.Len(t, picked, 10)
	require.IsIncreasing(t, picked)
	require.Subset(t, rows, picked)
	require.Equal(t, picked, sample.Rows(t, rows, 10), "the same seed picks the same")
	require.Equal(t, 1, sample.Part(t, 5, 10))

	t.Run("another", func(t *testing.T) {
		require.NotEqual(t, picked, sample.Rows(t, rows, 10))
	})
	t.Setenv("DIANEMO_LONG", "1")
	require.Equal(t, rows, sample.Rows(t, rows, 10))
	require.Equal(t, 95, sample.Part(t, 95, 10))
}

// A recorder is a test that may fail without consequence.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Name() string          { return "TestOfAnotherName/Long" }
func (r *recorder) Helper()               {}
func (r *recorder) Fatalf(string, ...any) { r.failed = true }

func TestATestWithALongFormSaysSoInItsName(t *testing.T) {
	r := &recorder{}
	sample.Long(r)
	require.True(t, r.failed)
}

package dianemo

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func newGauge(t *testing.T, c LoadConfig) *gauge {
	require.NoError(t, c.fill())
	return &gauge{config: &c}
}

func TestAHostIsHotFromTheHighMarkUntilBelowTheLowOne(t *testing.T) {
	t.Parallel()
	var g *gauge
	for _, row := range []struct {
		fresh  *LoadConfig // nil: the gauge of the row before
		load   Load
		share  float64
		hot    bool
		single bool
	}{
		{fresh: &LoadConfig{}, load: Load{Host: 0.5, Own: 0.2}, share: 0.3},
		{load: Load{Host: 0.89}, share: 0.89},
		{load: Load{Host: 0.9}, share: 0.9, hot: true},
		{load: Load{Host: 0.8}, share: 0.8, hot: true},
		{load: Load{Host: 0.75}, share: 0.75, hot: true},
		{load: Load{Host: 0.74}, share: 0.74},
		{load: Load{Host: 0.89}, share: 0.89},
		{load: Load{Host: 1, Own: 1}, share: 0},
		{load: Load{Host: 1, Own: 0.1}, share: 0.9, hot: true},
		{load: Load{Host: 0.2, Own: 0.5}, share: 0}, // own is not read at the same instant
		// What the quota held back was wanted.
		{load: Load{Host: 0.5, Own: 0.1, Throttled: 0.2}, share: 0.6},
		{load: Load{Host: 0.5, Own: 0.5, Throttled: 0.3}, share: 0.3},
		{load: Load{Host: 1, Own: 1, Throttled: 1}, share: 0},
		{load: Load{Host: 0.7, Throttled: 0.7}, share: 1, hot: true},
		{load: Load{}, share: 0},

		{fresh: &LoadConfig{High: 0.5}, load: Load{Host: 0.5}, share: 0.5, hot: true},
		{load: Load{Host: 0.49}, share: 0.49}, // Low is High where that is less than its default
		{fresh: &LoadConfig{High: 1, Low: 1}, load: Load{Host: 1}, share: 1, hot: true},
		{load: Load{Host: 0.99}, share: 0.99},

		{fresh: &LoadConfig{CountSelf: true}, load: Load{Host: 0.8, Own: 0.8}, share: 0.8, single: true},
		{load: Load{Host: 0.95, Own: 0.5}, share: 0.95, hot: true, single: true},
		{load: Load{Host: 0.95, Own: 0}, share: 0.95, hot: true},
		{load: Load{Host: 0.95, Own: 0.2}, share: 0.95, hot: true}, // others alone are not below the low mark
		{load: Load{Host: 0.95, Own: 0.3}, share: 0.95, hot: true, single: true},
	} {
		if row.fresh != nil {
			g = newGauge(t, *row.fresh)
		}
		require.NoError(t, g.take(row.load, nil))
		b := g.budget()
		require.InDelta(t, row.share, b.share, 1e-9, "%+v", row)
		require.Equal(t, row.hot, b.hot, "%+v", row)
		require.Equal(t, row.single, b.single, "%+v", row)
	}
}

func TestTheLastLoadCountsForTenBadSamplesAndThenNone(t *testing.T) {
	t.Parallel()
	for _, self := range []bool{false, true} {
		g := newGauge(t, LoadConfig{CountSelf: self})
		require.Error(t, g.take(Load{}, errors.New("no")))
		require.Equal(t, budget{}, g.budget(), "without any, no load counts")
		require.NoError(t, g.take(Load{Host: 0.95}, nil))
		hot := budget{share: 0.95, hot: true}
		bad := []Load{{Host: math.NaN()}, {Own: math.NaN()}, {Throttled: math.NaN()}}
		for i := range badSamples - 1 {
			require.Error(t, g.take(bad[i%3], nil))
			require.Equal(t, hot, g.budget())
			require.True(t, g.known)
		}
		for range 3 {
			require.Error(t, g.take(bad[0], nil))
			require.Equal(t, budget{}, g.budget())
			require.False(t, g.known)
		}
		require.NoError(t, g.take(Load{Host: 0.8}, nil))
		require.True(t, g.known)
		require.False(t, g.budget().hot, "that it was hot is forgotten")
		require.Error(t, g.take(bad[0], nil))
		require.True(t, g.known, "ten in a row, counted anew")
	}
}

func TestSharesOutOfBoundsAreBroughtIntoThem(t *testing.T) {
	t.Parallel()
	nan, much := math.NaN(), 7.0
	l := Load{Host: math.Inf(1), Own: -1, Throttled: 3, Pressure: &nan}
	require.NoError(t, l.check())
	require.Equal(t, Load{Host: 1, Own: 0, Throttled: 1}, l, "and a pressure that is no number is unknown")
	l = Load{Host: math.Inf(-1), Pressure: &much}
	require.NoError(t, l.check())
	require.Equal(t, 1.0, *l.Pressure)
	require.Equal(t, 7.0, much, "the source's own value is not touched")
}

func TestBadMarksAreRefusedByName(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	for _, row := range []struct {
		field  string
		config LoadConfig
	}{
		{"Config.Load.High", LoadConfig{High: 1.01}},
		{"Config.Load.High", LoadConfig{High: -0.1}},
		{"Config.Load.High", LoadConfig{High: nan}},
		{"Config.Load.Low", LoadConfig{Low: 0.91}},
		{"Config.Load.Low", LoadConfig{High: 0.5, Low: 0.6}},
		{"Config.Load.Low", LoadConfig{Low: -1}},
		{"Config.Load.Low", LoadConfig{Low: nan}},
		{"Config.Load.Every", LoadConfig{Every: -time.Second}},
		{"Config.Load.Every", LoadConfig{Every: time.Millisecond, Off: true}},
	} {
		var got *FieldError
		require.ErrorAs(t, row.config.fill(), &got, "%+v", row)
		require.Equal(t, row.field, got.Field)
	}
	c := LoadConfig{}
	require.NoError(t, c.fill())
	require.Equal(t, []any{time.Second, 0.9, 0.75}, []any{c.Every, c.High, c.Low})
}

// However many peers there are, this host is read once, and nobody reads it
// when the last has ended.
func TestThePeersOfAProcessShareOneReader(t *testing.T) {
	t.Parallel()
	h := &hostReader{}
	h.join()
	reader := h.reader
	h.join()
	require.Same(t, reader, h.reader)
	_, err := h.read(time.Second)
	require.ErrorIs(t, err, errTooSoon)
	h.last, h.known = Load{Host: 0.25}, true
	got, err := h.read(time.Hour)
	require.NoError(t, err)
	require.Equal(t, Load{Host: 0.25}, got, "what was just read for another peer")

	h.at = h.at.Add(-time.Hour)
	_, err = h.read(time.Hour)
	require.NoError(t, err)
	require.Less(t, time.Since(h.at), 30*time.Minute, "an old one is read anew")

	h.leave()
	require.Same(t, reader, h.reader)
	h.leave()
	require.Nil(t, h.reader)
	_, err = h.read(time.Second)
	require.ErrorIs(t, err, errTooSoon)
	h.join()
	require.False(t, h.known, "who comes later does not get what is long past")
}

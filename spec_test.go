package dianemo

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo/internal/sample"
)

func TestASpecSurvivesItsEncoding(t *testing.T) {
	t.Parallel()
	for _, s := range []Spec{
		{Kind: "k", Priority: 1},
		{Kind: "k", Priority: 1, RunAt: time.UnixMilli(1_700_000_000_001)},
		{Kind: "k", Priority: 1, Delay: time.Hour + 1},
		{Kind: "mail/send@v2", Priority: 9, Grace: Unlimited, Weight: MaxWeight, Timeout: Unlimited, Retries: None, Reruns: None, Args: []byte("{}")},
		{Kind: "k", Priority: 2, Grace: 24 * time.Hour, Timeout: time.Nanosecond, Retries: 1000, Reruns: 1, Codec: 3, Key: "2026-1",
			Headers: map[string]string{"": "empty name", "empty value": "", "größe": "\x00\xff"}, Args: []byte(strings.Repeat("x", MaxPayload))},
		{Kind: "k", Priority: 2, Workflow: "w", Name: "n", Ahead: time.Hour, Parents: []Parent{{ID: "a", On: OnSuccess, Near: time.Minute}, {ID: "b", On: OnChosen}}},
		{Kind: "workflow/k", Priority: 2, Schedule: "s", At: time.UnixMilli(1).UTC(), Follow: true, Plan: [][]byte{[]byte("one"), {}, []byte("three")}},
	} {
		back, err := DecodeSpec(EncodeSpec(&s))
		require.NoError(t, err)
		if s.Args == nil {
			s.Args = []byte{}
		}
		require.Equal(t, &s, back)
	}
}

func TestASpecOfAnotherVersionOrWithUnknownFieldsIsRead(t *testing.T) {
	t.Parallel()
	b := EncodeSpec(&Spec{Kind: "k", Priority: 2, Args: []byte("1")})
	back, err := DecodeSpec(append(b, 'Z', 3, 'a', 'b', 'c'))
	require.NoError(t, err)
	require.Equal(t, "k", back.Kind)
	b[0]++
	_, err = DecodeSpec(b)
	require.ErrorIs(t, err, errSpecNewer)
	b[0] = '0'
	_, err = DecodeSpec(b)
	require.ErrorIs(t, err, errSpecCorrupt)
}

// Whatever the bytes, decoding ends in a valid spec or in an error.
func TestNoBytesBreakTheDecoder_Long(t *testing.T) {
	t.Parallel()
	rng := sample.Rand(t)
	whole := EncodeSpec(&Spec{Kind: "kind", Priority: 2, Grace: time.Hour, Retries: 3, Headers: map[string]string{"a": "b"}, Args: []byte(`{"n":1}`)})
	for range sample.Part(t, 200_000, 10) {
		b := append([]byte(nil), whole[:rng.IntN(len(whole)+1)]...)
		for range rng.IntN(4) {
			if len(b) > 1 {
				b[1+rng.IntN(len(b)-1)] = byte(rng.IntN(256))
			}
		}
		if s, err := DecodeSpec(b); err == nil {
			require.NoError(t, CheckName("kind", s.Kind))
			require.True(t, 1 <= s.Priority && s.Priority <= 9)
		}
	}
}

func TestBackoffGrowsToItsLimit(t *testing.T) {
	t.Parallel()
	retryIn := Exponential(time.Second, time.Minute)
	for attempt, most := range map[int]time.Duration{1: time.Second, 2: 2 * time.Second, 5: 16 * time.Second, 7: time.Minute, 100: time.Minute, 1 << 40: time.Minute} {
		for range 100 {
			got := retryIn(attempt, nil)
			require.LessOrEqual(t, got, most)
			require.GreaterOrEqual(t, got, most*3/4)
		}
	}
	require.Equal(t, time.Hour, Every(time.Hour)(3, nil))
}

// The defaults of the priorities, and what goes before them: the kind, and
// before that the job.
func TestTheDefaultsOfThePriorities(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		policy          Policy
		options         Options
		priority        int
		grace           time.Duration
		retries, reruns int
		weight          int
	}{
		{Policy{Priority: 1}, Options{}, 1, time.Minute, None, None, 1},
		{Policy{}, Options{}, 2, 24 * time.Hour, 3, 3, 1},
		{Policy{Priority: 9}, Options{}, 9, 24 * time.Hour, 3, 3, 1},
		{Policy{Priority: 3}, Options{Priority: 1}, 1, time.Minute, None, None, 1},
		{Policy{Priority: 1, Grace: Unlimited, Retries: 7, Reruns: 8, Weight: 9}, Options{}, 1, Unlimited, 7, 8, 9},
		{Policy{Grace: 61*time.Second + 1, Retries: 7, Reruns: None, Weight: 9}, Options{Retries: None, Weight: 2}, 2, 61*time.Second + 1, None, None, 2},
		{Policy{Grace: time.Hour}, Options{Grace: Unlimited, Reruns: 1}, 2, Unlimited, 3, 1, 1},
		{Policy{Grace: time.Hour}, Options{Grace: 36 * time.Hour}, 2, 36 * time.Hour, 3, 3, 1},
		{Policy{Grace: time.Hour}, Options{Grace: 121*time.Second + 7}, 2, 125 * time.Second, 3, 3, 1},
	} {
		request := NewKind[int]("kind", row.policy).NewWith(1, row.options)
		record, err := request.record()
		require.NoError(t, err)
		spec, err := DecodeSpec(record.Spec)
		require.NoError(t, err)
		require.Equal(t, []any{row.priority, row.grace}, []any{record.Lane.Priority, record.Lane.Grace}, "%+v", row)
		p := &Peer{kinds: map[string]registered{"kind": {policy: row.policy}}}
		own, ok := p.own(record.Lane)
		require.True(t, ok)
		level := defaults(row.priority)
		require.Equal(t, row.weight, inherit(record.Weight, own.Weight), "%+v", row)
		require.Equal(t, max(row.reruns, 0), max(inherit(record.Reruns, own.Reruns), 0), "%+v", row)
		require.Equal(t, row.retries, inherit(spec.Retries, row.policy.Retries, level.Retries), "%+v", row)
		require.Equal(t, 30*time.Minute, level.RetryIn(1, nil))
	}
}

func TestGracesOfJobsFallIntoFewLanes(t *testing.T) {
	t.Parallel()
	lanes := map[time.Duration]bool{}
	for d := time.Millisecond; d < 10*365*24*time.Hour; d += d/100 + 1 {
		lane := laneGrace(d)
		require.GreaterOrEqual(t, lane, d)
		require.LessOrEqual(t, float64(lane), float64(d)*1.05+float64(time.Millisecond))
		lanes[lane] = true
	}
	require.Less(t, len(lanes), 1500)
	for _, d := range []time.Duration{time.Second, 90 * time.Second, 5 * time.Minute, time.Hour, 24 * time.Hour, 36 * time.Hour, 30 * 24 * time.Hour, Unlimited} {
		require.Equal(t, d, laneGrace(d))
	}
}

func TestLaneWeightsArePowersOfTwo(t *testing.T) {
	t.Parallel()
	for weight, lane := range map[int]int{0: 0, 1: 1, 2: 2, 3: 4, 9: 16, 64: 64, MaxWeight: MaxWeight} {
		require.Equal(t, lane, laneWeight(weight))
	}
}

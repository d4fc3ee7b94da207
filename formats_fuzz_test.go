package dianemo

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// plain is a spec without what its stored form does not tell from nothing.
func (s Spec) plain() Spec {
	if s.RunAt.UnixMilli() == 0 {
		s.RunAt = time.Time{}
	}
	if s.At.UnixMilli() == 0 {
		s.At = time.Time{}
	}
	if s.Args == nil {
		s.Args = []byte{}
	}
	if s.Many == 0 {
		s.ManyOn = ""
	}
	return s
}

func FuzzSpec(f *testing.F) {
	for _, s := range []Spec{
		{Kind: "k", Priority: 1},
		{Kind: "mail/send@v2", Priority: 9, Grace: Unlimited, Weight: MaxWeight, Timeout: Unlimited, Retries: None, Reruns: None, Args: []byte("{}")},
		{Kind: "k", Priority: 2, Grace: 24 * time.Hour, RunAt: time.UnixMilli(1_700_000_000_001), Codec: 3, Key: "2026-1", Headers: map[string]string{"": "x", "a": ""}},
		{Kind: "k", Priority: 2, Workflow: "w", Name: "n", Ahead: time.Hour, Teller: 1e15, Parents: []Parent{{ID: "a", On: OnSuccess, Near: time.Minute}, {ID: "b", On: OnChosen}}},
		{Kind: "k", Priority: 2, Many: 5000, ManyOn: OnEnd, Delay: time.Hour + 1},
	} {
		f.Add(EncodeSpec(&s))
	}
	f.Add(EncodeSpec(nightlyPlan(f)))
	f.Add(EncodeSpec(&Spec{Kind: "k", Priority: 2, Weight: 1 << 62}))
	f.Add(EncodeSpec(&Spec{Kind: "k", Priority: 2, Weight: -1}))
	f.Add(EncodeSpec(&Spec{Kind: "k", Priority: 2, Grace: 1<<63 - 1}))
	f.Add([]byte("1k\x01k"))
	f.Add([]byte("2"))
	f.Add([]byte("1k\x01kp\x01\x04h\x02\x05x"))
	f.Fuzz(func(t *testing.T, stored []byte) {
		s, err := DecodeSpec(stored)
		if err != nil {
			require.True(t, errors.Is(err, errSpecNewer) || errors.Is(err, errSpecCorrupt), "%v", err)
			return
		}
		text := EncodeSpec(s)
		back, err := DecodeSpec(text)
		require.NoError(t, err)
		require.Equal(t, s.plain(), back.plain())
		require.Equal(t, text, EncodeSpec(back))

		lane := s.Lane()
		require.NoError(t, CheckName("kind", lane.Kind))
		require.True(t, 1 <= lane.Priority && lane.Priority <= 9)
		require.True(t, s.Weight <= lane.Weight && lane.Weight <= MaxWeight)
		require.GreaterOrEqual(t, lane.Grace, time.Duration(Unlimited))
		require.GreaterOrEqual(t, s.Members(), 0)
		job := StoredJob{Spec: stored}
		job.decode()
		_, _ = workflowInfo(&job.Info)
		if flow, err := s.workflow(); err == nil {
			plan, _, err := flow.requests(MaxWorkflow)
			_, _ = plan, err // a wrong argument of a job is an error
			require.NoError(t, s.prioritize(3))
			_, err = s.workflow()
			require.NoError(t, err)
		}
	})
}

func nightlyPlan(f *testing.F) *Spec {
	flow := NewWorkflow("nightly")
	kind := NewKind[int]("rows.load", Policy{})
	flow.Add("load", kind.New(1))
	flow.Add("sum", kind.New(2)).After("load")
	plan, err := flow.plan("every-night")
	require.NoError(f, err)
	return plan
}

func FuzzDefinition(f *testing.F) {
	rule := func(r Rule, err error) Rule {
		require.NoError(f, err)
		return r
	}
	kind := NewKind[int]("rows.load", Policy{})
	for _, s := range []Schedule{
		{Name: "s", Rule: rule(Cron("30 2 * * *", "Europe/Berlin")), Job: kind.New(1), Jitter: time.Minute, Overlap: OverlapWait},
		{Name: "s", Rule: rule(Interval(time.Hour)), Job: kind.New(1), Start: time.UnixMilli(1), End: time.UnixMilli(1e12), Missed: MissedAll, MissedMax: 7},
		{Name: "s", Rule: rule(AfterFinish(time.Second)), Job: kind.New(1), Missed: MissedSkip},
		{Name: "s", Rule: rule(At(time.UnixMilli(5), time.UnixMilli(1e12))), Job: kind.New(1)},
	} {
		d, err := s.definition()
		require.NoError(f, err)
		b, err := d.encode()
		require.NoError(f, err)
		f.Add(b)
	}
	job := EncodeSpec(&Spec{Kind: "k", Priority: 2, Args: []byte("1")})
	for _, d := range []definition{
		{Form: 1, Rule: "own main.tides", Job: job, Missed: MissedLatest, Overlap: OverlapSkip, Known: []int64{1e12, 5, 5, 2e12}, Declared: "sum", Built: 7},
		{Form: 1, Rule: "interval 1m0s", Job: EncodeSpec(nightlyPlan(f)), Missed: MissedLatest, Overlap: OverlapAllow},
		{Form: 1, Rule: "interval 1m0s", Job: job, Missed: MissedLatest, Overlap: OverlapAllow, Start: 1 << 62, End: 1 << 62},
		{Form: 2, Rule: "who knows"},
	} {
		b, err := d.encode()
		require.NoError(f, err)
		f.Add(b)
	}
	f.Add([]byte(`{"v":3,"rule":7}`))
	f.Add([]byte(`{`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, stored []byte) {
		d, err := decodeDefinition(stored)
		if err != nil {
			return
		}
		text, err := d.encode()
		require.NoError(t, err)
		back, err := decodeDefinition(text)
		require.NoError(t, err)
		again, err := back.encode()
		require.NoError(t, err)
		require.Equal(t, string(text), string(again))
		require.Equal(t, d.text(), back.text())
		require.True(t, d.sameInstants(back))
		for _, from := range []int64{0, 1_700_000_000_000, d.Start, d.End} {
			at := instant(from)
			for range 3 {
				next, err := d.next(at)
				require.NoError(t, err, "it is fit to be fired")
				other, err := back.next(at)
				require.NoError(t, err)
				require.Equal(t, next, other)
				if next.IsZero() {
					break
				}
				require.True(t, next.After(at))
				require.True(t, d.Start == 0 || next.UnixMilli() >= d.Start)
				require.True(t, d.End == 0 || next.UnixMilli() <= d.End)
				o := d.occurrence("name", next)
				require.True(t, !o.due.Before(next) && !o.due.After(next.Add(maxJitter)))
				require.NoError(t, CheckName("id", d.record(OccurrenceID("name", next), o).ID))
				at = next
			}
		}
		shown := d.schedule("name")
		require.NotEmpty(t, shown.kinds())
		if made, err := shown.definition(); err == nil {
			text, err := made.encode()
			require.NoError(t, err)
			_, err = decodeDefinition(text)
			require.NoError(t, err)
		}
	})
}

// Both cursors are read from what a user hands in again, which a sum protects: it is set right here.
func FuzzListCursors(f *testing.F) {
	place := Place{time.UnixMicro(1_700_000_000_000_001), "mail@7"}
	for _, s := range []string{place.cursor(), sweepPlace{Place: place, ended: time.UnixMicro(5)}.cursor(), sweepPlace{ended: time.UnixMicro(5)}.cursor()} {
		b, ok := unseal(s)
		require.True(f, ok)
		f.Add(b)
	}
	f.Add([]byte("1\x00\x00\x00\x00\x00\x00\x00\x01"))
	f.Add([]byte("1\xff\x00\x00\x00\x00\x00\x00\x01x"))
	f.Add([]byte("s\xff\x00\x00\x00\x00\x00\x00\x01\xff\x00\x00\x00\x00\x00\x00\x01x"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, s := range []string{string(b), seal(b)} {
			listing := Listing{Filter: Filter{After: s}}
			if err := listing.fill(); err == nil && s != "" {
				require.Equal(t, s, listing.After.cursor())
				require.NoError(t, CheckName("id", listing.After.ID))
			} else if err != nil {
				require.ErrorIs(t, err, ErrInvalid)
			}
			if place, ok := parseSweep(s); ok {
				require.Equal(t, s, place.cursor())
			}
		}
		changed := []byte(seal(b))
		changed[0] ^= 1
		_, ok := parseCursor(string(changed))
		require.False(t, ok)
		_, ok = parseSweep(string(changed))
		require.False(t, ok)
		if len(b) >= 8 {
			place := Place{time.UnixMicro(int64(binary.BigEndian.Uint64(b) >> 2)), string(b[8:])}
			back, ok := parseCursor(place.cursor())
			require.Equal(t, CheckName("", place.ID) == nil, ok)
			require.True(t, !ok || back == place)
		}
	})
}

func FuzzGraph(f *testing.F) {
	for _, g := range []Graph{{}, {"nightly-7", "nightly", Running, []GraphJob{{"load", "nightly-7@load", "rows.load", Failed, "timeout"}, {"gone", "nightly-7@gone", "", "", ""}},
		[]GraphEdge{{"gone", "load", OnChosen}, {"outside", "load", OnSuccess}}}} {
		b, err := json.Marshal(g)
		require.NoError(f, err)
		f.Add(b)
	}
	f.Add([]byte(`{"jobs":[{"name":"\"\\N"}],"edges":[{"parent":"\n","child":"é\u0000"}]}`))
	f.Fuzz(func(t *testing.T, stored []byte) {
		var g, back Graph
		if json.Unmarshal(stored, &g) != nil {
			return
		}
		text, err := json.Marshal(g)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &back))
		require.Equal(t, g, back)
		require.Equal(t, g.DOT(), back.DOT())
	})
}

// Ids that the library makes of names are different where these are, and tell them again.
func FuzzMadeIDs(f *testing.F) {
	f.Add("w", "a", "b", int64(0), int64(1))
	f.Add("w@a", "b", "w@a@b", int64(1_700_000_000_000), int64(1_700_000_000_500))
	f.Add("w", "w@a", "a", int64(1), int64(1))
	f.Add("w", "a/w", "a", int64(-1), int64(lastInstant))
	f.Fuzz(func(t *testing.T, workflow, one, two string, ms1, ms2 int64) {
		for _, name := range []string{workflow, one, two} {
			if CheckName("", name) != nil {
				return
			}
		}
		for _, spread := range []bool{false, true} {
			first, second := memberID(workflow, one, spread), memberID(workflow, two, spread)
			require.Equal(t, one == two, first == second)
			require.NotEqual(t, workflow, first)
			require.Equal(t, one, memberName(workflow, first, spread), first)
		}
		key1, key2 := Unique{Key: one}.route(workflow), Unique{Key: two}.route(workflow)
		require.Equal(t, one == two, key1 == key2)
		require.Equal(t, workflow == one, Unique{Key: two}.route(workflow) == Unique{Key: two}.route(one))
		if ms1 < 0 || ms2 < 0 || ms1 > lastInstant || ms2 > lastInstant {
			return
		}
		schedule := base64.RawURLEncoding.EncodeToString([]byte(one))[:min(len(one), MaxScheduleName)] // any name without an @
		id1, id2 := OccurrenceID(schedule, time.UnixMilli(ms1)), OccurrenceID(schedule, time.UnixMilli(ms2))
		require.Equal(t, ms1 == ms2, id1 == id2)
		require.NoError(t, CheckName("id", id1))
		require.Regexp(t, "^"+schedule+"@[0-9]{8}T[0-9]{6}(\\.[0-9]{3})?Z$", id1)
	})
}

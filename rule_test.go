package dianemo

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo/internal/sample"
)

func ruleOf(t testing.TB) func(rule Rule, err error) Rule {
	return func(rule Rule, err error) Rule {
		t.Helper()
		require.NoError(t, err)
		return rule
	}
}

func utc(t *testing.T, s string) time.Time {
	at, err := time.Parse(time.RFC3339Nano, s)
	require.NoError(t, err)
	return at.UTC()
}

func TestRulesSayWhatIsNextAndSurviveBeingStored(t *testing.T) {
	t.Parallel()
	must := ruleOf(t)
	start := time.Date(2026, 1, 1, 12, 0, 0, 7_654_321, time.FixedZone("", 3600))
	list := []time.Time{utc(t, "2026-03-01T00:00:00Z"), utc(t, "2026-01-01T00:00:00.0019Z"), utc(t, "2026-03-01T00:00:00.0002Z")}
	for _, row := range []struct {
		rule        Rule
		text        string
		after, want string // "": never again
	}{
		{must(Interval(90 * time.Second)), "interval 1m30s", "2026-01-01T00:00:00Z", "2026-01-01T00:01:30Z"},
		{must(Interval(90 * time.Second)), "interval 1m30s", "2026-01-01T00:01:29.999999999Z", "2026-01-01T00:01:30Z"},
		{must(Interval(1500 * time.Millisecond)), "interval 1.5s", "2026-01-01T00:00:00.7Z", "2026-01-01T00:00:01.5Z"},
		{must(Interval(MaxSpan)), "interval 876000h0m0s", "2026-01-01T00:00:00Z", "2069-12-07T00:00:00Z"},
		{must(Interval(time.Second)), "interval 1s", "9999-12-31T23:59:59Z", ""},
		{must(Interval(time.Hour)), "interval 1h0m0s", "0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z"},
		{must(IntervalFrom(start, time.Hour)), "interval 1h0m0s from 2026-01-01T11:00:00.007Z", "2025-01-01T00:00:00Z", "2026-01-01T11:00:00.007Z"},
		{must(IntervalFrom(start, time.Hour)), "interval 1h0m0s from 2026-01-01T11:00:00.007Z", "2026-01-01T11:00:00.007Z",
			"2026-01-01T12:00:00.007Z"},
		{must(IntervalFrom(time.Unix(0, 0), time.Hour)), "interval 1h0m0s", "2026-01-01T00:00:00Z", "2026-01-01T01:00:00Z"},
		{must(AfterFinish(10 * time.Minute)), "finish 10m0s", "2026-01-01T00:00:07.5Z", "2026-01-01T00:10:07.5Z"},
		{must(AfterFinish(MaxSpan)), "finish 876000h0m0s", "9999-12-31T23:59:59Z", ""},
		{must(At(list...)), "at 2026-01-01T00:00:00.001Z 2026-03-01T00:00:00Z", "2000-01-01T00:00:00Z", "2026-01-01T00:00:00.001Z"},
		{must(At(list...)), "at 2026-01-01T00:00:00.001Z 2026-03-01T00:00:00Z", "2026-01-01T00:00:00.001Z", "2026-03-01T00:00:00Z"},
		{must(At(list...)), "at 2026-01-01T00:00:00.001Z 2026-03-01T00:00:00Z", "2026-03-01T00:00:00Z", ""},
		{must(Cron(" @DAILY ", "")), "cron UTC @daily", "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z"},
		{must(Cron("30  2 * *\tmon", "Europe/Berlin")), "cron Europe/Berlin 30 2 * * MON", "2026-03-01T00:00:00Z", "2026-03-02T01:30:00Z"},
		{must(Cron("@every 90s", "Europe/Berlin")), "interval 1m30s", "2026-01-01T00:00:00Z", "2026-01-01T00:01:30Z"},
	} {
		text, err := RuleText(row.rule)
		require.NoError(t, err)
		require.Equal(t, row.text, text)
		require.Equal(t, text, fmt.Sprint(row.rule))
		for _, rule := range []Rule{row.rule, must(ParseRule(text))} {
			next, err := nextOf(rule, utc(t, row.after))
			require.NoError(t, err)
			if row.want == "" {
				require.True(t, next.IsZero(), "%s after %s: %v", text, row.after, next)
			} else {
				require.True(t, utc(t, row.want).Equal(next), "%s after %s: %v", text, row.after, next)
			}
		}
	}
}

func TestABadRuleIsRefused(t *testing.T) {
	t.Parallel()
	when := time.Unix(1e9, 0)
	for _, row := range []struct {
		field string
		make  func() (Rule, error)
	}{
		{"Interval(d)", func() (Rule, error) { return Interval(0) }},
		{"Interval(d)", func() (Rule, error) { return Interval(-time.Minute) }},
		{"Interval(d)", func() (Rule, error) { return Interval(time.Second - 1) }},
		{"Interval(d)", func() (Rule, error) { return Interval(time.Second + 1) }},
		{"Interval(d)", func() (Rule, error) { return Interval(MaxSpan + time.Millisecond) }},
		{"IntervalFrom(d)", func() (Rule, error) { return IntervalFrom(when, 0) }},
		{"IntervalFrom(start)", func() (Rule, error) { return IntervalFrom(time.Time{}, time.Minute) }},
		{"IntervalFrom(start)", func() (Rule, error) { return IntervalFrom(time.Unix(1<<60, 0), time.Minute) }},
		{"AfterFinish(d)", func() (Rule, error) { return AfterFinish(0) }},
		{"At(instants)", func() (Rule, error) { return At() }},
		{"At(instants)", func() (Rule, error) { return At(make([]time.Time, MaxInstants+1)...) }},
		{"At(instants[1])", func() (Rule, error) { return At(when, time.Time{}) }},
		{"rule", func() (Rule, error) { return ParseRule("") }},
		{"rule", func() (Rule, error) { return ParseRule("cron UTC") }},
		{`cron line "* * * *", number of fields`, func() (Rule, error) { return ParseRule("cron UTC * * * *") }},
		{"Interval(d)", func() (Rule, error) { return ParseRule("interval 0s") }},
		{"rule", func() (Rule, error) { return ParseRule("interval soon") }},
		{"rule", func() (Rule, error) { return ParseRule("interval 1h from now") }},
		{"rule", func() (Rule, error) { return ParseRule("finish") }},
		{"rule", func() (Rule, error) { return ParseRule("at") }},
		{"rule", func() (Rule, error) { return ParseRule("at 2026-01-01T00:00:00Z  2026-01-01T00:00:00Z") }},
		{"rule", func() (Rule, error) { return ParseRule("moon full") }},
	} {
		rule, err := row.make()
		require.Nil(t, rule)
		var field *FieldError
		require.ErrorAs(t, err, &field)
		require.Equal(t, row.field, field.Field)
	}
}

type ruleFunc func(after time.Time) time.Time

func (f ruleFunc) Next(after time.Time) time.Time { return f(after) }

func TestAUsersRuleCanNeitherStopNorMislead(t *testing.T) {
	t.Parallel()
	from := utc(t, "2026-01-01T00:00:00.0005Z")
	never := (*cronRule)(nil)
	for _, row := range []struct {
		rule     Rule
		instants int
		field    string // of the error at its end; "": it ends without one
	}{
		{ruleFunc(func(after time.Time) time.Time { return after.Add(time.Hour) }), 5, ""},
		{ruleFunc(func(after time.Time) time.Time { return after }), 0, "Next of rule dianemo.ruleFunc"},
		{ruleFunc(func(after time.Time) time.Time { return after.Add(100 * time.Microsecond) }), 0, "Next of rule dianemo.ruleFunc"},
		{ruleFunc(func(after time.Time) time.Time { return after.Add(-time.Hour) }), 0, "Next of rule dianemo.ruleFunc"},
		{ruleFunc(func(time.Time) time.Time { return from.Add(time.Hour) }), 1, "Next of rule dianemo.ruleFunc"},
		{ruleFunc(func(time.Time) time.Time { return time.Unix(1<<60, 0) }), 0, "Next of rule dianemo.ruleFunc"},
		{ruleFunc(func(time.Time) time.Time { return time.Time{} }), 0, ""},
		{ruleFunc(func(time.Time) time.Time { panic("no") }), 0, "Next of rule dianemo.ruleFunc"},
		{ruleFunc(nil), 0, "Next of rule dianemo.ruleFunc"},
		{never, 0, "Next of rule *dianemo.cronRule"},
		{nil, 0, "rule"},
	} {
		instants := Preview(row.rule, from, 5)
		require.Len(t, instants, row.instants)
		if row.instants > 0 {
			from := instants[len(instants)-1]
			require.Zero(t, from.Nanosecond()%1e6)
			_, err := nextOf(row.rule, from)
			checkField(t, row.field, err)
		} else {
			_, err := nextOf(row.rule, from)
			checkField(t, row.field, err)
		}
		_, err := RuleText(row.rule)
		checkField(t, "rule", err)
	}
	every := ruleFunc(func(after time.Time) time.Time { return after.Add(time.Hour) })
	require.Len(t, Preview(every, from, MaxPreview+5), MaxPreview)
	require.Empty(t, Preview(every, from, 0))
	require.Empty(t, Preview(every, from, -1))
}

func checkField(t *testing.T, want string, err error) {
	t.Helper()
	if want == "" {
		require.NoError(t, err)
		return
	}
	var field *FieldError
	require.ErrorAs(t, err, &field)
	require.Equal(t, want, field.Field)
}

func TestIntervalsNeitherDriftNorRepeat(t *testing.T) {
	t.Parallel()
	rng := sample.Rand(t)
	must := ruleOf(t)
	for range 1000 {
		start, every := rng.Int64N(1e13), 1000+rng.Int64N(1e11)
		rule := must(IntervalFrom(time.UnixMilli(start), time.Duration(every)*time.Millisecond))
		after := time.Unix(rng.Int64N(1e10), rng.Int64N(1e9))
		next := rule.Next(after)
		require.True(t, next.After(after))
		require.Zero(t, (next.UnixMilli()-start)%every)
		require.False(t, next.UnixMilli() != start && !next.Add(-time.Duration(every)*time.Millisecond).Before(after.Add(1)))
		require.Equal(t, next, rule.Next(next.Add(-1)))
	}
}

func FuzzParseRule(f *testing.F) {
	for _, text := range []string{"cron Europe/Berlin 30 2 * * *", "interval 1m30s", "interval 1m30s from 2026-01-01T00:00:00Z", "finish 1m30s",
		"at 2026-01-01T00:00:00Z 2026-02-01T00:00:00.5Z", "", "interval 1h from ", "at 9999-12-31T23:59:59-23:00"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		rule, err := ParseRule(text)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		stored, err := RuleText(rule)
		require.NoError(t, err)
		back, err := ParseRule(stored)
		require.NoError(t, err)
		again, err := RuleText(back)
		require.NoError(t, err)
		require.Equal(t, stored, again)
		require.Equal(t, Preview(rule, time.Unix(1e9, 0), 5), Preview(back, time.Unix(1e9, 0), 5))
	})
}

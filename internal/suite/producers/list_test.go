package producers_test

import (
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/suite"
)

func TestAListHasAllOfAJobButWhatGrows_Long(t *testing.T) {
	t.Parallel()
	suite.Each(t, func(t *testing.T, store dianemo.Store) {
		c := suite.Client(t, store)
		kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{Grace: time.Minute})
		var want []dianemo.JobInfo
		for i := range 5 {
			id, err := kind.EnqueueWith(t.Context(), c, suite.Args{N: i}, dianemo.Options{Delay: time.Duration(i+1) * time.Hour, Weight: 3, Headers: map[string]string{"a": "b"}})
			require.NoError(t, err)
			want = append(want, *suite.Get(t, c, id))
		}
		var got []dianemo.JobInfo
		filter := dianemo.Filter{Limit: 2, States: []dianemo.State{dianemo.Scheduled}}
		for pages := 1; ; pages++ {
			page, err := c.List(t.Context(), filter)
			require.NoError(t, err)
			got = append(got, page.Jobs...)
			if filter.After = page.Next; page.Next == "" {
				break
			}
			require.LessOrEqual(t, pages, 3)
		}
		require.Equal(t, want, got)
		page, err := c.List(t.Context(), dianemo.Filter{Kinds: []string{"none"}})
		require.NoError(t, err)
		require.Empty(t, page.Jobs)
		require.Empty(t, page.Next)
	})
}

func TestAWrongFilterIsRefused(t *testing.T) {
	t.Parallel()
	c := suite.Client(t, suite.Embedded(t, 1))
	kind := dianemo.NewKind[suite.Args]("kind", dianemo.Policy{})
	for range 3 {
		suite.Enqueue(t, c, kind, dianemo.Options{})
	}
	page, err := c.List(t.Context(), dianemo.Filter{Limit: 1})
	require.NoError(t, err)
	require.NotEmpty(t, page.Next)
	_, err = c.List(t.Context(), dianemo.Filter{After: page.Next})
	require.NoError(t, err)

	now := time.Now()
	cursor := func(s string) string {
		return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint32([]byte(s), crc32.ChecksumIEEE([]byte(s))))
	}
	_, err = c.List(t.Context(), dianemo.Filter{After: cursor("1\x00\x00\x00\x00\x00\x00\x00\x01id")})
	require.NoError(t, err, "this is how they are made")
	for field, filters := range map[string][]dianemo.Filter{
		"Filter.States":   {{States: []dianemo.State{"lost"}}, {States: []dianemo.State{dianemo.Queued, ""}}, {States: []dianemo.State{dianemo.Unreadable}}},
		"Filter.Kinds":    {{Kinds: []string{""}}, {Kinds: []string{"a:b"}}},
		"Filter.Priority": {{Priority: -1}, {Priority: 10}},
		"Filter.To":       {{From: now, To: now}, {From: now, To: now.Add(-time.Hour)}},
		"Filter.Limit":    {{Limit: -1}, {Limit: dianemo.MaxList + 1}},
		"Filter.After": {{After: "x"}, {After: page.Next + "A"}, {After: page.Next[1:]}, {After: page.Next[:len(page.Next)/3]}, {After: " " + page.Next},
			{After: cursor("2\x00\x00\x00\x00\x00\x00\x00\x01id")}, {After: cursor("1\x00\x00\x00\x00\x00\x00\x00\x01")},
			{After: cursor("1\xff\x00\x00\x00\x00\x00\x00\x01id")}, {After: cursor("1\x00\x00\x00\x00\x00\x00\x00\x01i{d}")},
			{After: cursor("1\x00\x00\x00\x00\x00\x00\x00\x01" + strings.Repeat("x", dianemo.MaxName+1))}},
	} {
		for _, filter := range filters {
			_, err := c.List(t.Context(), filter)
			var refused *dianemo.FieldError
			require.ErrorAs(t, err, &refused, "%+v", filter)
			require.Equal(t, field, refused.Field)
		}
	}
}

package history

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAJournalIsReadButForALastLineThatWasCut(t *testing.T) {
	t.Parallel()
	whole := `{"at":1,"process":"p","what":"start"}` + "\n" + `{"at":2,"process":"p","what":"end"}`
	for text, events := range map[string]int{
		"":                            0,
		whole:                         2,
		whole + "\n":                  2,
		whole + "\n" + `{"at":3,"pro`: 2,
		whole[:len(whole)-1]:          1,
	} {
		found, err := Decode(strings.NewReader(text))
		require.NoError(t, err, text)
		require.Len(t, found, events, text)
	}
	for _, text := range []string{"{\"at\":1,\n" + whole, whole + "\nx\n"} {
		_, err := Decode(strings.NewReader(text))
		require.Error(t, err, text)
	}
}

func TestJournalsAreMergedByTimeAndEachKeepsItsOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, lines := range map[string]string{
		"b.jsonl": `{"at":2,"process":"b","call":1}` + "\n" + `{"at":1,"process":"b","call":2}` + "\n",
		"a.jsonl": `{"at":1,"process":"a","call":3}` + "\n" + `{"at":2,"process":"a","call":4}` + "\n" + `{"at":3,"process":"a","call":5}` + "\n",
		"c.log":   "not one of them",
	} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(lines), 0o600))
	}
	events, err := Read(dir)
	require.NoError(t, err)
	var calls []int64
	for _, e := range events {
		calls = append(calls, e.Call)
	}
	require.Equal(t, []int64{3, 4, 1, 2, 5}, calls)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "d.jsonl"), []byte("x\n{}\n"), 0o600))
	_, err = Read(dir)
	require.ErrorContains(t, err, "d.jsonl: line 1")
}

func TestViolationsAreInTheOrderOfTheInvariants(t *testing.T) {
	t.Parallel()
	violations := []Violation{{Calm, "", "", "c"}, {Epochs, "2", "", "b"}, {Acknowledged, "1", "m", "z"}, {Epochs, "1", "", "a"}}
	Sort(violations)
	var texts []string
	for _, v := range violations {
		texts = append(texts, v.String())
	}
	require.Equal(t, []string{"acknowledged: job 1 (m) z", "epochs: job 1 a", "epochs: job 2 b", "calm: c"}, texts)
}

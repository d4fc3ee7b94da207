//go:build unix

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"gonum.org/v1/gonum/graph/encoding/dot"
	"gonum.org/v1/gonum/graph/simple"

	"github.com/dianemo/dianemo/internal/redistest"
)

// try runs the program in this process, and takes its output apart: the states of the
// jobs by their names, once for each table, and the graph.
func try(t *testing.T, args ...string) (status int, tables []map[string]string, graph, all string) {
	t.Helper()
	var out, errs bytes.Buffer
	status = run(t.Context(), args, &out, &errs)
	all = out.String() + errs.String()
	text, graph, _ := strings.Cut(out.String(), "\ndigraph")
	for i, table := range strings.Split(text, "JOB ") {
		if i == 0 {
			continue
		}
		states := map[string]string{}
		rows, _, _ := strings.Cut(table, "\n\n")
		for _, row := range strings.Split(rows, "\n")[1:] {
			words := strings.Fields(row)
			states[words[0]] = words[1]
		}
		tables = append(tables, states)
	}
	return status, tables, "digraph" + graph, all
}

var loaded = map[string]string{"extract-berlin": "succeeded", "extract-lagos": "succeeded", "extract-lima": "succeeded", "merge": "succeeded",
	"inspect": "succeeded", "load": "succeeded", "set-by": "skipped", "unload": "skipped", "report": "succeeded"}

// with are the states with some of them changed.
func with(changes ...string) map[string]string {
	states := map[string]string{}
	for name, state := range loaded {
		states[name] = state
	}
	for i := 0; i < len(changes); i += 2 {
		states[changes[i]] = changes[i+1]
	}
	return states
}

func read(t *testing.T, elements ...string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(elements...))
	require.NoError(t, err)
	return string(text)
}

func TestGoodOrdersAreLoaded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	status, tables, graph, all := try(t, "-dir", dir)
	require.Zero(t, status, all)
	require.Equal(t, []map[string]string{loaded}, tables)
	require.Contains(t, all, "The workflow has succeeded: 7 of its 9 jobs succeeded.")
	require.Equal(t, 2970, strings.Count(read(t, dir, "warehouse.csv"), "\n"))
	require.Equal(t, "2970 orders, 1484377.00 in all\n", read(t, dir, "report.txt"))
	// A known reader of the language takes it.
	parsed := simple.NewDirectedGraph()
	require.NoError(t, dot.Unmarshal([]byte(graph), parsed))
	require.Equal(t, len(loaded), parsed.Nodes().Len())
	require.Equal(t, 9, parsed.Edges().Len())
}

func TestTooManyBadOrdersAreSetBy(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	status, tables, _, all := try(t, "-dir", dir, "-bad")
	require.Zero(t, status, all)
	require.Equal(t, []map[string]string{with("load", "skipped", "set-by", "succeeded")}, tables)
	require.NoFileExists(t, filepath.Join(dir, "warehouse.csv"))
	require.FileExists(t, filepath.Join(dir, "set-by.csv"))
	require.Equal(t, "nothing was loaded\n", read(t, dir, "report.txt"))
}

func TestALoadThatBreaksIsUndoneAndCanBeResumed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	broken := with("load", "failed", "unload", "succeeded", "report", "skipped")
	status, tables, _, all := try(t, "-dir", dir, "-break")
	require.Equal(t, 1, status, all)
	require.Equal(t, []map[string]string{broken}, tables)
	require.Contains(t, all, "the warehouse's disk is full")
	require.NoFileExists(t, filepath.Join(dir, "warehouse.csv"))

	status, tables, _, all = try(t, "-dir", dir, "-break", "-resume")
	require.Zero(t, status, all)
	require.Equal(t, []map[string]string{broken, with("unload", "succeeded")}, tables)
	require.Equal(t, 2970, strings.Count(read(t, dir, "warehouse.csv"), "\n"))
}

func TestItRunsOnARedis(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	for range 2 { // where the last run has left its jobs
		status, tables, _, all := try(t, "-redis", server.Addr())
		require.Zero(t, status, all)
		require.Equal(t, []map[string]string{loaded}, tables)
	}
}

func TestWrongArgumentsAreRefused(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"-resume"}, {"-break", "-bad"}, {"more"}, {"-no-such-flag"}} {
		status, _, _, all := try(t, args...)
		require.Equal(t, 2, status, args)
		require.NotEmpty(t, all)
	}
	status, _, _, all := try(t, "-redis", "127.0.0.1:1")
	require.Equal(t, 1, status)
	require.Contains(t, all, "no Redis at 127.0.0.1:1")
}

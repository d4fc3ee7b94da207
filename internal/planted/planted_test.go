package main

import (
	"bytes"
	"context"
	"errors"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo/internal/history"
)

var invariants = []history.Invariant{history.Acknowledged, history.OneEnd, history.Epochs, history.Starts, history.Families, history.Tokens,
	history.Occurrences, history.Silence, history.Records, history.Foreign, history.Calm}

func TestEachBugCanBePlantedInThisTree(t *testing.T) {
	t.Parallel()
	root, err := moduleRoot(t.Context())
	require.NoError(t, err)
	redis := scripts(t)
	for _, b := range bugs {
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			for _, e := range b.edits {
				require.NotEqual(t, e.old, e.new)
				require.NoError(t, copyFile(filepath.Join(root, e.file), filepath.Join(dir, e.file)))
			}
			require.NoError(t, b.apply(dir))
			for _, e := range b.edits {
				text, err := os.ReadFile(filepath.Join(dir, e.file))
				require.NoError(t, err)
				switch filepath.Ext(e.file) {
				case ".go":
					_, err := parser.ParseFile(token.NewFileSet(), e.file, text, parser.AllErrors)
					require.NoError(t, err)
				case ".lua":
					require.NoError(t, redis.ScriptLoad(t.Context(), string(text)).Err())
				default:
					require.Fail(t, "a bug in what is no code", e.file)
				}
			}
		})
	}
}

// scripts is a Redis that refuses scripts that can't be compiled.
func scripts(t *testing.T) *redis.Client {
	client := redis.NewClient(&redis.Options{Addr: miniredis.RunT(t).Addr()})
	t.Cleanup(func() { require.NoError(t, client.Close()) })
	require.Error(t, client.ScriptLoad(t.Context(), "if").Err())
	return client
}

func TestTheTableOfBugsSaysWhatTheTortureTestUnderstands(t *testing.T) {
	t.Parallel()
	root, err := moduleRoot(t.Context())
	require.NoError(t, err)
	faults, err := os.ReadFile(filepath.Join(root, "internal/torture/faults.go"))
	require.NoError(t, err)
	names := map[string]bool{}
	for _, b := range bugs {
		require.Regexp(t, `^[a-z-]+$`, b.name)
		require.False(t, names[b.name], b.name)
		names[b.name] = true
		require.NotEmpty(t, b.what, b.name)
		require.NotContains(t, b.what, "|", b.name) // it stands in a table
		require.NotEmpty(t, b.edits, b.name)
		require.NotEmpty(t, b.by, b.name)
		for _, by := range b.by {
			require.Contains(t, invariants, history.Invariant(by), b.name)
		}
		require.NotEmpty(t, b.faults, b.name) // or all would strike
		for _, fault := range b.faults {
			require.Contains(t, string(faults), strconv.Quote(fault), b.name)
		}
	}
}

func TestEachInvariantHasABugThatItIsMeantToCatch(t *testing.T) {
	t.Parallel()
	for _, invariant := range invariants {
		require.True(t, slices.ContainsFunc(bugs, func(b bug) bool { return b.by[0] == string(invariant) }), invariant)
	}
}

func TestWhatIsToBeReplacedMustStandThereOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "a.lua")
	b := bug{edits: []edit{{"a.lua", "one", "two"}}}
	for text, fine := range map[string]bool{"x one y": true, "x y": false, "one one": false} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
		err := b.apply(dir)
		after, readErr := os.ReadFile(path)
		require.NoError(t, readErr)
		if fine {
			require.NoError(t, err)
			require.Equal(t, "x two y", string(after))
		} else {
			require.Error(t, err)
			require.Equal(t, text, string(after))
		}
	}
}

// stand-ins for the torture test. Tests with one are not parallel: while another process is
// about to start, it has the script open, which then can't be run.
func program(t *testing.T, script string) string {
	path := filepath.Join(t.TempDir(), "torture")
	require.NoError(t, os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o755))
	return path
}

func TestWhatTheTortureTestSaysIsUnderstood(t *testing.T) {
	b := bug{faults: []string{"cut-one", "delay"}}
	for _, c := range []struct {
		name, script string
		found        []violation
		err          string
	}{
		{"green", "exit 0", nil, ""},
		{"green, and a fault was not reached", "exit 3", nil, ""},
		{"violations", "echo VIOLATION one-end: a b; echo noise; echo VIOLATION calm: c; exit 1", []violation{{"one-end", "a b"}, {"calm", "c"}}, ""},
		{"broken", "echo no redis >&2; exit 2", nil, "no redis"},
		{"violations of nothing", "exit 1", nil, "could not be run"},
		{"its arguments", `[ "$*" = "-seed 7 -minutes 0.5 -faults cut-one,delay" ]`, nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			found, err := torture(t.Context(), program(t, c.script), b, 7, 0.5)
			if c.err != "" {
				require.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, c.found, found)
		})
	}
}

func TestATortureTestThatIsNoLongerWantedIsStopped(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	_, err := torture(ctx, program(t, "exec sleep 60"), bug{}, 1, 1)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestTheReportSaysWhatCaughtEachBug(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	report(&out, []finding{
		{bug: bug{name: "a", what: "w", faults: []string{"delay", "cut-all"}, by: []string{"calm"}}, took: 31 * time.Second,
			violations: []violation{{"starts", ""}, {"calm", ""}, {"calm", ""}}},
		{bug: bug{name: "b", what: "w", faults: []string{"delay"}, by: []string{"calm"}}, took: time.Second, violations: []violation{{"tokens", ""}}},
		{bug: bug{name: "c", what: "w", faults: []string{"delay"}, by: []string{"calm"}}, took: time.Minute},
		{bug: bug{name: "d", what: "w", faults: []string{"delay"}, by: []string{"calm"}}, took: time.Second, err: errors.New("no redis")},
	})
	require.Contains(t, out.String(), "| a | w | delay, cut-all | calm, starts | 31s |\n")
	require.Contains(t, out.String(), "| b | w | delay | tokens (expected: calm) | 1s |\n")
	require.Contains(t, out.String(), "| c | w | delay | NOT CAUGHT | 1m0s |\n")
	require.Contains(t, out.String(), "| d | w | delay | COULD NOT BE TRIED | 1s |\n")
	require.Regexp(t, regexp.MustCompile(`(?m)^2 of 4 caught$`), out.String())
}

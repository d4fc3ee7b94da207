//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/redisstore"
)

// TestMain makes this binary the program itself when a test starts it so.
func TestMain(m *testing.M) {
	if os.Getenv("NIGHTLY_TEST_RUNS_MAIN") != "" {
		main()
	}
	os.Exit(m.Run())
}

// try runs the program in this process.
func try(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	status = run(t.Context(), args, &out, &err)
	return status, out.String(), err.String()
}

// fast runs days of it, and returns the preview and the lines of the runs.
func fast(t *testing.T, args ...string) (preview string, runs []string) {
	t.Helper()
	status, out, errs := try(t, append([]string{"-fast"}, args...)...)
	require.Zero(t, status, "%s%s", out, errs)
	require.Empty(t, errs)
	preview, lines, _ := strings.Cut(out, "\n\n")
	return preview, strings.Split(strings.TrimSpace(lines), "\n")
}

// of are the lines of one schedule.
func of(schedule string, runs []string) (lines []string) {
	for _, line := range runs {
		if strings.Contains(line, "  "+schedule+" ") {
			lines = append(lines, line)
		}
	}
	return lines
}

func TestTheReportRunsOnEachDayAlsoWhenClocksAreChanged(t *testing.T) {
	t.Parallel()
	preview, runs := fast(t, "-every", "6h")
	require.Contains(t, preview, `
report    Sat 2026-03-07 02:30:00 EST  Sat 2026-03-07 07:30:00 UTC
report    Sun 2026-03-08 03:00:00 EDT  Sun 2026-03-08 07:00:00 UTC
report    Mon 2026-03-09 02:30:00 EDT  Mon 2026-03-09 06:30:00 UTC
import    `)
	require.Equal(t, []string{
		"Sat 2026-03-07 02:55:00 EST  report   of 02:30:00 EST  succeeded: for 2026-03-06",
		"Sun 2026-03-08 03:25:00 EDT  report   of 03:00:00 EDT  succeeded: for 2026-03-07",
		"Mon 2026-03-09 02:55:00 EDT  report   of 02:30:00 EDT  succeeded: for 2026-03-08",
	}, of("report", runs))
}

func TestTheImportAfterALongOneIsSkipped(t *testing.T) {
	t.Parallel()
	_, runs := fast(t, "-days", "1", "-from", "2026-11-01") // a day of 25 hours
	imports := of("import", runs)
	require.Len(t, imports, 25*4-1)
	require.Equal(t, []string{
		"Sun 2026-11-01 01:15:00 EDT  import   of 01:15:00 EDT  skipped: the one before still runs",
		"Sun 2026-11-01 01:20:00 EDT  import   of 01:00:00 EDT  succeeded: many rows",
		"Sun 2026-11-01 01:35:00 EDT  import   of 01:30:00 EDT  succeeded: some rows",
		"Sun 2026-11-01 01:50:00 EDT  import   of 01:45:00 EDT  succeeded: some rows",
		"Sun 2026-11-01 01:15:00 EST  import   of 01:15:00 EST  skipped: the one before still runs",
		"Sun 2026-11-01 01:20:00 EST  import   of 01:00:00 EST  succeeded: many rows",
	}, imports[3:9])
	require.Equal(t, 24, strings.Count(strings.Join(imports, "\n"), "skipped"))
}

func TestTheCleanUpCountsFromTheEndOfTheLastOne(t *testing.T) {
	t.Parallel()
	_, runs := fast(t, "-days", "1", "-from", "2026-07-01", "-every", "12h")
	require.Equal(t, []string{
		"Wed 2026-07-01 06:10:00 EDT  clean-up of 06:00:00 EDT  succeeded: all clean",
		"Wed 2026-07-01 12:20:00 EDT  clean-up of 12:10:00 EDT  succeeded: all clean",
		"Wed 2026-07-01 18:30:00 EDT  clean-up of 18:20:00 EDT  succeeded: all clean",
	}, of("clean-up", runs))
}

var imported = regexp.MustCompile(`  import   of \S+ E[SD]T  succeeded: `)

func TestCtrlCEndsItWell(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, "-every", "1s")
	cmd.Env = append(os.Environ(), "NIGHTLY_TEST_RUNS_MAIN=1")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var out strings.Builder
	asked := false
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		fmt.Fprintln(&out, lines.Text())
		if !asked && imported.MatchString(lines.Text()) {
			asked = true
			require.NoError(t, cmd.Process.Signal(os.Interrupt))
		}
	}
	require.NoError(t, cmd.Wait(), "%s%s", out.String(), errs.String())
	require.True(t, asked, "no import was seen:\n%s%s", out.String(), errs.String())
	require.Empty(t, errs.String())
}

func TestARedisKeepsTheSchedulesForTheNextStart(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := server.Client(t)
	client, err := dianemo.NewClient(redisstore.New(rdb, redisstore.Options{Namespace: "nightly"}), dianemo.ClientConfig{})
	require.NoError(t, err)
	defer client.Close()
	var made time.Time
	for start := range 2 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		lines, out := io.Pipe()
		seen := false
		read := make(chan struct{})
		go func() {
			defer close(read)
			for s := bufio.NewScanner(lines); s.Scan(); {
				if imported.MatchString(s.Text()) {
					seen = true
					cancel()
				}
			}
		}()
		var errs bytes.Buffer
		status := run(ctx, []string{"-redis", server.Addr(), "-every", "1s"}, out, &errs)
		require.NoError(t, out.Close())
		<-read
		cancel()
		require.Zero(t, status, errs.String())
		require.Empty(t, errs.String())
		require.True(t, seen)
		info, err := client.GetSchedule(t.Context(), "clean-up") // which has had no occurrence yet
		require.NoError(t, err)
		require.True(t, info.Declared)
		if start == 0 {
			made = info.Decided
		}
		require.Equal(t, made, info.Decided)
		keys, err := rdb.Keys(t.Context(), "*").Result()
		require.NoError(t, err)
		require.NotEmpty(t, keys)
		for _, key := range keys {
			require.Regexp(t, `^\{nightly[:}]`, key)
		}
	}
}

func TestWhatCanNotBeDoneIsSaid(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"-nonsense"}, 2, "not defined: -nonsense"},
		{[]string{"more"}, 2, `"more" is not a flag`},
		{[]string{"-every", "10ms"}, 2, "Interval(d) is 10ms; allowed: 1s to 100 years"},
		{[]string{"-fast", "-from", "Sunday"}, 2, `"Sunday"`},
		{[]string{"-fast", "-from", "1950-01-01"}, 2, `-from is "1950-01-01"; allowed: a day since 1970`},
		{[]string{"-fast", "-days", "0"}, 2, "-days is 0; allowed: 1 to 366"},
		{[]string{"-fast", "-redis", "localhost"}, 2, "-redis: not with -fast"},
		{[]string{"-redis", "127.0.0.1:1"}, 1, "no Redis at 127.0.0.1:1: "},
		{[]string{"-h"}, 0, "a line\nfor each occurrence that has ended"},
	} {
		status, out, errs := try(t, c.args...)
		require.Equal(t, c.status, status, "%q: %s%s", c.args, out, errs)
		require.Contains(t, errs, c.says, "%q", c.args)
	}
}

//go:build unix

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo/internal/redistest"
)

// TestMain makes this binary the quickstart itself when a test starts it so.
func TestMain(m *testing.M) {
	if os.Getenv("QUICKSTART_TEST_RUNS_MAIN") != "" {
		main()
	}
	redis.SetLogger(silent{})
	os.Exit(m.Run())
}

// odd are names that a sums file must escape, or a program could take for
// something else.
var odd = []string{
	"plain.go", "notes.md", "two words.txt", " leads and trails ", "new\nline", "back\\slash.md", "not\\n a line",
	"carriage\rreturn", "ends in cr\r", "not\xffUTF-8", "ünïcode ☃", "-", "--sums", "*star", "\\", "sub/dir/deep.md", ".hidden", "a,b;c'd\"e`f$g",
}

// fill makes a directory of files, all different.
func fill(t *testing.T, names ...string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for i, name := range names {
		write(t, filepath.Join(dir, name), bytes.Repeat([]byte(name+"\n"), i*1000))
	}
	return dir
}

func write(t *testing.T, name string, content []byte) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(name), 0o755))
	require.NoError(t, os.WriteFile(name, content, 0o644))
}

// try runs the quickstart in this process.
func try(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	status = run(t.Context(), args, &out, &err)
	return status, out.String(), err.String()
}

// requireSums lets sha256sum judge the sums, and counts them.
func requireSums(t *testing.T, path string, files int) {
	t.Helper()
	out, err := exec.Command("sha256sum", "--check", "--strict", path).CombinedOutput()
	require.NoError(t, err, "%s", out)
	sums, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, files, bytes.Count(sums, []byte("\n")), "%s", sums)
}

func TestSumsOfOddNamesPassSha256sum(t *testing.T) {
	t.Chdir(fill(t, odd...))               // so that they are what the sums name
	write(t, "big", make([]byte, 3<<20+1)) // four tokens' worth
	// What is to be skipped.
	write(t, ".git/config", []byte("x"))
	write(t, "sub/.git/HEAD", []byte("x"))
	require.NoError(t, os.Symlink("plain.go", "link"))
	require.NoError(t, os.Symlink("nowhere", "dangling"))
	require.NoError(t, syscall.Mkfifo("fifo", 0o644))

	files := len(odd) + 1
	for range 2 { // the second time the sums are there already
		status, out, errs := try(t, "-sums", "SHA256SUMS")
		require.Zero(t, status, "%s%s", out, errs)
		require.Empty(t, errs)
		require.Regexp(t, fmt.Sprintf(`(?m)^succeeded +%d `, files), out)
		requireSums(t, "SHA256SUMS", files)
	}
}

func TestDirMayBeALinkAndElsewhere(t *testing.T) {
	t.Chdir(fill(t, "real/a", "real/b.md"))
	require.NoError(t, os.Symlink("real", "link"))
	require.NoError(t, os.Mkdir("here", 0o755))
	t.Chdir("here")
	status, out, _ := try(t, "-sums", "sums", "../link")
	require.Zero(t, status, out)
	requireSums(t, "sums", 2)
}

func TestKillFinishesEverything(t *testing.T) {
	t.Parallel()
	dir := fill(t, odd...)
	sums := filepath.Join(t.TempDir(), "sums")
	status, out, errs := try(t, "-kill", "-sums", sums, dir)
	require.Zero(t, status, "%s%s", out, errs)
	require.Empty(t, errs)
	require.Regexp(t, fmt.Sprintf(`(?m)^succeeded +%d `, len(odd)), out)
	require.Regexp(t, `(?m)^\d .* cut off$`, out)
	require.Regexp(t, `(?m)^Jobs that it held: [1-9]\d*\. After `, out)
	require.Regexp(t, `(?m)^  succeeded +on peer \d `, out)
	requireSums(t, sums, len(odd))
}

func TestKillHasAVictimEvenWithOneFile(t *testing.T) {
	t.Parallel()
	dir := fill(t, "only.md") // priority 1 is run again as well
	status, out, errs := try(t, "-kill", dir)
	require.Zero(t, status, "%s%s", out, errs)
	require.Contains(t, out, "Jobs that it held: 1.")
}

func TestAFileThatVanishesIsAFailedJob(t *testing.T) {
	t.Parallel()
	dir := fill(t, "stays", "goes", "turns\ninto a directory")
	sums, err := openSums("")
	require.NoError(t, err)
	files, unread, err := find(t.Context(), dir, sums)
	require.NoError(t, err)
	require.Empty(t, unread)
	require.NoError(t, os.Remove(filepath.Join(dir, "goes")))
	turns := filepath.Join(dir, "turns\ninto a directory")
	require.NoError(t, os.Remove(turns))
	require.NoError(t, os.Mkdir(turns, 0o755))

	var out, errs bytes.Buffer
	succeeded, err := process(t.Context(), settings{dir: dir}, files, sums, newScreen(&out, &errs))
	require.NoError(t, err)
	require.False(t, succeeded)
	require.Contains(t, out.String(), "\nfailed: open "+filepath.Join(dir, "goes")+": no such file or directory\n")
	require.Contains(t, out.String(), "\n"+strconv.Quote("failed: read "+turns+": is a directory")+"\n")
	require.Regexp(t, `(?m)^succeeded +1 `, out.String())
	require.Regexp(t, `(?m)^failed +2$`, out.String())
}

func TestCtrlCEndsItWithATable(t *testing.T) {
	t.Parallel()
	dir := fill(t, "aaa small", "sums")
	// More than any machine does in a second, in files that take no room.
	for i := range 100 {
		name := filepath.Join(dir, fmt.Sprintf("big %d", i))
		write(t, name, nil)
		require.NoError(t, os.Truncate(name, 1<<30))
	}
	self, err := os.Executable()
	require.NoError(t, err)
	cmd := exec.CommandContext(t.Context(), self, "-sums", "sums")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "QUICKSTART_TEST_RUNS_MAIN=1")
	var errs bytes.Buffer
	cmd.Stderr = &errs
	stdout, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())

	progress := regexp.MustCompile(`^ *\d+ of 101 files, `)
	var out strings.Builder
	asked := false
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		fmt.Fprintln(&out, lines.Text())
		if !asked && progress.MatchString(lines.Text()) {
			asked = true
			require.NoError(t, cmd.Process.Signal(os.Interrupt))
		}
	}
	_ = cmd.Wait() // its status is looked at
	require.True(t, asked, "no progress was seen:\n%s%s", out.String(), errs.String())
	require.Equal(t, interrupted, cmd.ProcessState.ExitCode(), "%s%s", out.String(), errs.String())
	require.Empty(t, errs.String())
	require.Contains(t, out.String(), "\nInterrupted: ")
	require.Regexp(t, `(?m)^succeeded +\d+ `, out.String())
	require.Regexp(t, `(?m)^queued +\d+$`, out.String())
	require.Regexp(t, `(?m)^3 +\d+ `, out.String())

	// The table's states add up.
	_, table, _ := strings.Cut(out.String(), "BYTES OUT\n")
	table, _, _ = strings.Cut(table, "\n\n")
	sum := 0
	for _, row := range strings.Split(table, "\n") {
		var state string
		var jobs int
		_, err := fmt.Sscan(row, &state, &jobs)
		require.NoError(t, err, row)
		sum += jobs
	}
	require.Equal(t, 101, sum, table)
}

func TestARedisIsLeftAsItWas(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	rdb := server.Client(t)
	require.NoError(t, rdb.Set(t.Context(), "{quickstart}:not ours", 1, 0).Err())
	dir, sums := fill(t, odd...), filepath.Join(t.TempDir(), "sums")
	for _, address := range []string{server.Addr(), "redis://" + server.Addr() + "/0"} {
		status, out, errs := try(t, "-redis", address, "-sums", sums, dir)
		require.Zero(t, status, "%s%s", out, errs)
		require.Regexp(t, fmt.Sprintf(`(?m)^succeeded +%d `, len(odd)), out)
		requireSums(t, sums, len(odd))
	}
	require.Contains(t, rdb.Info(t.Context(), "commandstats").Val(), "cmdstat_evalsha")
	require.Equal(t, []string{"{quickstart}:not ours"}, rdb.Keys(t.Context(), "*").Val())
}

func TestWhatCanNotBeDoneIsSaid(t *testing.T) {
	t.Chdir(fill(t, "file"))
	require.NoError(t, os.Mkdir("empty", 0o755))
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"-nonsense"}, badUsage, "not defined: -nonsense"},
		{[]string{"missing"}, badUsage, "missing: no such file or directory"},
		{[]string{"file"}, badUsage, "file is a file; name a directory"},
		{[]string{"a", "b"}, badUsage, "one DIR at most, not 2"},
		{[]string{".", "-kill"}, badUsage, `"-kill" comes after DIR; flags go before it`},
		{[]string{"-redis", "http://localhost"}, badUsage, "-redis: redis: invalid URL scheme: http"},
		{[]string{"-redis", "127.0.0.1:1"}, someDidNot, "no Redis at 127.0.0.1:1: "},
		{[]string{"-sums", "missing/sums"}, someDidNot, "open missing/sums: no such file or directory"},
		{[]string{"empty"}, allSucceeded, "No regular files under empty: nothing to do."},
		{[]string{"-h"}, allSucceeded, "skipped"},
	} {
		status, out, errs := try(t, c.args...)
		require.Equal(t, c.status, status, "%q: %s%s", c.args, out, errs)
		require.Contains(t, out+errs, c.says, "%q", c.args)
	}
}

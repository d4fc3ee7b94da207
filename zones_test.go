//go:build unix

package dianemo_test

import (
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// The programs look for zones nowhere, which stands for a machine that has no zone
// database. They are built as this test is, so that their packages have been compiled
// already.
func TestZonesAreKnownOnAMachineWithoutAZoneDatabase(t *testing.T) {
	t.Parallel()
	this, ok := debug.ReadBuildInfo()
	require.True(t, ok)
	race := slices.Contains(this.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
	run := func(program string) (string, error) {
		binary := filepath.Join(t.TempDir(), "program")
		arguments := []string{"build", "-ldflags=-checklinkname=0", "-o", binary, program}
		if race {
			arguments = slices.Insert(arguments, 1, "-race")
		}
		out, err := exec.Command("go", arguments...).CombinedOutput()
		require.NoError(t, err, "%s", out)
		command := exec.Command(binary)
		command.Env = []string{"GOROOT=/nowhere"}
		out, err = command.CombinedOutput()
		return string(out), err
	}
	out, err := run("./testdata/nozones/bare")
	require.Error(t, err, "without the library, this program finds a zone: the test shows nothing")
	require.Contains(t, out, "unknown time zone")
	out, err = run("./testdata/nozones")
	require.NoError(t, err, "%s", out)
	require.Equal(t, "2026-07-02T02:30:00+10:30\n", out)
}

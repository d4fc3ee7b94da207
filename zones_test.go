//go:build unix

package dianemo_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// A program built with a Go whose package time looks for zones nowhere stands for
// a machine that has no zone database.
func TestZonesAreKnownOnAMachineWithoutAZoneDatabase(t *testing.T) {
	dir := t.TempDir()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	require.NoError(t, err)
	replaced := map[string]string{}
	for name, change := range map[string][2]string{
		"zoneinfo_unix.go":   {`"/`, `"/nowhere/`},
		"zoneinfo_goroot.go": {"goroot == \"\"", "true"},
	} {
		path := filepath.Join(strings.TrimSpace(string(root)), "src", "time", name)
		source, err := os.ReadFile(path)
		require.NoError(t, err)
		changed := strings.ReplaceAll(string(source), change[0], change[1])
		require.NotEqual(t, string(source), changed, "%s is not as it was when this test was written", name)
		replaced[path] = filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(replaced[path], []byte(changed), 0o600))
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replaced})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	build := func(program string) string {
		binary := filepath.Join(dir, filepath.Base(program))
		out, err := exec.Command("go", "build", "-overlay", filepath.Join(dir, "overlay.json"), "-o", binary, program).CombinedOutput()
		require.NoError(t, err, "%s", out)
		return binary
	}
	run := func(binary string) (string, error) {
		command := exec.Command(binary)
		command.Env = []string{}
		out, err := command.CombinedOutput()
		return string(out), err
	}
	out, err := run(build("./testdata/nozones/bare"))
	require.Error(t, err, "without the library, this program finds a zone: the test shows nothing")
	require.Contains(t, out, "unknown time zone")
	out, err = run(build("./testdata/nozones"))
	require.NoError(t, err, "%s", out)
	require.Equal(t, "2026-07-02T02:30:00+10:30\n", out)
}

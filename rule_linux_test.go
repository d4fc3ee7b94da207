package dianemo_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestZonesAreKnownOnAMachineWithoutAZoneDatabase(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root may change the root directory")
	}
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "nozones"), "./testdata/nozones")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // a static program needs no file
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)
	run := exec.Command("/nozones")
	run.Dir, run.Env, run.SysProcAttr = "/", []string{}, &syscall.SysProcAttr{Chroot: dir}
	out, err = run.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Equal(t, "2026-07-02T02:30:00+10:30\n", string(out))
}

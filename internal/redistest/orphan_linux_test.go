package redistest

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// Only Linux ends a process with its parent.
func TestServerDiesWithItsParent(t *testing.T) {
	if os.Getenv("REDISTEST_ORPHAN") != "" {
		s, err := Launch()
		require.NoError(t, err)
		fmt.Println(s.Addr(), s.dir)
		select {} // until killed
	}
	parent := exec.Command(os.Args[0], "-test.run=^TestServerDiesWithItsParent$")
	parent.Env = append(os.Environ(), "REDISTEST_ORPHAN=1")
	stdout, err := parent.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, parent.Start())
	defer func() {
		require.NoError(t, parent.Process.Kill())
		require.Error(t, parent.Wait())
	}()
	var addr, dir string
	_, err = fmt.Fscan(stdout, &addr, &dir)
	require.NoError(t, err)
	defer os.RemoveAll(dir)
	conn := dial(t, addr)
	require.Equal(t, "+PONG", conn.do("PING"))

	require.NoError(t, parent.Process.Kill())
	conn.requireClosed()
}

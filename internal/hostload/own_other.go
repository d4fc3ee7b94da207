//go:build !linux

package hostload

import (
	"io/fs"
	"os"

	"github.com/shirou/gopsutil/v3/process"
)

func ownSeconds(fs.FS) (float64, error) {
	p, err := process.NewProcess(int32(os.Getpid()))
	if err != nil {
		return 0, err
	}
	t, err := p.Times()
	if err != nil {
		return 0, err
	}
	return t.User + t.System, nil
}

//go:build !unix

package measure

import (
	"os"
	"time"

	gops "github.com/shirou/gopsutil/v3/process"
)

// cpuTime is what this process has used of the CPUs, 0 where that can't be known.
func cpuTime() time.Duration {
	self, err := gops.NewProcess(int32(os.Getpid()))
	if err != nil {
		return 0
	}
	times, err := self.Times()
	if err != nil {
		return 0
	}
	return time.Duration((times.User + times.System) * float64(time.Second))
}

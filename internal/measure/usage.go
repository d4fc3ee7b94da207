package measure

import (
	"context"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// Usage is what a process has used since it began.
type Usage struct {
	CPU         time.Duration
	Allocations uint64
}

// OwnUsage is that of this process.
func OwnUsage() Usage {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return Usage{cpuTime(), m.Mallocs}
}

// Since is what was used between an earlier reading and this one.
func (u Usage) Since(earlier Usage) Usage {
	return Usage{u.CPU - earlier.CPU, u.Allocations - earlier.Allocations}
}

// ServerUsage is what a redis-server has done since it began, for whomever.
type ServerUsage struct {
	Commands int64 // those in scripts included
	CPU      time.Duration
	Memory   int64 // in use now, bytes
}

// ReadServer asks a redis-server for its usage.
func ReadServer(ctx context.Context, rdb redis.Cmdable) (ServerUsage, error) {
	info, err := rdb.Info(ctx, "stats", "cpu", "memory").Result()
	if err != nil {
		return ServerUsage{}, err
	}
	number := func(name string) float64 {
		n, _ := strconv.ParseFloat(InfoField(info, name), 64)
		return n
	}
	return ServerUsage{
		Commands: int64(number("total_commands_processed")),
		CPU:      time.Duration((number("used_cpu_user") + number("used_cpu_sys")) * float64(time.Second)),
		Memory:   int64(number("used_memory")),
	}, nil
}

// InfoField is one field of what INFO answers, "" if it is not there.
func InfoField(info, name string) string {
	for line := range strings.Lines(info) {
		if value, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimRight(value, "\r\n")
		}
	}
	return ""
}

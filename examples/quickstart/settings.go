package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/redis/go-redis/v9"
)

// settings are what the command line says.
type settings struct {
	dir   string
	redis *redis.Options // nil: embedded
	sums  string
	kill  bool
	logs  slog.Level
}

const usage = `Compresses and hashes every regular file under DIR (default: the current
directory), as background jobs on three peers. It writes no compressed file; it
counts the bytes. Symbolic links, special files and .git directories are
skipped.

  go run ./examples/quickstart [flags] [DIR]

`

func parse(args []string, stderr io.Writer) (settings, error) {
	var s settings
	var verbose bool
	var address string
	flags := flag.NewFlagSet("quickstart", flag.ContinueOnError)
	flags.SetOutput(io.Discard) // errors are printed once, by run
	flags.StringVar(&address, "redis", "", "keep the jobs in the Redis at this `address`, host:port or redis://…, in a\n"+
		"namespace that is deleted at the end (default: an embedded one)")
	flags.StringVar(&s.sums, "sums", "", "write the SHA-256 sums to this `file`, for sha256sum -c")
	flags.BoolVar(&s.kill, "kill", false, "cut one peer off half-way, as if its process had died")
	flags.BoolVar(&verbose, "v", false, "show all that the library logs, not just warnings")
	err := flags.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stderr, usage)
		flags.SetOutput(stderr)
		flags.PrintDefaults()
	}
	if err != nil {
		return s, err
	}
	switch {
	case verbose:
		s.logs = slog.LevelInfo
	case s.kill:
		s.logs = slog.LevelError // the warnings would be about what -kill does, and says itself
	default:
		s.logs = slog.LevelWarn
	}
	if address != "" {
		if !strings.Contains(address, "://") {
			address = "redis://" + address
		}
		if s.redis, err = redis.ParseURL(address); err != nil {
			return s, fmt.Errorf("-redis: %w", err)
		}
		s.redis.ContextTimeoutEnabled = true // time limits hold while Redis hangs, too
	}
	s.dir = "."
	switch {
	case flags.NArg() > 1 && strings.HasPrefix(flags.Arg(1), "-"):
		return s, fmt.Errorf("%q comes after DIR; flags go before it", flags.Arg(1))
	case flags.NArg() > 1:
		return s, fmt.Errorf("one DIR at most, not %d", flags.NArg())
	case flags.NArg() == 1:
		s.dir = flags.Arg(0)
	}
	info, err := os.Stat(s.dir)
	switch {
	case err != nil:
		return s, fmt.Errorf("DIR: %w", err)
	case !info.IsDir():
		return s, fmt.Errorf("DIR: %s is a file; name a directory", printable(s.dir))
	}
	return s, nil
}

package redisstore_test

import "strings"

// A record taken apart, spelled out here once more so that a changed format is
// noticed: version, state, reason, ended, epoch, peer, lane, due, started,
// fails, reruns, runs, max_reruns, weight, size, unique, tail.
func splitRecord(record string) []string { return strings.SplitN(record, "|", 17) }

func kindOf(base string) string { return strings.SplitN(base, ":", 2)[0] }

func classOf(base string) string { return strings.Join(strings.SplitN(base, ":", 3)[:2], ":") }

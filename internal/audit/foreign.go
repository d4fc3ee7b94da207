package audit

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/redis/go-redis/v9"
)

// Snapshot has a digest of each key that is not the namespace's: of what it holds, and of when it
// expires. It is no picture of one moment, so others should be at rest.
func Snapshot(ctx context.Context, rdb *redis.Client, namespace string) (map[string]string, error) {
	digests := map[string]string{}
	for cursor := uint64(0); ; {
		keys, next, err := rdb.Scan(ctx, cursor, "*", 1000).Result()
		if err != nil {
			return nil, fmt.Errorf("snapshot: %w", err)
		}
		for _, key := range keys {
			if isOf(namespace, key) {
				continue
			}
			if digests[key], err = digest(ctx, rdb, key); err != nil {
				return nil, fmt.Errorf("snapshot of %s: %w", key, err)
			}
			if digests[key] == "" {
				delete(digests, key) // it was gone by then
			}
		}
		if cursor = next; cursor == 0 {
			return digests, nil
		}
	}
}

// isOf reports whether a key is the namespace's. Names that look alike are not.
func isOf(namespace, key string) bool {
	rest, ok := strings.CutPrefix(key, "{"+namespace)
	return ok && tagRest.MatchString(rest)
}

var tagRest = regexp.MustCompile(`^(:(0|[1-9][0-9]*))?\}:`)

// digest is "" for a key that is not there. What has no order is put into one: the server's own
// may change though nobody touches the key.
func digest(ctx context.Context, rdb *redis.Client, key string) (string, error) {
	sort, err := rdb.Type(ctx, key).Result()
	if err != nil {
		return "", err
	}
	var words []string
	switch sort {
	case "none":
		return "", nil
	case "hash":
		var fields map[string]string
		fields, err = rdb.HGetAll(ctx, key).Result()
		for field, value := range fields {
			words = append(words, fmt.Sprintf("%q %q", field, value))
		}
		slices.Sort(words)
	case "set":
		words, err = rdb.SMembers(ctx, key).Result()
		slices.Sort(words)
	default:
		var dump string
		dump, err = rdb.Dump(ctx, key).Result()
		words = []string{dump}
	}
	if err == redis.Nil {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	expires, err := rdb.PExpireTime(ctx, key).Result()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %d %q", sort, expires, words))
	return hex.EncodeToString(sum[:]), nil
}

// Foreign says which keys have changed, come or gone between two snapshots, a line for each.
func Foreign(before, after map[string]string) []string {
	var changes []string
	for _, key := range slices.Sorted(maps.Keys(before)) {
		switch after[key] {
		case before[key]:
		case "":
			changes = append(changes, key+" is gone")
		default:
			changes = append(changes, key+" has changed")
		}
	}
	for _, key := range slices.Sorted(maps.Keys(after)) {
		if _, ok := before[key]; !ok {
			changes = append(changes, key+" was made")
		}
	}
	return changes
}

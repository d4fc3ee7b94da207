package redisstore

import (
	"context"
	"testing"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo/internal/redistest"
)

// luaReaders says what the scripts read in a stored text, as a list of texts, on
// a real Redis and on miniredis.
type luaReaders struct {
	servers map[string]*redis.Client
	script  *redis.Script
}

// readInLua has body run behind the common parts of the scripts, with the text in
// ARGV[1].
func readInLua(f *testing.F, body string, parts ...string) *luaReaders {
	text := read("common.lua")
	for _, part := range parts {
		text += read(part)
	}
	mini := miniredis.RunT(f)
	embedded := redis.NewClient(&redis.Options{Addr: mini.Addr(), DisableIdentity: true})
	f.Cleanup(func() { require.NoError(f, embedded.Close()) })
	return &luaReaders{map[string]*redis.Client{"redis": redistest.Start(f).Client(f), "embedded": embedded}, redis.NewScript(text + body)}
}

// both is what both servers' Lua reads; it fails the test where they differ.
func (l *luaReaders) both(t *testing.T, args ...any) []string {
	t.Helper()
	words := l.on(t, "redis", args...)
	require.Equal(t, words, l.on(t, "embedded", args...), "%q", args)
	return words
}

func (l *luaReaders) on(t *testing.T, server string, args ...any) []string {
	t.Helper()
	words, err := l.script.Run(context.Background(), l.servers[server], nil, args...).StringSlice()
	require.NoError(t, err, "%s: %q", server, args)
	return words
}

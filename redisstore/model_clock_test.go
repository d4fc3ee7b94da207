package redisstore_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

// A clockHook has a real Redis tell another time than its own: the scripts get it with their
// arguments in place of TIME, and so does who asks for it. What expires in Redis
// still does so by its own clock.
type clockHook struct {
	mu    sync.Mutex
	now   time.Time
	hands map[string]string // SHA-1 of the script that is told, by the SHA-1 of the script as the store has it
}

func (h *clockHook) set(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now = now
}

func (h *clockHook) DialHook(next redis.DialHook) redis.DialHook { return next }

func (h *clockHook) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if cmd, ok := cmd.(*redis.TimeCmd); ok {
			h.mu.Lock()
			defer h.mu.Unlock()
			cmd.SetVal(h.now)
			return nil
		}
		if !strings.HasPrefix(cmd.Name(), "eval") {
			return next(ctx, cmd)
		}
		own := redis.NewCmd(ctx, h.told(cmd)...)
		err := next(ctx, own)
		if answer, ok := cmd.(*redis.Cmd); ok {
			answer.SetVal(own.Val())
		}
		cmd.SetErr(err)
		return err
	}
}

// told is the call of a script that is told the time.
func (h *clockHook) told(cmd redis.Cmder) []any {
	h.mu.Lock()
	defer h.mu.Unlock()
	args := append([]any(nil), cmd.Args()...)
	text, _ := args[1].(string)
	if cmd.Name() == "eval" {
		told := strings.Replace(text, "redis.call('TIME')", "{table.remove(ARGV, #ARGV - 1), table.remove(ARGV)}", 1)
		h.hands[redis.NewScript(text).Hash()] = redis.NewScript(told).Hash()
		args[1] = told
	} else if told, ok := h.hands[text]; ok {
		args[1] = told
	} else {
		args[1] = strings.Repeat("0", 40) // that is known to nobody
	}
	return append(args, h.now.Unix(), h.now.Nanosecond()/1000)
}

func (h *clockHook) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	one := h.ProcessHook(func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, []redis.Cmder{cmd})
		cmd.SetErr(err)
		return err
	})
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if len(cmds) > 0 && cmds[0].Name() == "multi" {
			return next(ctx, cmds)
		}
		var first error
		for _, cmd := range cmds {
			if err := one(ctx, cmd); err != nil && first == nil {
				first = err
			}
		}
		return first
	}
}

// clocked is a client of a real Redis whose clock the test sets.
func clocked(t *testing.T, server *redistest.Server) (*redis.Client, *clockHook) {
	client := server.Client(t)
	hook := &clockHook{hands: map[string]string{}}
	client.AddHook(hook)
	return client, hook
}

func TestARedisCanBeToldTheTime(t *testing.T) {
	t.Parallel()
	client, clock := clocked(t, server)
	now := time.Date(2001, 2, 3, 4, 5, 6, 7000, time.UTC)
	clock.set(now)
	script := redis.NewScript("local time = redis.call('TIME') return {time[1], time[2], #ARGV, ARGV[1]}")
	for range 2 {
		told, err := script.Run(t.Context(), client, nil, "argument").Slice()
		require.NoError(t, err)
		require.Equal(t, []any{"981173106", "7", int64(1), "argument"}, told)
	}
	asked, err := client.Time(t.Context()).Result()
	require.NoError(t, err)
	require.True(t, now.Equal(asked))
}

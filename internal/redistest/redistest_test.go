package redistest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
)

const (
	patience = time.Minute            // for what must happen
	moment   = 100 * time.Millisecond // for what must not
)

func TestServerAnswersAndPersistsNothing(t *testing.T) {
	t.Parallel()
	s := Start(t)
	c := s.Client(t)
	ctx := t.Context()

	require.NoError(t, c.Ping(ctx).Err())
	require.Contains(t, c.Info(ctx, "server").Val(), fmt.Sprintf("process_id:%d\r\n", s.Pid()))
	require.Equal(t, map[string]string{"save": "", "appendonly": "no", "bind": "127.0.0.1", "dir": s.dir},
		configured(t, c, "save", "appendonly", "bind", "dir"))
	require.Contains(t, s.Log(), "Ready to accept connections")
}

func TestServerArgumentsOverride(t *testing.T) {
	t.Parallel()
	c := Start(t, "--appendonly", "yes", "--maxmemory", "100mb").Client(t)
	require.Equal(t, map[string]string{"appendonly": "yes", "maxmemory": "104857600"},
		configured(t, c, "appendonly", "maxmemory"))
}

func TestServerWithPassword(t *testing.T) {
	t.Parallel()
	s := Start(t, "--requirepass", "secret")
	require.ErrorContains(t, s.Client(t).Ping(t.Context()).Err(), "NOAUTH")
}

func TestServersOfOneTestAreApart(t *testing.T) {
	t.Parallel()
	a, b := Start(t), Start(t)
	require.NotEqual(t, a.Addr(), b.Addr())
	require.NoError(t, a.Client(t).Set(t.Context(), "k", "a", 0).Err())
	require.ErrorIs(t, b.Client(t).Get(t.Context(), "k").Err(), redis.Nil)
}

func requireGone(t *testing.T, pid int) {
	t.Helper()
	process, err := os.FindProcess(pid)
	require.NoError(t, err)
	require.ErrorIs(t, process.Signal(syscall.Signal(0)), os.ErrProcessDone)
}

func TestServerKill(t *testing.T) {
	t.Parallel()
	s := Start(t)
	require.NoError(t, s.Kill())
	requireGone(t, s.Pid())
	_, err := net.Dial("tcp", s.Addr())
	require.ErrorIs(t, err, syscall.ECONNREFUSED)
	require.NoError(t, s.Kill(), "killing the dead")
	require.Error(t, s.Pause(), "pausing the dead")
}

func TestServerRestart(t *testing.T) {
	t.Parallel()
	s := Start(t, "--appendonly", "yes", "--appendfsync", "always")
	c := s.Client(t)
	ctx := t.Context()
	addr, pid := s.Addr(), s.Pid()

	require.NoError(t, c.Set(ctx, "k", "v", 0).Err())
	require.NoError(t, s.Kill())
	require.NoError(t, s.Restart())
	require.Equal(t, addr, s.Addr())
	require.NotEqual(t, pid, s.Pid())
	require.Equal(t, "v", c.Get(ctx, "k").Val(), "same directory and arguments")

	pid = s.Pid()
	require.NoError(t, s.Restart(), "without Kill")
	require.NotEqual(t, pid, s.Pid())
	require.Equal(t, "v", c.Get(ctx, "k").Val())
	require.Equal(t, 3, strings.Count(s.Log(), "Ready to accept connections"))
}

func TestServerRestartForgets(t *testing.T) {
	t.Parallel()
	s := Start(t)
	c := s.Client(t)
	require.NoError(t, c.Set(t.Context(), "k", "v", 0).Err())
	require.NoError(t, s.Restart())
	require.ErrorIs(t, c.Get(t.Context(), "k").Err(), redis.Nil)
}

func TestServerPause(t *testing.T) {
	t.Parallel()
	s := Start(t)
	conn := dial(t, s.Addr())
	require.Equal(t, ":1", conn.do("INCR n"))

	require.NoError(t, s.Pause())
	require.NoError(t, s.Pause(), "twice")
	conn.send("INCR n")
	conn.requireSilence()

	require.NoError(t, s.Resume())
	require.Equal(t, ":2", conn.receive(), "the request waited")

	require.NoError(t, s.Pause())
	require.NoError(t, s.Restart(), "a paused server can be killed")
	require.Equal(t, ":1", dial(t, s.Addr()).do("INCR n"))
}

func TestClientIsClosedWithItsTest(t *testing.T) {
	t.Parallel()
	s := Start(t)
	var c *redis.Client
	t.Run("use", func(t *testing.T) {
		c = s.Client(t)
		require.NoError(t, c.Ping(t.Context()).Err())
	})
	require.ErrorIs(t, c.Ping(t.Context()).Err(), redis.ErrClosed)
	t.Run("close early", func(t *testing.T) { require.NoError(t, s.Client(t).Close()) })
}

func TestLaunchFailsWithLog(t *testing.T) {
	t.Parallel()
	s, err := Launch("--no-such-option", "1")
	require.ErrorContains(t, err, "exited at start")
	require.ErrorContains(t, err, "no-such-option", "what the server printed")
	require.Nil(t, s)
}

func TestLaunchWithoutRedis(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := Launch()
	require.ErrorIs(t, err, exec.ErrNotFound)
	require.ErrorContains(t, err, "make test")
	require.NotContains(t, err.Error(), "\n")
}

func TestCloseLeavesNothing(t *testing.T) {
	t.Parallel()
	s, err := Launch()
	require.NoError(t, err)
	require.DirExists(t, s.dir)
	require.NoError(t, s.Close())
	require.NoDirExists(t, s.dir)
	requireGone(t, s.Pid())
	require.NoError(t, s.Close(), "twice")
}

func TestPortTaken(t *testing.T) {
	t.Parallel()
	s := Start(t)
	other := &Server{path: s.path, dir: t.TempDir(), port: s.port}
	require.ErrorIs(t, other.start(), errPortTaken, "although somebody answers there")
	require.NoError(t, s.Client(t).Ping(t.Context()).Err())

	require.NoError(t, s.Kill())
	l, err := net.Listen("tcp", s.Addr())
	require.NoError(t, err)
	require.ErrorIs(t, s.Restart(), errPortTaken)
	require.NoError(t, l.Close())
	require.NoError(t, s.Restart())
}

func TestProxyForwards(t *testing.T) {
	t.Parallel()
	s, p := startBoth(t)
	c := client(t, p, -1)
	big := strings.Repeat("x", 1<<20)
	require.NoError(t, c.Set(t.Context(), "k", big, 0).Err())
	require.Equal(t, big, c.Get(t.Context(), "k").Val())
	require.Equal(t, big, s.Client(t).Get(t.Context(), "k").Val())
	require.Zero(t, p.Dropped())

	require.NoError(t, s.Restart())
	require.Equal(t, ":1", dial(t, p.Addr()).do("INCR n"), "a server that came back")
	require.NoError(t, s.Kill())
	dial(t, p.Addr()).requireClosed()
}

func TestProxyPassesOnAHangup(t *testing.T) {
	t.Parallel()
	s, p := startBoth(t)
	conn := dial(t, p.Addr())
	require.Equal(t, ":1", conn.do("INCR n"))
	require.NoError(t, s.Pause())
	conn.send("INCR n")
	require.NoError(t, conn.Close())
	require.NoError(t, s.Resume())
	c := s.Client(t)
	require.Eventually(t, func() bool { return c.Get(t.Context(), "n").Val() == "2" }, patience, time.Millisecond)
	require.Eventually(t, func() bool { return p.connections() == 0 }, patience, time.Millisecond)
}

func TestDropReplies(t *testing.T) {
	t.Parallel()
	s, p := startBoth(t)
	direct := s.Client(t)
	ctx := t.Context()

	t.Run("without retries", func(t *testing.T) {
		c := client(t, p, -1)
		require.NoError(t, c.Ping(ctx).Err()) // has the handshake done
		p.DropReplies(1)
		require.ErrorIs(t, c.Incr(ctx, "a").Err(), io.EOF)
		require.Equal(t, "1", direct.Get(ctx, "a").Val())
		require.Equal(t, 1, p.Dropped())
		require.Equal(t, int64(2), c.Incr(ctx, "a").Val(), "only one is dropped")
		require.Equal(t, 1, p.Dropped())
	})
	t.Run("with default retries", func(t *testing.T) {
		c := client(t, p, 0)
		require.NoError(t, c.Ping(ctx).Err())
		p.DropReplies(1)
		require.Equal(t, int64(2), c.Incr(ctx, "b").Val())
		require.Equal(t, "2", direct.Get(ctx, "b").Val())
		require.Equal(t, 2, p.Dropped())
	})
	t.Run("several", func(t *testing.T) {
		p.DropReplies(3)
		for range 3 {
			conn := dial(t, p.Addr())
			conn.send("INCR c")
			conn.requireClosed()
		}
		require.Equal(t, ":4", dial(t, p.Addr()).do("INCR c"))
		require.Equal(t, 5, p.Dropped())
	})
	t.Run("turned off", func(t *testing.T) {
		p.DropReplies(1)
		p.DropReplies(0)
		require.Equal(t, ":1", dial(t, p.Addr()).do("INCR d"))
	})
	t.Run("a request without a reply", func(t *testing.T) {
		conn := dial(t, p.Addr())
		require.Equal(t, "+PONG", conn.do("PING"))
		p.DropReplies(1)
		require.NoError(t, s.Pause())
		conn.send("INCR e")
		require.NoError(t, s.Restart())
		conn.requireClosed()
		require.Equal(t, 5, p.Dropped(), "was not dropped")
		conn = dial(t, p.Addr())
		conn.send("INCR e")
		conn.requireClosed()
		require.Equal(t, 6, p.Dropped())
	})
}

func TestDropRepliesSparesRequestsUnderWay(t *testing.T) {
	t.Parallel()
	s, p := startBoth(t)
	direct := s.Client(t)
	waiting := dial(t, p.Addr())
	waiting.send("BRPOPLPUSH from to 0")
	require.Eventually(t, func() bool {
		return strings.Contains(direct.Info(t.Context(), "clients").Val(), "blocked_clients:1\r\n")
	}, patience, time.Millisecond)

	p.DropReplies(1)
	require.NoError(t, direct.RPush(t.Context(), "from", "v").Err())
	require.Equal(t, "$1", waiting.receive())
	require.Equal(t, "v", waiting.receive())
	waiting.send("INCR n")
	waiting.requireClosed()
}

func TestDroppedPipelineIsCarriedOut(t *testing.T) {
	t.Parallel()
	s, p := startBoth(t)
	const commands = 3000 // more than Redis reads at a time, so that the reply comes in pieces
	conn := dial(t, p.Addr())
	p.DropReplies(1)
	conn.send(strings.TrimSuffix(strings.Repeat("INCR n\r\n", commands), "\r\n"))
	conn.requireClosed()
	require.Equal(t, fmt.Sprint(commands), s.Client(t).Get(t.Context(), "n").Val())
	require.Equal(t, 1, p.Dropped())
}

func TestDropEvery(t *testing.T) {
	t.Parallel()
	s, p := startBoth(t)
	p.DropEvery(3)
	conn := dial(t, p.Addr())
	for i := 1; i <= 12; i++ {
		conn.send("INCR n")
		if i%3 == 0 {
			conn.requireClosed()
			conn = dial(t, p.Addr())
			continue
		}
		require.Equal(t, fmt.Sprintf(":%d", i), conn.receive())
	}
	require.Equal(t, 4, p.Dropped())

	p.DropEvery(0)
	for i := 13; i <= 20; i++ {
		require.Equal(t, fmt.Sprintf(":%d", i), conn.do("INCR n"))
	}
	require.Equal(t, "20", s.Client(t).Get(t.Context(), "n").Val())
}

func TestDropMatching(t *testing.T) {
	t.Parallel()
	s, p := startBoth(t)
	ctx := t.Context()
	c := client(t, p, -1)
	isIncr := func(request []byte) bool { return strings.Contains(string(request), "incr") }

	p.DropMatching(isIncr)
	for i := 1; i <= 3; i++ {
		require.ErrorIs(t, c.Incr(ctx, "n").Err(), io.EOF)
		require.Equal(t, fmt.Sprint(i), c.Get(ctx, "n").Val())
		require.Equal(t, i, p.Dropped())
	}
	p.DropMatching(nil)
	require.Equal(t, int64(4), c.Incr(ctx, "n").Val())

	p.DropMatching(func(request []byte) bool {
		if !isIncr(request) {
			return false
		}
		p.DropMatching(nil)
		return true
	})
	require.Equal(t, int64(6), client(t, p, 0).Incr(ctx, "n").Val(), "a predicate that turns itself off")
	require.Equal(t, "6", s.Client(t).Get(ctx, "n").Val())
	require.Equal(t, 4, p.Dropped())
}

func TestCut(t *testing.T) {
	t.Parallel()
	_, p := startBoth(t)
	a, b := dial(t, p.Addr()), dial(t, p.Addr())
	require.Equal(t, "+PONG", a.do("PING"))
	require.Equal(t, "+PONG", b.do("PING"))
	p.Cut()
	a.requireClosed()
	b.requireClosed()
	require.Equal(t, "+PONG", dial(t, p.Addr()).do("PING"))
}

func TestRefuse(t *testing.T) {
	t.Parallel()
	_, p := startBoth(t)
	old := dial(t, p.Addr())
	require.Equal(t, "+PONG", old.do("PING"))
	p.Refuse(true)
	old.requireClosed()
	for range 3 {
		dial(t, p.Addr()).requireClosed()
	}
	require.Error(t, client(t, p, -1).Ping(t.Context()).Err())
	p.Refuse(false)
	require.Equal(t, "+PONG", dial(t, p.Addr()).do("PING"))
}

func TestDelay(t *testing.T) {
	t.Parallel()
	_, p := startBoth(t)
	conn := dial(t, p.Addr())
	took := func() time.Duration {
		start := time.Now()
		require.Equal(t, "+PONG", conn.do("PING"))
		return time.Since(start)
	}
	p.Delay(moment)
	require.GreaterOrEqual(t, took(), moment)
	require.GreaterOrEqual(t, took(), moment)
	p.Delay(0)
	require.Eventually(t, func() bool { return took() < moment }, patience, time.Millisecond) // the machine may be busy
}

func TestBlackhole(t *testing.T) {
	t.Parallel()
	s, p := startBoth(t)
	direct := s.Client(t)
	ctx := t.Context()
	conn, idle := dial(t, p.Addr()), dial(t, p.Addr())
	require.Equal(t, ":1", conn.do("INCR n"))
	require.Equal(t, "+PONG", idle.do("PING"))

	p.Blackhole(true)
	p.Blackhole(true)
	conn.send("INCR n")
	fresh := dial(t, p.Addr())
	fresh.send("INCR m")
	conn.requireSilence()
	fresh.requireSilence()
	require.Equal(t, "1", direct.Get(ctx, "n").Val(), "requests do not get through")
	require.ErrorIs(t, direct.Get(ctx, "m").Err(), redis.Nil)

	p.Blackhole(false)
	p.Blackhole(false)
	require.Equal(t, ":2", conn.receive())
	require.Equal(t, ":1", fresh.receive())

	// Replies are held as well: this one's request got through before.
	conn.send("BRPOPLPUSH from to 0")
	require.Eventually(t, func() bool {
		return strings.Contains(direct.Info(ctx, "clients").Val(), "blocked_clients:1\r\n")
	}, patience, time.Millisecond)
	p.Blackhole(true)
	require.NoError(t, direct.RPush(ctx, "from", "v").Err())
	conn.requireSilence()
	require.NoError(t, s.Kill())
	idle.requireSilence()
	p.Blackhole(false)
	require.Equal(t, "$1", conn.receive())
	require.Equal(t, "v", conn.receive())
	conn.requireClosed()
	idle.requireClosed()
}

func TestProxyClose(t *testing.T) {
	t.Parallel()
	s := Start(t)
	for name, fault := range map[string]func(*Proxy){
		"idle":       func(*Proxy) {},
		"blackhole":  func(p *Proxy) { p.Blackhole(true) },
		"delay":      func(p *Proxy) { p.Delay(time.Hour) },
		"drop":       func(p *Proxy) { p.DropEvery(1) },
		"drop, held": func(p *Proxy) { p.DropEvery(1); p.Delay(time.Hour) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, err := NewProxy(s.Addr())
			require.NoError(t, err)
			conn, idle := dial(t, p.Addr()), dial(t, p.Addr())
			require.Equal(t, "+PONG", conn.do("PING"))
			fault(p)
			conn.send("PING")
			require.NoError(t, p.Close())
			require.Zero(t, p.connections(), "goroutines have ended")
			require.NoError(t, p.Close(), "twice")
			idle.requireClosed()
			_, err = net.Dial("tcp", p.Addr())
			require.Error(t, err)
		})
	}
}

func TestProxyCloseWhileServerIsPaused(t *testing.T) {
	t.Parallel()
	s, p := startBoth(t)
	require.NoError(t, s.Pause())
	conn := dial(t, p.Addr())
	conn.send("PING")
	conn.requireSilence()
	require.NoError(t, p.Close())
	conn.requireClosed()
}

// Whatever the faults, no increment that was acknowledged may be missing.
func TestFaultsTogether(t *testing.T) {
	t.Parallel()
	s, p := startBoth(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var acknowledged atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		c := client(t, p, -1)
		wg.Go(func() {
			for ctx.Err() == nil {
				if c.Incr(ctx, "n").Err() == nil {
					acknowledged.Add(1)
				}
			}
		})
	}
	faults := []func(on bool){
		func(bool) { p.Cut() },
		p.Refuse,
		p.Blackhole,
		func(on bool) { p.Delay(time.Duration(number(on, 1)) * time.Millisecond) },
		func(on bool) { p.DropEvery(number(on, 5)) },
		func(on bool) { p.DropReplies(number(on, 3)) },
		func(on bool) {
			p.DropMatching(nil)
			if on {
				p.DropMatching(func([]byte) bool { return rand.IntN(4) == 0 })
			}
		},
	}
	for range 300 {
		faults[rand.IntN(len(faults))](rand.IntN(2) == 0)
		seen := acknowledged.Load()
		_ = p.Dropped()
		if rand.IntN(10) == 0 {
			for _, f := range faults {
				f(false)
			}
			require.Eventually(t, func() bool { return acknowledged.Load() > seen }, patience, time.Millisecond)
		}
	}
	stop()
	require.NoError(t, p.Close())
	wg.Wait()
	n, err := s.Client(t).Get(t.Context(), "n").Int64()
	require.NoError(t, err)
	require.GreaterOrEqual(t, n, acknowledged.Load())
}

func number(on bool, n int) int {
	if on {
		return n
	}
	return 0
}

func startBoth(t *testing.T) (*Server, *Proxy) {
	t.Helper()
	s := Start(t)
	return s, StartProxy(t, s.Addr())
}

// client returns a client through the proxy; as with redis.Options, maxRetries
// -1 means none and 0 the default.
func client(t *testing.T, p *Proxy, maxRetries int) *redis.Client {
	c := redis.NewClient(&redis.Options{Addr: p.Addr(), MaxRetries: maxRetries, DisableIdentity: true})
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func configured(t *testing.T, c *redis.Client, names ...string) map[string]string {
	t.Helper()
	values := map[string]string{}
	for _, name := range names {
		v, err := c.ConfigGet(t.Context(), name).Result()
		require.NoError(t, err)
		values[name] = v[name]
	}
	return values
}

func (p *Proxy) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

// rawConn speaks Redis's inline commands, without a handshake or retries.
type rawConn struct {
	net.Conn
	t      *testing.T
	reader *bufio.Reader
}

func dial(t *testing.T, addr string) *rawConn {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() {
		if err := conn.Close(); !errors.Is(err, net.ErrClosed) {
			require.NoError(t, err)
		}
	})
	return &rawConn{Conn: conn, t: t, reader: bufio.NewReader(conn)}
}

func (c *rawConn) send(command string) {
	c.t.Helper()
	_, err := io.WriteString(c, command+"\r\n")
	require.NoError(c.t, err)
}

func (c *rawConn) receive() string {
	c.t.Helper()
	require.NoError(c.t, c.SetReadDeadline(time.Now().Add(patience)))
	line, err := c.reader.ReadString('\n')
	require.NoError(c.t, err)
	return strings.TrimSuffix(line, "\r\n")
}

func (c *rawConn) do(command string) string {
	c.t.Helper()
	c.send(command)
	return c.receive()
}

func (c *rawConn) requireSilence() {
	c.t.Helper()
	require.NoError(c.t, c.SetReadDeadline(time.Now().Add(moment)))
	_, err := c.reader.ReadByte()
	require.ErrorIs(c.t, err, os.ErrDeadlineExceeded)
}

func (c *rawConn) requireClosed() {
	c.t.Helper()
	require.NoError(c.t, c.SetReadDeadline(time.Now().Add(patience)))
	_, err := c.reader.ReadByte()
	require.Error(c.t, err)
	require.NotErrorIs(c.t, err, os.ErrDeadlineExceeded)
}

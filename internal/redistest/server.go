// Package redistest runs real redis-server processes for tests and benchmarks,
// and a proxy that breaks the connection to one in chosen ways.
package redistest

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

const (
	startTimeout = 20 * time.Second // generous: the machine may be busy with other tests
	pollInterval = 10 * time.Millisecond
	portAttempts = 20
)

var errPortTaken = errors.New("port taken")

// Server is a redis-server process of its own, listening on a loopback port
// with nothing persisted. Its methods may be called from any goroutine.
type Server struct {
	path string
	args []string
	dir  string
	log  logBuffer

	port  int
	claim net.PacketConn // on the port, see claimPort

	mu   sync.Mutex
	proc *process
}

// Start launches a server that is closed when the test ends, and fails the
// test when it cannot. args are appended to the server's command line.
func Start(tb testing.TB, args ...string) *Server {
	tb.Helper()
	s, err := Launch(args...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("closing redis-server: %v", err)
		}
	})
	return s
}

// parallel is how many tests of a package run at a time: most of them wait for a
// peer or a server for most of their time.
const parallel = 16

// Main is for a TestMain: it runs the tests with one server for all of them,
// and returns the exit status. Unless -parallel says otherwise, 16 parallel tests
// run at a time.
func Main(m *testing.M, use func(*Server)) int {
	if err := runMore(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	server, err := Launch()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	use(server)
	code := m.Run()
	if err := server.Close(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

func runMore() error {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if given {
		return nil
	}
	return flag.Set("test.parallel", strconv.Itoa(parallel))
}

// Launch starts a server and returns once it answers. args are appended to the
// server's command line and win over its defaults; only the port is not theirs
// to choose. The caller must Close the server.
func Launch(args ...string) (*Server, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("no redis-server on PATH: `make test` installs it, or install Redis 7 or newer (Debian: redis-server): %w", err)
	}
	dir, err := os.MkdirTemp("", "redistest-")
	if err != nil {
		return nil, err
	}
	s := &Server{path: path, args: args, dir: dir}
	for range portAttempts {
		if s.port, s.claim, err = claimPort(); err != nil {
			break
		}
		if err = s.start(); err == nil {
			return s, nil
		}
		err = errors.Join(err, s.claim.Close())
		if !errors.Is(err, errPortTaken) {
			break
		}
	}
	return nil, errors.Join(err, os.RemoveAll(dir))
}

// Addr is the server's host:port. It stays the same across Restart.
func (s *Server) Addr() string {
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port))
}

// Pid is the process id of the server, or of its last run if it is not running.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc.cmd.Process.Pid
}

// Log is what the server has printed so far, over all its runs.
func (s *Server) Log() string {
	return s.log.String()
}

// Client returns a client of the server that is closed when the test ends. Its
// only handshake is HELLO.
func (s *Server) Client(tb testing.TB) *redis.Client {
	c := redis.NewClient(&redis.Options{
		Addr:                     s.Addr(),
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	tb.Cleanup(func() {
		if err := c.Close(); err != nil && !errors.Is(err, redis.ErrClosed) {
			tb.Errorf("closing redis client: %v", err)
		}
	})
	return c
}

// Kill ends the server as a crash would and waits until it is gone. Killing a
// server that is not running does nothing.
func (s *Server) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.proc.kill()
}

// Restart starts the server again with the same port, directory and arguments,
// killing it first if it is still running, and returns once it answers.
func (s *Server) Restart() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.proc.kill(); err != nil {
		return err
	}
	return s.start()
}

// Pause freezes the server: connections stay open, nothing is answered.
func (s *Server) Pause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Suspend(s.proc.cmd.Process)
}

// Resume undoes Pause.
func (s *Server) Resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Resume(s.proc.cmd.Process)
}

// Close kills the server, removes its directory and gives up its port.
func (s *Server) Close() error {
	err := errors.Join(s.Kill(), os.RemoveAll(s.dir))
	if closing := s.claim.Close(); !errors.Is(closing, net.ErrClosed) {
		err = errors.Join(err, closing)
	}
	return err
}

func (s *Server) start() error {
	args := []string{
		"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1",
		"--save", "", "--appendonly", "no", "--dir", s.dir,
	}
	cmd := exec.Command(s.path, append(args, s.args...)...)
	mark := s.log.Len()
	cmd.Stdout = &s.log
	cmd.Stderr = &s.log
	cmd.WaitDelay = time.Second // a fork of the server, saving, may hold our pipe open

	p, err := startProcess(cmd)
	if err != nil {
		return err
	}
	s.proc = p
	if err := s.waitReady(p); err != nil {
		log := s.log.String()[mark:]
		if strings.Contains(log, "Address already in use") {
			err = errPortTaken
		}
		return errors.Join(fmt.Errorf("redis-server %s: %w\n%s", strings.Join(s.args, " "), err, log), p.kill())
	}
	return nil
}

func (s *Server) waitReady(p *process) error {
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for {
		err := s.probe(p.cmd.Process.Pid)
		if err == nil {
			return nil
		}
		select {
		case <-p.exited:
			return fmt.Errorf("exited at start: %v", p.cmd.ProcessState)
		case <-timeout.C:
			return fmt.Errorf("not ready after %v: %w", startTimeout, err)
		case <-poll.C:
		}
	}
}

// probe asks whether the server is ready. An answer alone is not enough: when
// the port was taken, it is somebody else's server that answers, while ours is
// about to exit.
func (s *Server) probe(pid int) error {
	conn, err := net.DialTimeout("tcp", s.Addr(), time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "PING\r\nINFO server\r\nQUIT\r\n"); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	switch {
	case bytes.HasPrefix(answer, []byte("-NOAUTH")):
		return nil // ready, and past telling whose it is
	case !bytes.HasPrefix(answer, []byte("+PONG")):
		return fmt.Errorf("answered %.100q", answer)
	case !bytes.Contains(answer, fmt.Appendf(nil, "process_id:%d\r\n", pid)):
		return errors.New("another process answers on the port")
	}
	return nil
}

// claimPort finds a free TCP port and claims it among users of this package by
// holding the UDP port of the same number: while the server is down for a
// Restart, only the claim keeps its port from being given to another one. Ports
// are below the range that systems hand out to outgoing connections.
func claimPort() (int, net.PacketConn, error) {
	var err error
	for range portAttempts {
		port := 20000 + rand.IntN(12000)
		addr := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		var claim net.PacketConn
		if claim, err = net.ListenPacket("udp", addr); err != nil {
			continue
		}
		var l net.Listener
		if l, err = net.Listen("tcp", addr); err == nil {
			err = l.Close()
		}
		if err == nil {
			return port, claim, nil
		}
		err = errors.Join(err, claim.Close())
	}
	return 0, nil, fmt.Errorf("no free port: %w", err)
}

// process is a started command; exited is closed once it has been waited for.
type process struct {
	cmd    *exec.Cmd
	exited <-chan struct{}
}

func startProcess(cmd *exec.Cmd) (*process, error) {
	exited, err := StartChild(cmd)
	return &process{cmd, exited}, err
}

// StartChild starts a command that is killed when this process ends, however it ends (on
// Linux). It is waited for, and then exited is closed: how it went, cmd.ProcessState says.
func StartChild(cmd *exec.Cmd) (exited <-chan struct{}, err error) {
	cmd.SysProcAttr = dieWithParent()
	over, started := make(chan struct{}), make(chan error)
	go func() {
		// The parent-death signal fires when the starting thread ends, not the
		// process, so the thread is kept for as long as the child lives.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // says how it exited, as does cmd.ProcessState
			close(over)
		}
	}()
	return over, <-started
}

func (p *process) kill() error {
	if err := p.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-p.exited
	return nil
}

// logBuffer is a bytes.Buffer that may be read while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *logBuffer) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Len()
}

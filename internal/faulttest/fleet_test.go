//go:build linux

package faulttest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"

	"github.com/dianemo/dianemo"
	"github.com/dianemo/dianemo/internal/redistest"
	"github.com/dianemo/dianemo/redisstore"
)

// patience is how long to wait for what must happen, where no limit is tested.
const patience = time.Minute

var namespaces atomic.Int64

// A fleet is the peers of one test, and their witness.
type fleet struct {
	t          *testing.T
	server     *redistest.Server
	rdb        *redis.Client
	store      *redisstore.Store
	client     *dianemo.Client
	namespace  string
	partitions int

	pipe    *os.File // the end that peers write to
	reading sync.WaitGroup
	peers   []*peer

	mu    sync.Mutex
	lines []line
	news  chan struct{} // closed at the next line
	marks int           // that the test has written to the pipe
	read  int           // of them
}

// assemble makes a fleet without peers.
func assemble(t *testing.T, server *redistest.Server, partitions int) *fleet {
	f := &fleet{t: t, server: server, rdb: server.Client(t), namespace: fmt.Sprintf("fault-%d", namespaces.Add(1)),
		partitions: partitions, news: make(chan struct{})}
	var err error
	f.store = redisstore.New(f.rdb, redisstore.Options{Namespace: f.namespace, Partitions: partitions})
	f.client, err = dianemo.NewClient(f.store, dianemo.ClientConfig{})
	require.NoError(t, err)
	t.Cleanup(f.client.Close)
	read, write, err := os.Pipe()
	require.NoError(t, err)
	f.pipe = write
	f.reading.Go(func() { f.listen(read) })
	t.Cleanup(f.disband)
	return f
}

// disband ends all processes and reports what they complained of.
func (f *fleet) disband() {
	for _, p := range f.peers {
		p.kill()
		require.NoError(f.t, p.orders.Close())
	}
	require.NoError(f.t, f.pipe.Close())
	f.reading.Wait()
	for _, p := range f.peers {
		for _, sign := range []string{"DATA RACE", "panic:", "fatal error:"} {
			if strings.Contains(p.stderr.String(), sign) {
				f.t.Errorf("peer %s: %s", p.id, sign)
			}
		}
		if f.t.Failed() {
			f.t.Logf("peer %s said:\n%s", p.id, p.stderr.String())
		}
	}
	if f.t.Failed() {
		var all strings.Builder
		for _, l := range f.lines {
			fmt.Fprintf(&all, "%s %+v\n", l.At.Format("05.000"), l)
		}
		f.t.Logf("the witness saw:\n%s", all.String())
	}
}

// listen is the witness.
func (f *fleet) listen(pipe *os.File) {
	defer pipe.Close()
	in := bufio.NewScanner(pipe)
	for in.Scan() {
		var l line
		if err := json.Unmarshal(in.Bytes(), &l); err != nil {
			f.t.Errorf("the witness was told %q: %v", in.Text(), err)
			continue
		}
		l.At = time.Now()
		f.mu.Lock()
		if l.Event == mark {
			f.read++
		} else {
			f.lines = append(f.lines, l)
		}
		close(f.news)
		f.news = make(chan struct{})
		f.mu.Unlock()
	}
}

// seen is what peers have told the witness by now, in order, of what fits. What of
// it is still in the pipe is waited for: Redis may know of it already.
func (f *fleet) seen(fits func(line) bool) []line {
	f.t.Helper()
	f.mu.Lock()
	f.marks++
	marks := f.marks
	f.mu.Unlock()
	_, err := fmt.Fprintf(f.pipe, "{\"Event\":%q}\n", mark)
	require.NoError(f.t, err)
	for {
		f.mu.Lock()
		read, news := f.read, f.news
		f.mu.Unlock()
		if read >= marks {
			return f.heard(fits)
		}
		<-news
	}
}

// heard is what the witness has read so far, in order, of what fits.
func (f *fleet) heard(fits func(line) bool) []line {
	f.mu.Lock()
	defer f.mu.Unlock()
	var lines []line
	for _, l := range f.lines {
		if fits(l) {
			lines = append(lines, l)
		}
	}
	return lines
}

// await waits until the witness has seen n lines that fit, and returns all
// that do.
func (f *fleet) await(n int, what string, fits func(line) bool) []line {
	f.t.Helper()
	timeout := time.NewTimer(patience)
	defer timeout.Stop()
	for {
		f.mu.Lock()
		news := f.news
		f.mu.Unlock()
		lines := f.heard(fits)
		if len(lines) >= n {
			return lines
		}
		select {
		case <-news:
		case <-timeout.C:
			f.t.Fatalf("waited %v for the witness to see %s: %d of %d", patience, what, len(lines), n)
		}
	}
}

// quiet checks that the witness sees nothing of the kind for that long.
func (f *fleet) quiet(span time.Duration, what string, fits func(line) bool) {
	f.t.Helper()
	timer := time.NewTimer(span)
	defer timer.Stop()
	before := len(f.seen(fits))
	for {
		f.mu.Lock()
		news := f.news
		f.mu.Unlock()
		if lines := f.heard(fits); len(lines) > before {
			f.t.Fatalf("the witness saw %s: %+v", what, lines[before:])
		}
		select {
		case <-news:
		case <-timer.C:
			return
		}
	}
}

// eventually waits for what can only be asked for.
func (f *fleet) eventually(what string, ok func() bool) {
	f.t.Helper()
	f.inTime(patience, what, ok)
}

// inTime waits for it for that long.
func (f *fleet) inTime(patience time.Duration, what string, ok func() bool) {
	f.t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); !ok(); <-tick.C {
		if time.Since(begin) > patience {
			f.t.Fatalf("waited %v for this: %s", patience, what)
		}
	}
}

// allowance is what a machine adds on which nothing else runs: a race detector makes each process slower.
const allowance = 600 * time.Millisecond

// promised says how long something took. Only a test that has the machine for
// itself can hold that against what is promised.
func (f *fleet) promised(took, promise time.Duration, what string) {
	f.t.Helper()
	f.t.Logf("%s took %v; the promise is %v", what, took.Round(time.Millisecond), promise)
	if test, _, _ := strings.Cut(f.t.Name(), "/"); strings.HasSuffix(test, "_Alone") {
		require.Less(f.t, took, promise+allowance, what)
	}
}

// A peer is one process.
type peer struct {
	f      *fleet
	id     string
	pid    int
	cmd    *exec.Cmd
	orders *os.File
	stderr *log
	gone   <-chan struct{}
}

// launch starts a peer and does not wait until it works.
func (f *fleet) launch(s settings) *peer {
	f.t.Helper()
	s.Namespace, s.Partitions = f.namespace, f.partitions
	if s.Redis == "" {
		s.Redis = f.server.Addr()
	}
	if s.Kinds == nil {
		s.Kinds = []string{"work"}
	}
	if s.Tokens == 0 {
		s.Tokens = 64
	}
	encoded, err := json.Marshal(s)
	require.NoError(f.t, err)
	read, write, err := os.Pipe()
	require.NoError(f.t, err)
	p := &peer{f: f, orders: write, stderr: &log{}, cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), settingsVariable+"="+string(encoded))
	p.cmd.Stdin, p.cmd.Stderr, p.cmd.ExtraFiles = read, p.stderr, []*os.File{f.pipe}
	p.gone, err = redistest.StartChild(p.cmd) // how it ended is told by the witness
	read.Close()
	require.NoError(f.t, err)
	p.pid = p.cmd.Process.Pid
	f.peers = append(f.peers, p)
	return p
}

// start starts a peer and waits until it works.
func (f *fleet) start(s settings) *peer {
	f.t.Helper()
	p := f.launch(s)
	f.eventually("the new peer shows itself", func() bool {
		peers, err := f.client.Peers(context.Background())
		require.NoError(f.t, err)
		for _, info := range peers {
			if info.PID == p.pid {
				p.id = info.ID
			}
		}
		return p.id != ""
	})
	return p
}

func (p *peer) signal(s syscall.Signal) {
	// What is gone needs no signal.
	_ = p.cmd.Process.Signal(s)
}

// kill ends the process and returns when it is gone.
func (p *peer) kill() {
	p.signal(syscall.SIGKILL)
	<-p.gone
}

// pause stops the process and returns when it has stopped.
func (p *peer) pause() {
	p.f.t.Helper()
	require.NoError(p.f.t, redistest.Suspend(p.cmd.Process))
}

// resume makes a process go on that was paused, however often.
func (p *peer) resume() {
	// What is gone needs no signal.
	_ = redistest.Resume(p.cmd.Process)
}

// release lets go this peer's handlers of these jobs, or runs; without any, all
// of them, now and later.
func (p *peer) release(ids ...string) {
	p.f.t.Helper()
	if len(ids) == 0 {
		ids = []string{"*"}
	}
	_, err := fmt.Fprintln(p.orders, strings.Join(ids, " "))
	require.NoError(p.f.t, err)
}

// terminate asks the process to end, which one that has only just been launched
// would not hear.
func (p *peer) terminate() {
	p.f.t.Helper()
	p.f.await(1, "the peer be made", func(l line) bool { return l.Event == made && l.PID == p.pid })
	p.signal(syscall.SIGTERM)
}

// exit waits until the process is gone, and returns what Run returned.
func (p *peer) exit() line {
	p.f.t.Helper()
	l := p.f.await(1, "a peer's Run return", func(l line) bool { return l.Event == exited && l.PID == p.pid })
	select {
	case <-p.gone:
	case <-time.After(patience):
		p.f.t.Fatalf("peer %s did not exit", p.id)
	}
	return l[0]
}

// enqueue adds n jobs.
func (f *fleet) enqueue(n int, kind string, a args, options dianemo.Options) []string {
	f.t.Helper()
	requests := make([]dianemo.Request, n)
	for i := range requests {
		requests[i] = dianemo.NewKind[args](kind, dianemo.Policy{}).NewWith(a, options)
	}
	ids, err := f.client.EnqueueMany(context.Background(), requests...)
	require.NoError(f.t, err)
	return ids
}

var urgent = dianemo.Options{Priority: 1} // neither retries nor reruns

func (f *fleet) get(id string) *dianemo.JobInfo {
	f.t.Helper()
	job, err := f.client.Get(context.Background(), id)
	require.NoError(f.t, err)
	return job
}

// awaitState waits until all these jobs are in that state.
func (f *fleet) awaitState(state dianemo.State, ids ...string) {
	f.t.Helper()
	for _, id := range ids {
		var last dianemo.State
		f.eventually(fmt.Sprintf("job %s is %s", id, state), func() bool {
			last = f.get(id).State
			if last.Finished() && last != state {
				f.t.Fatalf("job %s is %s and not %s", id, last, state)
			}
			return last == state
		})
	}
}

// starts are those of the jobs, by peer p unless that is nil.
func (f *fleet) starts(p *peer, ids ...string) []line {
	return f.seen(func(l line) bool { return l.is(started, ids...) && (p == nil || l.PID == p.pid) })
}

// repeated is how many runs were not their job's first.
func (f *fleet) repeated() int {
	starts := f.starts(nil)
	return len(starts) - len(jobsOf(starts))
}

// awaitStarts waits until p has started all these jobs, once each so far.
func (f *fleet) awaitStarts(p *peer, ids ...string) []line {
	f.t.Helper()
	starts := f.await(len(ids), fmt.Sprintf("%d jobs start", len(ids)), func(l line) bool { return l.is(started, ids...) && l.PID == p.pid })
	require.Len(f.t, starts, len(ids))
	return starts
}

// ranOnce checks that each of the jobs was started exactly once, by p, and that
// this run's result is the job's.
func (f *fleet) ranOnce(p *peer, ids ...string) {
	f.t.Helper()
	for _, id := range ids {
		starts := f.starts(nil, id)
		require.Len(f.t, starts, 1, "starts of job %s", id)
		require.Equal(f.t, p.pid, starts[0].PID)
		f.hasResultOf(starts[0])
	}
}

// hasResultOf checks that a job succeeded by this run.
func (f *fleet) hasResultOf(start line) {
	f.t.Helper()
	job := f.get(start.Job)
	require.Equal(f.t, dianemo.Succeeded, job.State)
	require.Equal(f.t, start.Epoch, job.Epoch)
	require.Equal(f.t, start.Peer, job.Peer)
	var r result
	require.NoError(f.t, job.DecodeResult(&r))
	require.Equal(f.t, result{start.Peer, start.PID, start.Epoch}, r)
}

// leader reads the lease.
func (f *fleet) leader() (peer string, term string) {
	f.t.Helper()
	held, err := f.rdb.Get(context.Background(), "{"+f.namespace+"}:leader").Result()
	if err == redis.Nil {
		return "", ""
	}
	require.NoError(f.t, err)
	parts := strings.Split(held, "|")
	require.Len(f.t, parts, 3, held)
	return parts[0], parts[1]
}

// awaitLeader waits until p leads.
func (f *fleet) awaitLeader(p *peer) line {
	f.t.Helper()
	return f.await(1, "the peer lead", func(l line) bool { return l.Event == lead && l.Leading && l.PID == p.pid })[0]
}

// terms are the last that did chores, by partition.
func (f *fleet) terms() []string {
	f.t.Helper()
	terms := make([]string, f.partitions)
	for i := range terms {
		var err error
		terms[i], err = f.rdb.HGet(context.Background(), fmt.Sprintf("{%s:%d}:info", f.namespace, i), "term").Result()
		require.NoError(f.t, err)
	}
	return terms
}

func jobsOf(lines []line) []string {
	var ids []string
	for _, l := range lines {
		ids = append(ids, l.Job)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

func concat(ids ...[]string) []string { return slices.Concat(ids...) }

// A log keeps what a process says, and may be read meanwhile.
type log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(b)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

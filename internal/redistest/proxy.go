package redistest

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy forwards TCP connections to a server and breaks them on demand. All its
// faults may be switched at any time from any goroutine.
//
// The proxy does not parse the protocol. One read from the client counts as one
// request, pipelines included, and the next bytes from the server as its reply,
// so faults that drop replies are for connections that carry one request at a
// time. A client's handshake is a request like any other. A request that takes
// several reads (a pipeline of much more than 64 KiB may) counts once if the
// server does not answer in between.
type Proxy struct {
	target   string
	listener net.Listener
	ctx      context.Context // ends with Close
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	acceptErr error // of the accept goroutine until it is waited for

	mu      sync.Mutex
	conns   map[*proxyConn]struct{}
	closed  bool
	refuse  bool
	delay   time.Duration
	open    chan struct{} // closed while traffic may flow
	match   func(request []byte) bool
	every   int
	seen    int // replies since DropEvery or its last drop
	drop    int // replies still to drop for DropReplies
	epoch   int // of the last DropReplies; earlier requests are not its to drop
	dropped int
}

// StartProxy returns a proxy in front of target that is closed when the test
// ends.
func StartProxy(tb testing.TB, target string) *Proxy {
	tb.Helper()
	p, err := NewProxy(target)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := p.Close(); err != nil {
			tb.Errorf("closing proxy: %v", err)
		}
	})
	return p
}

// NewProxy returns a proxy in front of target, a host:port. The target need not
// be up: a connection that cannot reach it is closed.
func NewProxy(target string) (*Proxy, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	open := make(chan struct{})
	close(open)
	p := &Proxy{target: target, listener: l, conns: map[*proxyConn]struct{}{}, open: open}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.wg.Go(p.accept)
	return p, nil
}

// Addr is the host:port clients connect to.
func (p *Proxy) Addr() string {
	return p.listener.Addr().String()
}

// Close stops listening, cuts all connections and waits for the proxy's
// goroutines. It must not be called from a DropMatching predicate.
func (p *Proxy) Close() error {
	p.mu.Lock()
	already := p.closed
	p.closed = true
	p.mu.Unlock()
	p.cancel()
	p.Cut()
	var err error
	if !already {
		if err = p.listener.Close(); errors.Is(err, net.ErrClosed) {
			err = nil // accept gave up before, and says why
		}
	}
	p.wg.Wait()
	return errors.Join(p.acceptErr, err)
}

// DropReplies loses the replies to the next n requests that get one: each is
// carried out by the server, and then its connection is closed without the
// reply. Requests already under way do not count. 0 turns it off.
func (p *Proxy) DropReplies(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop = n
	p.epoch++
}

// DropEvery loses every nth reply, counted over all connections, until it is
// called again; 0 turns it off. A client that reconnects with a handshake makes
// two requests for each retry, so that with n = 2 it may never get anything done.
func (p *Proxy) DropEvery(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.every = n
	p.seen = 0
}

// DropMatching loses the replies to requests whose bytes match; nil turns it
// off. The predicate is called as requests come in, for several connections at
// once, and must not keep the bytes.
func (p *Proxy) DropMatching(match func(request []byte) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.match = match
}

// Dropped is the number of replies lost so far.
func (p *Proxy) Dropped() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dropped
}

// Cut closes all present connections, and returns how many they were.
func (p *Proxy) Cut() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut()
	return len(p.conns)
}

func (p *Proxy) cut() {
	for c := range p.conns {
		c.close()
	}
}

// Refuse, while on, closes new connections at once. Turning it on cuts the
// present ones.
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = on
	if on {
		p.cut()
	}
}

// Delay holds each chunk of a reply back for d before it goes on.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Blackhole, while on, holds everything back in both directions, the end of a
// connection included, and keeps connections open. What was held goes on when
// it is turned off.
func (p *Proxy) Blackhole(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.open:
		if on {
			p.open = make(chan struct{})
		}
	default:
		if !on {
			close(p.open)
		}
	}
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Better no listener than one that leaves clients hanging.
			p.acceptErr = err
			p.listener.Close()
			return
		}
		if p.refuses() {
			client.Close()
			continue
		}
		p.wg.Go(func() { p.serve(client.(*net.TCPConn)) })
	}
}

func (p *Proxy) refuses() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.refuse || p.closed
}

func (p *Proxy) serve(client *net.TCPConn) {
	var dialer net.Dialer
	server, err := dialer.DialContext(p.ctx, "tcp", p.target)
	if err != nil {
		client.Close() // what a client of a server that is down gets to see
		return
	}
	c := &proxyConn{proxy: p, client: client, server: server.(*net.TCPConn), done: make(chan struct{})}
	defer c.close()
	if !p.admit(c) {
		return
	}
	defer p.forget(c)
	p.wg.Go(c.forwardRequests)
	c.forwardReplies()
}

// admit is where a connection becomes one that Cut closes.
func (p *Proxy) admit(c *proxyConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse || p.closed {
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Proxy) forget(c *proxyConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

// request is what is known of a request that has not been answered.
type request struct {
	epoch   int
	matched bool
}

func (p *Proxy) examine(data []byte) request {
	p.mu.Lock()
	r := request{epoch: p.epoch}
	match := p.match
	p.mu.Unlock()
	// Outside the lock, so that a predicate may switch faults itself.
	r.matched = match != nil && match(data)
	return r
}

// loses decides about the reply to r, and counts.
func (p *Proxy) loses(r request) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	lose := r.matched
	if p.every > 0 {
		p.seen++
		if p.seen >= p.every {
			p.seen = 0
			lose = true
		}
	}
	if !lose && p.drop > 0 && r.epoch == p.epoch {
		p.drop--
		lose = true
	}
	if lose {
		p.dropped++
	}
	return lose
}

type proxyConn struct {
	proxy          *Proxy
	client, server *net.TCPConn
	once           sync.Once
	done           chan struct{}

	mu      sync.Mutex
	pending *request // forwarded and not answered
}

func (c *proxyConn) close() {
	c.once.Do(func() {
		close(c.done)
		// Nothing is left to be done about a connection that fails to close.
		c.client.Close()
		c.server.Close()
	})
}

func (c *proxyConn) forwardRequests() {
	buf := make([]byte, 256<<10)
	for {
		n, err := c.client.Read(buf)
		if n > 0 {
			c.await(c.proxy.examine(buf[:n]))
			if !c.pass() {
				return
			}
			if _, err := c.server.Write(buf[:n]); err != nil {
				c.close()
				return
			}
		}
		if err != nil {
			if !c.pass() {
				return
			}
			// A client that hung up may have left a request that the server has
			// yet to read; closing outright could lose it.
			if !errors.Is(err, io.EOF) || c.server.CloseWrite() != nil {
				c.close()
			}
			return
		}
	}
}

func (c *proxyConn) forwardReplies() {
	buf := make([]byte, 256<<10)
	for {
		n, err := c.server.Read(buf)
		if n > 0 {
			r, answered := c.answered()
			lose := answered && c.proxy.loses(r)
			if !c.wait() || !c.pass() {
				return
			}
			if lose {
				c.hangUp()
				return
			}
			if _, err := c.client.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			c.pass()
			return
		}
	}
}

// hangUp ends the server's side and reads it to its end before the caller
// closes the client's: by then the server has carried out the whole request,
// were it a pipeline of which the first reply has only just come.
func (c *proxyConn) hangUp() {
	if err := c.server.CloseWrite(); err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, c.server) // a reset is an end as good as any
}

// await notes a request as forwarded. It comes before the forwarding, lest the
// reply be faster. A request that follows an unanswered one is taken for more
// of the same.
func (c *proxyConn) await(r request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending != nil {
		r.epoch = c.pending.epoch
		r.matched = r.matched || c.pending.matched
	}
	c.pending = &r
}

// answered takes the request that is waiting for a reply, if there is one.
func (c *proxyConn) answered() (request, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pending == nil {
		return request{}, false
	}
	r := *c.pending
	c.pending = nil
	return r, true
}

// wait lets the delay pass. It reports whether the connection is still open.
func (c *proxyConn) wait() bool {
	c.proxy.mu.Lock()
	delay := c.proxy.delay
	c.proxy.mu.Unlock()
	if delay <= 0 {
		return true
	}
	timer := time.NewTimer(delay)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-c.done:
		return false
	}
}

// pass waits while the blackhole is on. It reports whether the connection is
// still open.
func (c *proxyConn) pass() bool {
	for {
		c.proxy.mu.Lock()
		open := c.proxy.open
		c.proxy.mu.Unlock()
		select {
		case <-open:
		case <-c.done:
			return false
		}
		c.proxy.mu.Lock()
		same := open == c.proxy.open
		c.proxy.mu.Unlock()
		if same {
			return true
		}
	}
}

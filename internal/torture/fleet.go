//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/dianemo/dianemo/internal/redistest"
)

// A fleet is the peers' processes. One that has gone is followed by another.
type fleet struct {
	redis      *redistest.Server
	partitions int
	dir        string

	mu     sync.Mutex // guards the rest
	peers  []*peer    // those that live, in the order of their coming
	paths  []*redistest.Proxy
	cut    func(p *redistest.Proxy, on bool) // what cuts off all peers, those that come included; nil: nothing
	closed bool
	wg     sync.WaitGroup
	failed error // why a peer could not be started
}

// A peer is one process, and the way that it takes to Redis.
type peer struct {
	id   string
	cmd  *exec.Cmd
	path *redistest.Proxy
	over <-chan struct{} // closed when it has gone

	mu     sync.Mutex
	paused bool
}

// heirDelay is how long after a peer's death another comes.
const heirDelay = 300 * time.Millisecond

// launch starts a peer and returns when it is about to work.
func (f *fleet) launch() error {
	path, err := redistest.NewProxy(f.redis.Addr())
	if err != nil {
		return err
	}
	f.mu.Lock()
	if f.paths = append(f.paths, path); f.cut != nil {
		f.cut(path, true)
	}
	f.mu.Unlock()
	encoded, err := json.Marshal(settings{Redis: path.Addr(), Partitions: f.partitions, Dir: f.dir})
	if err != nil {
		return err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	complaints, err := os.CreateTemp(f.dir, "peer-*.log")
	if err != nil {
		return err
	}
	p := &peer{cmd: exec.Command(os.Args[0]), path: path}
	p.cmd.Stdout, p.cmd.Stderr = write, complaints
	p.cmd.Env = append(os.Environ(), peerVariable+"="+string(encoded))
	p.over, err = redistest.StartChild(p.cmd) // how it went is in its journal
	if err = errors.Join(err, write.Close(), complaints.Close()); err != nil {
		return fmt.Errorf("a peer could not be started: %w", err)
	}
	f.wg.Go(func() {
		<-p.over
		f.bury(p)
	})
	id, err := bufio.NewReader(read).ReadString('\n')
	if err != nil {
		return fmt.Errorf("a peer could not be started: %w", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	select {
	case <-p.over: // it did not even live to be told of
	default:
		p.id = strings.TrimSpace(id)
		f.peers = append(f.peers, p)
	}
	return nil
}

// isolate cuts all peers off from Redis; nil gives back to them what was cut.
func (f *fleet) isolate(cut func(p *redistest.Proxy, on bool)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, path := range f.paths {
		if f.cut != nil {
			f.cut(path, false)
		}
		if cut != nil {
			cut(path, true)
		}
	}
	f.cut = cut
}

// bury strikes a peer off, and has another one come.
func (f *fleet) bury(p *peer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i, other := range f.peers {
		if other == p {
			f.peers = append(f.peers[:i:i], f.peers[i+1:]...)
		}
	}
	if f.closed {
		return
	}
	f.wg.Go(func() {
		time.Sleep(heirDelay) // for so long there is one peer less
		f.mu.Lock()
		closed := f.closed
		f.mu.Unlock()
		if closed {
			return
		}
		if err := f.launch(); err != nil {
			f.mu.Lock()
			f.failed = err
			f.mu.Unlock()
		}
	})
}

// alive are the peers that live.
func (f *fleet) alive() []*peer {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*peer(nil), f.peers...)
}

// named is the living peer with that id, or nil.
func (f *fleet) named(id string) *peer {
	for _, p := range f.alive() {
		if p.id == id {
			return p
		}
	}
	return nil
}

// whole waits until all peers are there again.
func (f *fleet) whole(ctx context.Context) error {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		f.mu.Lock()
		n, err := len(f.peers), f.failed
		f.mu.Unlock()
		if n >= peersAtOnce || err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d peers came back: %w", n, peersAtOnce, context.Cause(ctx))
		}
	}
}

// terminate has all peers end in good order, and kills those that do not.
func (f *fleet) terminate() error {
	f.mu.Lock()
	f.closed = true
	f.mu.Unlock()
	patience := time.After(finish + 2*stuckAfter)
	var late []string
	for _, p := range f.alive() {
		p.signal(syscall.SIGTERM)
	}
	for _, p := range f.alive() {
		select {
		case <-p.over:
		case <-patience:
			late = append(late, p.id)
			p.signal(syscall.SIGKILL)
		}
	}
	f.wg.Wait()
	for _, path := range f.paths {
		_ = path.Close() // its connections were cut, which is all that can go wrong
	}
	if len(late) > 0 {
		return fmt.Errorf("peers that did not end when they were terminated: %v", late)
	}
	return nil
}

// complaints are the lines in peers' logs of which there must be none.
func (f *fleet) complaints() ([]string, error) {
	logs, err := filepath.Glob(filepath.Join(f.dir, "peer-*.log"))
	if err != nil {
		return nil, err
	}
	var found []string
	for _, name := range logs {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			for _, sign := range []string{"DATA RACE", "panic:", "fatal error:"} {
				if strings.Contains(line, sign) {
					found = append(found, filepath.Base(name)+": "+strings.TrimSpace(line))
				}
			}
		}
	}
	return found, nil
}

func (p *peer) signal(s syscall.Signal) { _ = p.cmd.Process.Signal(s) } // what is gone needs none

// pause and resume come one after the other for a peer.
func (p *peer) pause() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.paused {
		return false
	}
	p.paused = true
	p.signal(syscall.SIGSTOP)
	return true
}

func (p *peer) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.paused = false
	p.signal(syscall.SIGCONT)
}

package embedded

import (
	"net"
	"sync"
	"time"
)

// pipe is a connection in memory, as between sockets: both ends hold what is
// written until the other end reads it. A net.Pipe alone holds nothing, so that a
// client that writes a long pipeline and a server that answers its first request
// would wait for each other.
func pipe() (client, server net.Conn) {
	c, s := net.Pipe()
	return newHolding(c), newHolding(s)
}

// A holding conn holds what is written and never blocks its writer.
type holding struct {
	net.Conn
	wake chan struct{} // of one: there is something pending, or it is closed
	done chan struct{} // closed when nothing is passed on any more

	mu      sync.Mutex
	pending []byte
	err     error // of passing on
}

func newHolding(conn net.Conn) *holding {
	h := &holding{Conn: conn, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go h.passOn()
	return h
}

func (h *holding) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil {
		return 0, h.err
	}
	h.pending = append(h.pending, b...)
	h.signal()
	return len(b), nil
}

func (h *holding) signal() {
	select {
	case h.wake <- struct{}{}:
	default: // it is awake already
	}
}

// passOn ends with the first write that fails, as each does once an end is closed.
func (h *holding) passOn() {
	defer close(h.done)
	for range h.wake {
		h.mu.Lock()
		pending := h.pending
		h.pending = nil
		h.mu.Unlock()
		if _, err := h.Conn.Write(pending); err != nil {
			h.mu.Lock()
			h.err = err
			h.mu.Unlock()
			return
		}
	}
}

// Close drops what was not read yet.
func (h *holding) Close() error {
	err := h.Conn.Close()
	h.signal()
	<-h.done
	return err
}

// SetDeadline is for reads alone, since a write returns at once.
func (h *holding) SetDeadline(t time.Time) error { return h.Conn.SetReadDeadline(t) }

func (h *holding) SetWriteDeadline(time.Time) error { return nil }

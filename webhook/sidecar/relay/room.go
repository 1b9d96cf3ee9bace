package relay

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// room limits the open requests and the bytes of their bodies.
type room struct {
	mu       sync.Mutex
	requests int
	bytes    int64
	// waiting are woken in order, so that a large body does not wait forever.
	waiting []*waiter
}

type waiter struct {
	size    int64
	granted chan struct{}
}

func newRoom(requests int, bytes int64) *room { return &room{requests: requests, bytes: bytes} }

// take waits for a place of size bytes, at most for wait. ok is false if there was
// none, or if the context ended.
func (r *room) take(ctx context.Context, size int64, wait time.Duration) (p *place, ok bool) {
	r.mu.Lock()
	if len(r.waiting) == 0 && r.fits(size) {
		r.occupy(size)
		r.mu.Unlock()
		return newPlace(r, size), true
	}
	// Waiting requests need memory too, so their number is limited.
	if len(r.waiting) >= maxWaiting {
		r.mu.Unlock()
		return nil, false
	}
	w := &waiter{size, make(chan struct{})}
	r.waiting = append(r.waiting, w)
	r.mu.Unlock()
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-w.granted:
		return newPlace(r, size), true
	case <-timer.C:
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-w.granted: // granted at the last moment
		return newPlace(r, size), true
	default:
	}
	for i, other := range r.waiting {
		if other == w {
			r.waiting = append(r.waiting[:i], r.waiting[i+1:]...)
			break
		}
	}
	r.wake() // the next one may be smaller
	return nil, false
}

// maxWaiting is the number of requests that may wait.
const maxWaiting = 256

func (r *room) fits(size int64) bool { return r.requests > 0 && r.bytes >= size }

func (r *room) occupy(size int64) {
	r.requests--
	r.bytes -= size
}

// wake gives places to the requests that wait longest, as long as they fit.
func (r *room) wake() {
	for len(r.waiting) > 0 && r.fits(r.waiting[0].size) {
		r.occupy(r.waiting[0].size)
		close(r.waiting[0].granted)
		r.waiting = r.waiting[1:]
	}
}

// place is one request's share of the limits. It is released when the handler and all
// readers of its body have closed it: the transport may read a body after its
// request was answered, and the request keeps the bytes after the body was closed.
type place struct {
	room    *room
	size    int64
	holders atomic.Int32
}

func newPlace(r *room, size int64) *place {
	p := &place{room: r, size: size}
	p.holders.Store(1)
	return p
}

func (p *place) hold() { p.holders.Add(1) }

func (p *place) release() {
	if p.holders.Add(-1) > 0 {
		return
	}
	p.room.mu.Lock()
	defer p.room.mu.Unlock()
	p.room.requests++
	p.room.bytes += p.size
	p.room.wake()
}

// body is a request's content. The transport may read it more than once.
type body struct {
	content []byte
	place   *place
}

// open returns a reader that holds the place until it is closed.
func (b *body) open() io.ReadCloser {
	b.place.hold()
	return &bodyReader{body: b}
}

type bodyReader struct {
	body   *body
	at     int
	closed sync.Once
}

func (r *bodyReader) Read(p []byte) (int, error) {
	if r.at == len(r.body.content) {
		return 0, io.EOF
	}
	n := copy(p, r.body.content[r.at:])
	r.at += n
	return n, nil
}

func (r *bodyReader) Close() error {
	r.closed.Do(r.body.place.release)
	return nil
}

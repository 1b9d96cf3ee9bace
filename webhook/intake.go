package webhook

import (
	"container/list"
	"context"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// Limits on the memory of requests. Their sum fits into the chart's limit of 128 MiB, with the 40
// MB that the idle webhook uses.
const (
	// maxRequests is how many requests are read and decided at the same time.
	maxRequests = 128
	// maxWaiting is how many more requests wait for a turn.
	maxWaiting = 128
	// maxLarge is how many of the requests may be large, see [Intake].
	maxLarge = 2
	// maxDecoded limits the memory for the objects of all requests that are not large, in bytes, as
	// weigh estimates it.
	maxDecoded = 12 << 20
	// maxWait is how long a request waits for a turn. The API server waits a few seconds, and the
	// look-ups take up to two.
	maxWait = time.Second
)

// Intake limits the memory of all requests together, before they use it. The zero value is not
// usable: call [NewIntake].
//
// A request takes a turn before its body is read. A small body is read immediately. A large body
// needs one of a few large turns; so does a small body that decodes into much. If no turn is free,
// the request that has been reading its body for the longest time is ended. The API server sends a
// body within milliseconds, so a body that stalls comes from another client.
type Intake struct {
	requests, large turns
	decoded         *semaphore.Weighted
}

// NewIntake returns an intake for all handlers of one process.
func NewIntake() *Intake {
	return &Intake{
		requests: turns{free: make(chan struct{}, maxRequests), waiting: make(chan struct{}, maxWaiting)},
		large:    turns{free: make(chan struct{}, maxLarge), waiting: make(chan struct{}, maxRequests)},
		decoded:  semaphore.NewWeighted(maxDecoded),
	}
}

// turns is a fixed number of turns, with the requests that have one and still read their body.
type turns struct {
	// free has an element for each turn in use.
	free chan struct{}
	// waiting has an element for each waiting request.
	waiting chan struct{}

	mu      sync.Mutex
	reading list.List // of *visit, the longest first
}

// take waits for a turn and reports whether it got one.
func (t *turns) take(ctx context.Context, v *visit) bool {
	select {
	case t.free <- struct{}{}:
		return true
	default:
	}
	select {
	case t.waiting <- struct{}{}:
		defer func() { <-t.waiting }()
	default:
		return false
	}
	t.endLongest()
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	select {
	case t.free <- struct{}{}:
		return true
	case <-timer.C:
	case <-v.ended:
	case <-ctx.Done():
	}
	return false
}

// enlist records that v has a turn and reads its body.
func (t *turns) enlist(v *visit) *list.Element {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reading.PushBack(v)
}

// delist records that the request no longer reads. After that nothing ends it.
func (t *turns) delist(e *list.Element) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reading.Remove(e)
}

// endLongest ends the request that has been reading for the longest time, if there is one.
func (t *turns) endLongest() {
	t.mu.Lock()
	defer t.mu.Unlock()
	e := t.reading.Front()
	if e == nil {
		return
	}
	t.reading.Remove(e)
	e.Value.(*visit).end()
}

// visit is one request's share of the intake. Only the request's own goroutine uses it, except for
// end.
type visit struct {
	intake *Intake
	writer http.ResponseWriter
	// ended is closed when the request must make way for another one.
	ended chan struct{}
	once  sync.Once
	// request and large are the request's elements in the lists of reading requests; nil if there
	// is none.
	request, large *list.Element
	hasLarge       bool
	decoded        int64
}

// enter takes a turn for the request. It returns nil if none was free within [maxWait].
func (i *Intake) enter(w http.ResponseWriter, r *http.Request) *visit {
	v := &visit{intake: i, writer: w, ended: make(chan struct{})}
	if !i.requests.take(r.Context(), v) {
		return nil
	}
	v.request = i.requests.enlist(v)
	return v
}

// end makes the request's reads fail. It is called only while the request is in a list, so it
// cannot hit a later request on the same connection.
func (v *visit) end() {
	v.once.Do(func() {
		close(v.ended)
		// Only writers of tests do not support a deadline, and their bodies do not stall.
		_ = http.NewResponseController(v.writer).SetReadDeadline(time.Unix(1, 0))
	})
}

// enlarge takes a large turn and reports whether it got one.
func (v *visit) enlarge(ctx context.Context) bool {
	if v.hasLarge {
		return true
	}
	if v.hasLarge = v.intake.large.take(ctx, v); v.hasLarge && v.request != nil {
		v.large = v.intake.large.enlist(v)
	}
	return v.hasLarge
}

// read records that the body is complete.
func (v *visit) read() {
	if v.request != nil {
		v.intake.requests.delist(v.request)
	}
	if v.large != nil {
		v.intake.large.delist(v.large)
	}
	v.request, v.large = nil, nil
}

// decode reserves memory for an object of this estimated size and reports whether there was enough.
func (v *visit) decode(ctx context.Context, weight int64) bool {
	if !v.intake.decoded.TryAcquire(weight) {
		ctx, cancel := context.WithTimeout(ctx, maxWait)
		defer cancel()
		if v.intake.decoded.Acquire(ctx, weight) != nil {
			return false
		}
	}
	v.decoded += weight
	return true
}

// leave releases everything that the request holds.
func (v *visit) leave() {
	v.read()
	v.intake.decoded.Release(v.decoded)
	if v.hasLarge {
		<-v.intake.large.free
	}
	<-v.intake.requests.free
}

package webhook

import (
	"container/list"
	"context"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
)

// What requests may hold in memory at one time. The sum fits into the chart's
// limit of 128 MiB, beside the 40 MB that the webhook takes when it is idle.
const (
	// maxRequests is how many requests are read and decided at one time.
	maxRequests = 128
	// maxWaiting is how many more wait for their turn.
	maxWaiting = 128
	// maxLarge is how many of them may be large: see [Intake].
	maxLarge = 2
	// maxDecoded bounds what the objects of all requests that are not large take,
	// in bytes, as weigh estimates it.
	maxDecoded = 12 << 20
	// maxWait is how long a request waits for its turn. The API server waits for
	// some seconds, and the look-ups take up to two.
	maxWait = time.Second
)

// Intake bounds the memory of all requests together, before it is spent. The
// zero value is not usable: see [NewIntake].
//
// A request takes a turn before its body is read. A small body is read at once.
// A large one, and a small one that decodes into much, waits for one of a few
// large turns. Where no turn is free, the request that has been reading its body
// for longest is ended: the API server sends a body within milliseconds, so a
// body that stalls is somebody else's.
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

// turns are a number of turns, and the requests that have one and still read.
type turns struct {
	// free takes an element for each turn that is taken.
	free chan struct{}
	// waiting takes an element for each request that waits.
	waiting chan struct{}

	mu      sync.Mutex
	reading list.List // of *visit, longest first
}

// take waits for a turn. It reports whether there was one.
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

// enlist notes that v has a turn and reads.
func (t *turns) enlist(v *visit) *list.Element {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.reading.PushBack(v)
}

// delist notes that the request reads no longer: nothing ends it any more.
func (t *turns) delist(e *list.Element) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.reading.Remove(e)
}

// endLongest ends the request that has been reading for longest, if there is one.
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

// visit is one request's share of the intake. It belongs to the goroutine of the
// request, except for end.
type visit struct {
	intake *Intake
	writer http.ResponseWriter
	// ended is closed when the request has to give way.
	ended chan struct{}
	once  sync.Once
	// request and large are the places in the lists of those who read; nil: none.
	request, large *list.Element
	hasLarge       bool
	decoded        int64
}

// enter takes a turn for the request; nil: there was none within [maxWait].
func (i *Intake) enter(w http.ResponseWriter, r *http.Request) *visit {
	v := &visit{intake: i, writer: w, ended: make(chan struct{})}
	if !i.requests.take(r.Context(), v) {
		return nil
	}
	v.request = i.requests.enlist(v)
	return v
}

// end makes the request's reads fail. It is called while the request is in a
// list, so that no later request on the same connection can be meant.
func (v *visit) end() {
	v.once.Do(func() {
		close(v.ended)
		// A writer that cannot do it belongs to a test, and no body of its stalls.
		_ = http.NewResponseController(v.writer).SetReadDeadline(time.Unix(1, 0))
	})
}

// enlarge takes a large turn. It reports whether there was one.
func (v *visit) enlarge(ctx context.Context) bool {
	if v.hasLarge {
		return true
	}
	if v.hasLarge = v.intake.large.take(ctx, v); v.hasLarge && v.request != nil {
		v.large = v.intake.large.enlist(v)
	}
	return v.hasLarge
}

// read notes that the body is complete.
func (v *visit) read() {
	if v.request != nil {
		v.intake.requests.delist(v.request)
	}
	if v.large != nil {
		v.intake.large.delist(v.large)
	}
	v.request, v.large = nil, nil
}

// decode takes room for an object of this weight. It reports whether there was
// enough.
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

// leave gives everything back.
func (v *visit) leave() {
	v.read()
	v.intake.decoded.Release(v.decoded)
	if v.hasLarge {
		<-v.intake.large.free
	}
	<-v.intake.requests.free
}

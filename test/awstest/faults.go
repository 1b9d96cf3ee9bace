package awstest

import (
	"context"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Fault is a way for a call to go wrong. Make your own with [Slow], [Respond] and [Fault.Times].
type Fault struct {
	kind  faultKind
	delay time.Duration
	times int // 0: always
	err   error
}

type faultKind string

const (
	refuse      faultKind = "refuse"
	lose        faultKind = "lose"
	hang        faultKind = "hang"
	slow        faultKind = "slow"
	denied      faultKind = "deny"
	throttle    faultKind = "throttle"
	serverError faultKind = "server error"
	respond     faultKind = "respond"
)

// The faults that a Cloud can play.
var (
	// Refuse resets the connection before the call is looked at. For a port that
	// refuses connections use [Cloud.StopListening].
	Refuse = Fault{kind: refuse}
	// Lose carries the call out and then resets the connection: the client does
	// not learn what became of it.
	Lose = Fault{kind: lose}
	// Hang never answers.
	Hang = Fault{kind: hang}
	// Deny answers 403 AccessDenied.
	Deny = Fault{kind: denied}
	// Throttle answers as AWS does over quota: 400 Throttling, or 429 where the
	// service is AMP.
	Throttle = Fault{kind: throttle}
	// ServerError answers 500.
	ServerError = Fault{kind: serverError}
)

// Slow carries calls out after a delay.
func Slow(d time.Duration) Fault { return Fault{kind: slow, delay: d} }

// Respond answers with an error of your choice, such as 400 IDPCommunicationError, which
// STS gives now and then where an issuer is slow.
func Respond(status int, code, message string) Fault {
	return Fault{kind: respond, err: apiErr(status, code, message)}
}

// Times is the fault, but only for the first n calls.
func (f Fault) Times(n int) Fault {
	f.times = n
	return f
}

// Injection is a fault that is in force.
type Injection struct {
	faults  *faults
	target  string
	account string // empty: all
	fault   Fault
	hits    int
	stopped chan struct{}
	once    sync.Once
}

// Stop ends the fault. Calls that hang are cut off.
func (i *Injection) Stop() {
	i.once.Do(func() {
		close(i.stopped)
		i.faults.remove(i)
	})
}

// Hits is how many calls the fault has struck.
func (i *Injection) Hits() int {
	i.faults.mu.Lock()
	defer i.faults.mu.Unlock()
	return i.hits
}

// Fail makes calls to target go wrong until the injection is stopped. A target is
// "sts:AssumeRoleWithWebIdentity", "iam:*", "aps:RemoteWrite", … with wildcards; data plane calls
// go by the names of their permissions (aps:RemoteWrite, aps:QueryMetrics). Of
// several faults that fit, the latest counts.
func (c *Cloud) Fail(target string, fault Fault) *Injection {
	return c.faults.add(&Injection{target: target, fault: fault})
}

// Fail is [Cloud.Fail] for calls that concern this account.
func (a *Account) Fail(target string, fault Fault) *Injection {
	return a.cloud.faults.add(&Injection{target: target, account: a.ID, fault: fault})
}

// faults are the injections in force.
type faults struct {
	mu     sync.Mutex
	active []*Injection
}

func (f *faults) add(i *Injection) *Injection {
	f.mu.Lock()
	defer f.mu.Unlock()
	i.faults, i.stopped = f, make(chan struct{})
	f.active = append(f.active, i)
	return i
}

func (f *faults) remove(i *Injection) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n, other := range f.active {
		if other == i {
			f.active = append(f.active[:n:n], f.active[n+1:]...)
			return
		}
	}
}

// find is the fault that a call suffers, nil for none.
func (f *faults) find(target, account string) *Injection {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range slices.Backward(f.active) {
		if (i.account == "" || i.account == account) && glob(strings.ToLower(i.target), strings.ToLower(target)) &&
			(i.fault.times == 0 || i.hits < i.fault.times) {
			i.hits++
			return i
		}
	}
	return nil
}

// strike plays the fault before the call is carried out. With an error the call ends
// there: errReset says that the connection must be cut without an answer. After is true
// where the connection must be cut once the call was carried out.
func (c *Cloud) strike(ctx context.Context, i *Injection) (after bool, err error) {
	if i == nil {
		return false, nil
	}
	switch i.fault.kind {
	case refuse:
		return false, errReset
	case lose:
		return true, nil
	case hang:
		select {
		case <-ctx.Done():
		case <-i.stopped:
		case <-c.closing:
		}
		return false, errReset
	case slow:
		select {
		case <-time.After(i.fault.delay):
		case <-ctx.Done():
		case <-i.stopped:
		case <-c.closing:
		}
		return false, nil
	case denied:
		return false, errDenied
	case throttle:
		return false, errThrottled
	case respond:
		return false, i.fault.err
	default:
		return false, errInternal
	}
}

var (
	errReset     = apiErr(0, "ConnectionReset", "the connection is reset")
	errDenied    = apiErr(http.StatusForbidden, "AccessDenied", "Access denied")
	errThrottled = apiErr(http.StatusBadRequest, "Throttling", "Rate exceeded")
	errInternal  = apiErr(http.StatusInternalServerError, "InternalFailure", "We encountered an internal error. Please try again.")
)

// reset cuts the connection of a request without an answer, with a TCP reset.
func reset(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	socket := conn
	if wrapped, ok := conn.(interface{ NetConn() net.Conn }); ok {
		socket = wrapped.NetConn()
	}
	if tcp, ok := socket.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = socket.Close()
}

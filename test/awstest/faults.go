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

// Fault is a way in which a call fails. [Slow], [Respond] and [Fault.Times] return more of them.
type Fault struct {
	kind  faultKind
	delay time.Duration
	times int // 0 means always
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
	// Refuse resets the connection before the call is executed. For a port that
	// refuses connections use [Cloud.StopListening].
	Refuse = Fault{kind: refuse}
	// Lose executes the call and then resets the connection, so that the client does
	// not learn the result.
	Lose = Fault{kind: lose}
	// Hang never answers.
	Hang = Fault{kind: hang}
	// Deny answers 403 AccessDenied.
	Deny = Fault{kind: denied}
	// Throttle answers as AWS does above a quota: 400 Throttling, or 429 if the
	// service is AMP.
	Throttle = Fault{kind: throttle}
	// ServerError answers 500.
	ServerError = Fault{kind: serverError}
)

// Slow executes calls after a delay.
func Slow(d time.Duration) Fault { return Fault{kind: slow, delay: d} }

// Respond answers with any error, such as 400 IDPCommunicationError, which
// STS sometimes returns if an issuer is slow.
func Respond(status int, code, message string) Fault {
	return Fault{kind: respond, err: apiErr(status, code, message)}
}

// Times returns the fault for the first n calls only.
func (f Fault) Times(n int) Fault {
	f.times = n
	return f
}

// Injection is a fault in force.
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

// Hits returns the number of calls that the fault has affected.
func (i *Injection) Hits() int {
	i.faults.mu.Lock()
	defer i.faults.mu.Unlock()
	return i.hits
}

// Fail makes calls to target fail until the injection is stopped. A target is for example
// "sts:AssumeRoleWithWebIdentity", "iam:*" or "aps:RemoteWrite", with wildcards. Data plane calls
// have the names of their permissions (aps:RemoteWrite, aps:QueryMetrics). If
// several faults match, the latest one counts.
func (c *Cloud) Fail(target string, fault Fault) *Injection {
	return c.faults.add(&Injection{target: target, fault: fault})
}

// Fail does the same as [Cloud.Fail], only for calls about this account.
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

// find returns the fault for a call; nil if there is none.
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

// strike applies the fault before the call is executed. If it returns an error, the call ends
// there, and errReset means that the connection must be cut without an answer. If after is true,
// the connection must be cut after the call was executed.
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

package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"time"

	"gomodules.xyz/jsonpatch/v2"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/breaker"
)

// Reasons that this package adds. In each case the webhook could not decide, so the object is
// admitted unchanged.
const (
	// PolicyMissing means that the webhook has not read a valid policy yet.
	PolicyMissing policy.Reason = "PolicyMissing"
	// LookupFailed means that the cluster did not answer, or not in time.
	LookupFailed policy.Reason = "LookupFailed"
	// InternalError means a bug in ampbridge. The log has the details.
	InternalError policy.Reason = "InternalError"
	// TooLarge means that the object exceeds a limit on what the webhook reads.
	TooLarge policy.Reason = "TooLarge"
	// Overloaded means that other requests use all the memory for requests.
	Overloaded policy.Reason = "Overloaded"
)

// lookupTimeout limits all reads for one pod. The API server waits a few seconds for the webhook,
// so the webhook still has time to report the error.
const lookupTimeout = 2 * time.Second

// Dependencies are what the handlers use.
type Dependencies struct {
	// Policy returns the current policy; nil if there is none yet.
	Policy  func() *policy.Policy
	Cluster Cluster
	// Breaker reads the circuit breaker's state; nil if there is no breaker.
	Breaker func(context.Context) (breaker.State, error)
	// Image is the sidecar image for policies that name none.
	Image   string
	Metrics *Metrics
	Logger  *slog.Logger
	// Intake limits the memory of all handlers together; if nil, each handler has its own.
	Intake *Intake
}

func (d *Dependencies) setDefaults() {
	if d.Intake == nil {
		d.Intake = NewIntake()
	}
}

// outcome is a decision and its consequences.
type outcome struct {
	policy.Decision
	operations []jsonpatch.Operation
	// err is set if the webhook could not decide. Reason and Warning describe it for users.
	err error
	// notable outcomes are logged at the default level, the others at the debug level.
	notable bool
	// attrs are log attributes that identify the object.
	attrs []slog.Attr
}

func failed(reason policy.Reason, err error, warning string) outcome {
	return outcome{Decision: policy.Decision{Reason: reason, Warning: warning}, err: err, notable: true}
}

func (o outcome) decision() string {
	switch {
	case o.err != nil:
		return decisionError
	case o.Inject:
		return decisionInject
	}
	return decisionSkip
}

// handler answers the reviews of one kind of object. O is the partial object.
type handler[O any] struct {
	Dependencies
	kind       string
	resource   string // in metrics and logs
	operations []string
	decide     func(context.Context, *request[O], *policy.Policy) outcome
}

func (h *handler[O]) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	v := h.enter(w, r)
	if v == nil {
		return
	}
	defer v.leave()
	request, err := readReview[O](v, r, h.kind, h.operations)
	if p := (*passed)(nil); errors.As(err, &p) {
		h.pass(r.Context(), w, p, start)
		return
	}
	if err != nil {
		h.refuseRequest(w, r, err)
		return
	}
	// The reads go on if the client disconnects or the server shuts down. So every request that was
	// accepted gets an answer.
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	out := h.outcome(ctx, request)
	if err := writeAnswer(w, request.UID, out.operations, out.Warning); err != nil {
		out = h.internalError(err)
		// Without operations nothing can fail to encode.
		_ = writeAnswer(w, request.UID, nil, out.Warning)
	}
	took := time.Since(start)
	h.Metrics.observe(h.resource, out.decision(), string(out.Reason), took)
	h.log(ctx, out, took, slog.String("uid", request.UID), logged("namespace", request.Namespace), slog.Bool("dryRun", request.DryRun))
}

// pass admits an object that was not decoded.
func (h *handler[O]) pass(ctx context.Context, w http.ResponseWriter, p *passed, start time.Time) {
	p.outcome.Warning = "not injected: " + p.outcome.Warning
	_ = writeAnswer(w, p.uid, nil, p.outcome.Warning) // a string always encodes
	took := time.Since(start)
	h.Metrics.observe(h.resource, p.outcome.decision(), string(p.outcome.Reason), took)
	h.log(ctx, p.outcome, took, slog.String("uid", p.uid), logged("namespace", p.namespace), logged("name", p.name))
}

// logged returns a log attribute for a name that a user chose. The name may be long.
func logged(key, name string) slog.Attr { return slog.String(key, shorten(name, maxLoggedName)) }

// accepts returns an error if the path does not accept the kind or the operation.
func accepts(wanted string, operations []string, kind groupVersionKind, subResource, operation string) error {
	if kind != (groupVersionKind{Version: "v1", Kind: wanted}) || subResource != "" {
		return refuse(http.StatusBadRequest, "this path accepts objects of kind %s, version v1", wanted)
	}
	if slices.Contains(operations, operation) {
		return nil
	}
	return refuse(http.StatusBadRequest, "this path accepts the operations %v", operations)
}

// enter takes a turn for the request. If none is free in time, it refuses the request and returns
// nil.
func (d *Dependencies) enter(w http.ResponseWriter, r *http.Request) *visit {
	v := d.Intake.enter(w, r)
	if v == nil {
		d.refuseRequest(w, r, refuse(http.StatusServiceUnavailable, "the webhook is overloaded"))
	}
	return v
}

// refuseRequest answers a request that is not a valid review, and counts it.
func (d *Dependencies) refuseRequest(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusBadRequest
	if e := (*httpError)(nil); errors.As(err, &e) {
		status = e.status
	}
	d.Metrics.refused.WithLabelValues(strconv.Itoa(status)).Inc()
	d.Logger.Warn(
		"request refused", "path", shorten(r.URL.Path, maxLoggedName), "status", status,
		"error", shorten(err.Error(), maxLoggedText),
	)
	if status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", http.MethodPost)
	}
	http.Error(w, err.Error(), status)
}

// outcome decides. It turns a panic into an outcome, because a bug in ampbridge must not prevent a
// pod from starting.
func (h *handler[O]) outcome(ctx context.Context, r *request[O]) (out outcome) {
	defer func() {
		if p := recover(); p != nil {
			out = h.internalError(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	p := h.Policy()
	if p == nil {
		return failed(PolicyMissing, errors.New("no policy is loaded"), "not injected: the webhook has no valid policy; see its log")
	}
	return h.decide(ctx, r, p)
}

func (h *handler[O]) internalError(err error) outcome {
	return failed(InternalError, err, "not injected: the webhook failed; see its log")
}

func (h *handler[O]) log(ctx context.Context, out outcome, took time.Duration, attrs ...slog.Attr) {
	level := slog.LevelDebug
	switch {
	case out.err != nil:
		level = slog.LevelError
	case out.notable:
		level = slog.LevelInfo
	}
	if !h.Logger.Enabled(ctx, level) {
		return
	}
	attrs = append(
		attrs,
		slog.String("decision", out.decision()),
		slog.String("reason", string(out.Reason)),
		slog.String("took", took.String()),
	)
	if out.Warning != "" {
		attrs = append(attrs, slog.String("warning", shorten(out.Warning, maxLoggedText)))
	}
	if out.err != nil {
		attrs = append(attrs, slog.String("error", shorten(out.err.Error(), maxLoggedError)))
	}
	h.Logger.LogAttrs(ctx, level, h.resource, append(attrs, out.attrs...)...)
}

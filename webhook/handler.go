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

// Reasons of this package: nothing could be decided, so the object is admitted
// as it was.
const (
	// PolicyMissing: the webhook has not read a good policy yet.
	PolicyMissing policy.Reason = "PolicyMissing"
	// LookupFailed: the cluster did not answer, or not in time.
	LookupFailed policy.Reason = "LookupFailed"
	// InternalError: a mistake in ampbridge; the log has the details.
	InternalError policy.Reason = "InternalError"
	// TooLarge: the object breaks a bound on what the webhook reads.
	TooLarge policy.Reason = "TooLarge"
	// Overloaded: other requests took all the memory that requests may take.
	Overloaded policy.Reason = "Overloaded"
)

// lookupTimeout bounds all reads for one pod. It leaves the API server, which
// waits for the webhook for some seconds, time to hear why they failed.
const lookupTimeout = 2 * time.Second

// Dependencies are what the handlers work with.
type Dependencies struct {
	// Policy returns the policy in force; nil: none yet.
	Policy  func() *policy.Policy
	Cluster Cluster
	// Breaker reads the circuit breaker's state; nil: there is none.
	Breaker func(context.Context) (breaker.State, error)
	// Image is the sidecar's, for policies that name none.
	Image   string
	Metrics *Metrics
	Logger  *slog.Logger
	// Intake bounds the memory of all handlers together; nil: of each by itself.
	Intake *Intake
}

func (d *Dependencies) setDefaults() {
	if d.Intake == nil {
		d.Intake = NewIntake()
	}
}

// outcome is a decision and what follows from it.
type outcome struct {
	policy.Decision
	operations []jsonpatch.Operation
	// err: nothing could be decided. Reason and Warning say so to people.
	err error
	// notable outcomes are logged by default, the others for debugging.
	notable bool
	// attrs tells the log whose outcome it is.
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

// handler answers the reviews of one kind of object; O is the view of it.
type handler[O any] struct {
	Dependencies
	kind       string
	resource   string // in metrics and logs
	operations []string
	decide     func(context.Context, *request[O], *policy.Policy) outcome
}

func (h *handler[O]) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	v := h.Intake.enter(w, r)
	if v == nil {
		refuseRequest(h.Dependencies, w, r, refuse(http.StatusServiceUnavailable, "the webhook has too much to do"))
		return
	}
	defer v.leave()
	request, err := readReview[O](v, r)
	if err == nil {
		err = accepts(h.kind, h.operations, request.Kind, request.SubResource, request.Operation)
	}
	if p := (*passed)(nil); errors.As(err, &p) {
		h.pass(r.Context(), w, p, start)
		return
	}
	if err != nil {
		refuseRequest(h.Dependencies, w, r, err)
		return
	}
	// Neither the client's going nor the server's shutdown ends the reads: the
	// answer to a request in flight is as good as any other.
	ctx, cancel := context.WithTimeout(context.Background(), lookupTimeout)
	defer cancel()
	out := h.outcome(ctx, request)
	if err := writeAnswer(w, request.UID, out.operations, out.Warning); err != nil {
		out = h.internalError(err)
		// Without operations there is nothing left that could fail to encode.
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

// logged is a log attribute of a name that somebody else chose.
func logged(key, name string) slog.Attr { return slog.String(key, shorten(name, maxLoggedName)) }

// accepts refuses what a path is not registered for.
func accepts(wanted string, operations []string, kind groupVersionKind, subResource, operation string) error {
	if kind != (groupVersionKind{Version: "v1", Kind: wanted}) || subResource != "" {
		return refuse(http.StatusBadRequest, "this path takes objects of kind %s, version v1", wanted)
	}
	if slices.Contains(operations, operation) {
		return nil
	}
	return refuse(http.StatusBadRequest, "this path takes the operations %v", operations)
}

// refuseRequest answers what is no review, and counts it.
func refuseRequest(d Dependencies, w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusBadRequest
	if e := (*httpError)(nil); errors.As(err, &e) {
		status = e.status
	}
	d.Metrics.refused.WithLabelValues(strconv.Itoa(status)).Inc()
	d.Logger.Warn(
		"request refused",
		"path",
		shorten(r.URL.Path, maxLoggedName),
		"status",
		status,
		"error",
		shorten(err.Error(), maxLoggedText),
	)
	if status == http.StatusMethodNotAllowed {
		w.Header().Set("Allow", http.MethodPost)
	}
	http.Error(w, err.Error(), status)
}

// outcome decides, and turns a panic into an outcome as well: a pod that could
// start without us is never kept from starting.
func (h *handler[O]) outcome(ctx context.Context, r *request[O]) (out outcome) {
	defer func() {
		if p := recover(); p != nil {
			out = h.internalError(fmt.Errorf("panic: %v\n%s", p, debug.Stack()))
		}
	}()
	p := h.Policy()
	if p == nil {
		return failed(PolicyMissing, errors.New("no policy is loaded"), "not injected: the webhook has no valid policy; its log says why")
	}
	return h.decide(ctx, r, p)
}

func (h *handler[O]) internalError(err error) outcome {
	return failed(InternalError, err, "not injected: the webhook failed; its log says why")
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

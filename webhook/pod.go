package webhook

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// PodHandler answers reviews of pods that are created in namespaces with the label value injection.
// The value comes from the request's path: the API server has already selected the path by the
// label.
func PodHandler(injection policy.Injection, d Dependencies) http.Handler {
	d.setDefaults()
	h := &podHandler{Dependencies: d, injection: injection}
	return &handler[inject.Pod]{Dependencies: d, kind: "Pod", resource: "pod", operations: []string{"CREATE"}, decide: h.decide}
}

type podHandler struct {
	Dependencies
	injection policy.Injection
	cache     inject.Cache
}

func (h *podHandler) decide(ctx context.Context, r *request[inject.Pod], p *policy.Policy) outcome {
	pod := &r.Object
	account := pod.Spec.ServiceAccountName
	if account == "" {
		account = "default" // as the API server sets it
	}
	_, prometheus := inject.Prometheus(pod)
	prometheus = prometheus || inject.Carries(pod)
	question := policy.Request{
		Namespace: r.Namespace, Injection: h.injection, ServiceAccount: account,
		Prometheus: prometheus, PodAnnotations: pod.Metadata.Annotations,
		Workload: inject.Workload(pod),
	}
	if !prometheus {
		question.Resembles = inject.Resembles(pod)
	}
	out := h.decidePod(ctx, question, pod, p)
	out.notable = out.notable || prometheus
	out.attrs = []slog.Attr{
		logged("pod", podName(pod, r.Name)),
		logged("serviceAccount", account),
		slog.String("destinations", shorten(destinations(out.Decision), maxLoggedText)),
	}
	return out
}

// decidePod reads from the cluster only what the decision needs.
func (h *podHandler) decidePod(ctx context.Context, question policy.Request, pod *inject.Pod, p *policy.Policy) outcome {
	decision := p.Decide(question)
	if isFinal(decision.Reason) {
		return outcome{Decision: decision}
	}
	// The service account's annotations can still change the decision. The limits are needed only
	// if the decision can become Inject.
	var annotations map[string]string
	var limits inject.Limits
	var err error
	var state func() (breaker.State, error)
	if decision.Inject || decision.Reason == policy.NotAsked {
		if h.Breaker != nil {
			state = beginRead(ctx, h.Breaker)
		}
		annotations, limits, err = h.Cluster.ServiceAccountAndLimits(ctx, question.Namespace, question.ServiceAccount)
	} else {
		annotations, err = h.Cluster.ServiceAccount(ctx, question.Namespace, question.ServiceAccount)
	}
	if errors.As(err, &panicked{}) {
		panic(err)
	} else if err != nil {
		return failed(
			LookupFailed,
			err,
			"not injected: the webhook could not read the service account or the limits of namespace "+question.Namespace+"; recreate the "+
				"pod once the API server answers",
		)
	}
	if len(annotations) > 0 {
		question.ServiceAccountAnnotations = annotations
		decision = p.Decide(question)
	}
	if !decision.Inject {
		return outcome{Decision: decision}
	}
	operations, decision := inject.Inject(pod, decision, inject.Options{
		Policy: p, Image: h.Image, Limits: limits, ServiceAccountAnnotations: annotations, Cache: &h.cache,
	})
	fresh := len(operations) > 0 && decision.Inject && decision.Reason != inject.AlreadyInjected
	owner := pod.Metadata.Controller()
	if fresh && state != nil {
		state, err := state()
		if err != nil {
			return failed(
				LookupFailed,
				err,
				"not injected: the webhook could not read the circuit breaker; recreate the pod once the API server answers",
			)
		}
		if len(state) > 0 {
			workload := breaker.Of(question.Namespace, podName(pod, ""), owner.Kind, owner.Name, pod.Metadata.Labels)
			if entry, open := state.Open(workload, breaker.Revision(p, decision.Entitlement, h.Image)); open {
				return outcome{Decision: entry.Decision()}
			}
		}
	}
	if fresh && owner.Kind == "" && decision.Mode != policy.ModeIdentity {
		decision.Warning = strings.TrimPrefix(decision.Warning+"; "+barePod, "; ")
	}
	return outcome{Decision: decision, operations: operations}
}

// beginRead starts a read in another goroutine. The returned function waits for the result. If the
// read panics, that function panics.
func beginRead[T any](ctx context.Context, read func(context.Context) (T, error)) func() (T, error) {
	var value T
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = guard(func() (err error) {
			value, err = read(ctx)
			return err
		})()
	}()
	return func() (T, error) {
		<-done
		if errors.As(err, &panicked{}) {
			panic(err)
		}
		return value, err
	}
}

// barePod is for users who create a pod without a controller. If another admission plugin refuses
// the pod, they see this warning with the refusal. No controller creates the pod again.
const barePod = "the pod gets a config sidecar; if another admission check refuses it, create it with the annotation " +
	policy.AnnotationInject + `: "false"`

// isFinal reports whether the annotations of a service account cannot change a decision with this
// reason.
func isFinal(r policy.Reason) bool {
	switch r {
	case policy.NotLabelled, policy.OptedOut, policy.NotPrometheus, policy.InvalidAnnotation:
		return true
	}
	return false
}

// podName returns the name by which users know the pod. A pod that a controller creates has no name
// yet.
func podName(pod *inject.Pod, name string) string {
	switch {
	case name != "":
		return name
	case pod.Metadata.Name != "":
		return pod.Metadata.Name
	}
	return pod.Metadata.GenerateName
}

func destinations(d policy.Decision) string {
	names := make([]string, len(d.Destinations))
	for i, destination := range d.Destinations {
		names[i] = destination.Name
	}
	return strings.Join(names, ",")
}

package audit

import (
	"cmp"
	"fmt"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// Kind is what an audit finds about a pod. It is the value of the metric's label finding.
type Kind string

// The kinds of [Finding]. The empty kind is for a pod that ampbridge does not handle.
const (
	None Kind = ""
	// Healthy: the pod is injected as today's policy says.
	Healthy Kind = "healthy"
	// Missed: the pod is not injected, but would be today.
	Missed Kind = "missed"
	// Outdated: the pod's injection differs from today's.
	Outdated Kind = "outdated"
	// Hanging: the config sidecar has not started yet, for less than the grace period.
	Hanging Kind = "hanging"
	// Stuck: the config sidecar prevents the pod from starting.
	Stuck Kind = "stuck"
	// Skipped: the pod asks for injection, but would not be injected today.
	Skipped Kind = "skipped"
)

var kinds = []Kind{Healthy, Missed, Outdated, Hanging, Stuck, Skipped}

// Question holds everything that a finding depends on.
type Question struct {
	Policy *policy.Policy
	// Image is the webhook's sidecar image, for policies without one.
	Image string
	// Injection is the value of the namespace's label.
	Injection policy.Injection
	Pod       *Pod
	// ServiceAccount holds the annotations of the pod's service account.
	ServiceAccount map[string]string
	// Limits are those of the pod's namespace, without the pod's own usage, because a
	// successor replaces it.
	Limits  inject.Limits
	Breaker breaker.State
}

// Finding is the result of an audit of one pod.
type Finding struct {
	Kind Kind
	// Reason is one word: from [policy.Policy.Decide], package inject or breaker
	// for a Skipped pod, and from the kubelet for a Stuck pod.
	Reason policy.Reason
	// Text describes the problem. For Skipped it also has the fix.
	Text string
	// Revision is [breaker.Revision] for this pod; empty if it would not be injected.
	Revision string
	// Older is true if the pod hangs with another sidecar than today's, so
	// that today's sidecar is not the cause.
	Older bool
}

// Assess compares a pod with what the webhook would do with it today. One call finds at most
// Hanging. It becomes Stuck when a later call finds it again.
func Assess(q Question) Finding {
	pod := q.Pod
	if pod.ended() {
		return Finding{}
	}
	_, prometheus := inject.Prometheus(&pod.Pod)
	decision := q.Policy.Decide(policy.Request{
		Namespace: pod.Metadata.Namespace, Injection: q.Injection, ServiceAccount: pod.serviceAccount(),
		Prometheus: prometheus, Resembles: inject.Resembles(&pod.Pod),
		PodAnnotations: pod.Metadata.Annotations, ServiceAccountAnnotations: q.ServiceAccount,
		Workload: inject.Workload(&pod.Pod),
	})
	if !decision.Inject && decision.Warning == "" {
		return Finding{} // opted out, not asked for, or not Prometheus: correct as it is
	}
	found := Finding{Reason: decision.Reason, Text: decision.Warning}
	if decision.Inject {
		found.Revision = breaker.Revision(q.Policy, decision.Entitlement, q.Image)
	}
	_, injected := pod.Metadata.Annotations[inject.AnnotationInjected]
	if cause, message, hangs := pod.Hangs(); injected && hangs {
		found.Kind, found.Reason, found.Text = Hanging, policy.Reason(cause), message
		found.Older = decision.Inject &&
			(pod.sidecarImage() != cmp.Or(q.Policy.Sidecar.Image, q.Image) || drift(pod, decision.Entitlement, q.Policy) != "")
		return found
	}
	if !decision.Inject {
		found.Kind = Skipped
		if injected && decision.Reason == policy.Paused {
			found.Kind = Healthy // a pause applies only to new pods
		}
		return found
	}
	if text := otherMode(pod, decision.Mode); text != "" {
		found.Kind, found.Text = Outdated, text
		return found
	}
	operations, outcome := inject.Inject(&pod.Pod, decision, inject.Options{
		Policy: q.Policy, Image: q.Image, Limits: q.Limits, ServiceAccountAnnotations: q.ServiceAccount,
	})
	found.Reason, found.Text = outcome.Reason, outcome.Warning
	entry, open := q.Breaker.Open(pod.workload(), found.Revision)
	switch {
	case outcome.Reason == inject.AlreadyInjected:
		found.Kind = Healthy
		if text := drift(pod, decision.Entitlement, q.Policy); text != "" {
			found.Kind, found.Text = Outdated, text
		} else if len(operations) > 0 {
			found.Kind, found.Text = Outdated, "a new admission would change its injection: another webhook has changed a "+
				"part of it, or it now has its own AWS identity or AWS files"
		}
	case !outcome.Inject:
		found.Kind = Skipped
	case open:
		found.Kind, found.Reason, found.Text = Skipped, breaker.CircuitOpen, entry.Decision().Warning
	default:
		found.Kind = Missed
		found.Text = "it would be injected today: it was created while no webhook answered, or before the namespace's " +
			"label or the grant existed"
	}
	return found
}

// otherMode returns a message if the pod's injection has another mode than the policy's;
// empty if not.
func otherMode(pod *Pod, today policy.Mode) string {
	carried := inject.ModeOf(&pod.Pod)
	if carried == "" || carried == today {
		return ""
	}
	return fmt.Sprintf("it has an injection of mode %s, and would get mode %s today: the policy has changed "+
		"since", carried, today)
}

// drift returns how an injected pod differs from today's injection;
// empty if it does not differ.
func drift(pod *Pod, e policy.Entitlement, p *policy.Policy) string {
	carried, today, err := inject.Mark(&pod.Pod, e, p)
	switch {
	case err != nil:
		return "its injection cannot be read by this version: " + shorten(err.Error(), 200)
	case carried.Policy != today.Policy:
		return fmt.Sprintf(
			"it has injection %s, and would get %s today: the policy has changed since",
			carried.Policy,
			today.Policy,
		)
	}
	return ""
}

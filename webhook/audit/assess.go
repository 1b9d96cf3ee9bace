package audit

import (
	"cmp"
	"fmt"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// Kind is what an audit finds about a pod: the label finding of the metric.
type Kind string

// The kinds of [Finding]. The empty one is a pod that is none of our business.
const (
	None Kind = ""
	// Healthy: injected, as the policy says today.
	Healthy Kind = "healthy"
	// Missed: it would be injected today, and is not.
	Missed Kind = "missed"
	// Outdated: what it carries is not what it would be given today.
	Outdated Kind = "outdated"
	// Hanging: the config sidecar does not start, for less than the grace.
	Hanging Kind = "hanging"
	// Stuck: the config sidecar keeps the pod from starting.
	Stuck Kind = "stuck"
	// Skipped: it would not be injected today, although it was asked for.
	Skipped Kind = "skipped"
)

var kinds = []Kind{Healthy, Missed, Outdated, Hanging, Stuck, Skipped}

// Question is what a finding depends on.
type Question struct {
	Policy *policy.Policy
	// Image is the webhook's sidecar image, for policies that name none.
	Image string
	// Injection is the value of the namespace's label.
	Injection policy.Injection
	Pod       *Pod
	// ServiceAccount is the annotations of the pod's.
	ServiceAccount map[string]string
	// Limits are those of the pod's namespace, without the pod's own usage: a
	// successor takes its place.
	Limits  inject.Limits
	Breaker breaker.State
}

// Finding is what is wrong with a pod, if anything.
type Finding struct {
	Kind Kind
	// Reason in one word: of [policy.Policy.Decide], package inject or breaker
	// where the pod is Skipped, and the kubelet's where it is Stuck.
	Reason policy.Reason
	// Text is what is the matter, and for Skipped how to fix it.
	Text string
	// Revision is [breaker.Revision] for this pod. Empty: it would not be injected.
	Revision string
	// Older: the pod hangs on another sidecar than it would be given today, so
	// that today's is not to blame.
	Older bool
}

// Assess compares a pod with what the webhook would make of it today. Hanging
// is as far as one look goes; that it is Stuck takes a second one.
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
		return Finding{} // opted out, not asked, no Prometheus: as was asked
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
			found.Kind = Healthy // a pause concerns new pods
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
			found.Kind, found.Text = Outdated, "another admission would change its injection: another webhook has changed a part of it, "+
				"or it has got an AWS identity or AWS files of its own since"
		}
	case !outcome.Inject:
		found.Kind = Skipped
	case open:
		found.Kind, found.Reason, found.Text = Skipped, breaker.CircuitOpen, entry.Decision().Warning
	default:
		found.Kind = Missed
		found.Text = "it would be injected today: it was created while no webhook answered, or before the namespace's label or the grant"
	}
	return found
}

// otherMode says that the pod carries the injection of another mode than the policy's;
// empty: it does not.
func otherMode(pod *Pod, today policy.Mode) string {
	carried := inject.ModeOf(&pod.Pod)
	if carried == "" || carried == today {
		return ""
	}
	return fmt.Sprintf("it carries an injection of mode %s, and would be given mode %s today: the policy has changed since", carried, today)
}

// drift says how an injected pod differs from what it would be given today;
// empty: not at all.
func drift(pod *Pod, e policy.Entitlement, p *policy.Policy) string {
	carried, today, err := inject.Mark(&pod.Pod, e, p)
	switch {
	case err != nil:
		return "its injection cannot be read by this version: " + shorten(err.Error(), 200)
	case carried.Policy != today.Policy:
		return fmt.Sprintf(
			"it carries injection %s, and would be given %s today: the policy has changed since",
			carried.Policy,
			today.Policy,
		)
	}
	return ""
}

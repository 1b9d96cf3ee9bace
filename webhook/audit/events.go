package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/ampbridge/ampbridge/policy"
)

// Reasons of the auditor's events. For a skipped pod, the reason is the decision's.
const (
	eventMissed   = "InjectionMissed"
	eventOutdated = "InjectionOutdated"
	eventHangs    = "SidecarHangs"
	eventOpen     = "CircuitOpen"
	eventClosed   = "CircuitClosed"
	eventEvicted  = "Evicted"
	eventRefused  = "EvictionRefused"
)

// eventRecorder writes each event once, until its finding ends.
type eventRecorder struct {
	client   corev1client.EventsGetter
	instance string
	sent     map[eventKey]bool
	// left is the number of events that this round may still write, by namespace.
	left map[string]int
}

// Limits for the events of one round. Findings above the limit are reported in the next round.
const (
	eventsPerRound     = 300
	eventsPerNamespace = 20
)

// begin begins a round.
func (r *eventRecorder) begin(namespaces map[string]policy.Injection) {
	r.left = map[string]int{}
	for n := range namespaces {
		r.left[n] = min(eventsPerNamespace, max(1, eventsPerRound/len(namespaces)))
	}
}

// may reports whether this round may write one more event about the namespace, and
// counts it.
func (r *eventRecorder) may(namespace string) bool {
	r.left[namespace]--
	return r.left[namespace] >= 0
}

// eventKey identifies equal events. It names the owner, because pods come and go, while the message
// about their owner stays.
type eventKey struct {
	namespace    string
	object       types.UID
	reason, text string
}

// target returns the object that gets the event: the pod's controller, or the pod.
func target(o *observed) (corev1.ObjectReference, *corev1.ObjectReference) {
	pod := corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: o.workload.Namespace, Name: o.name, UID: o.uid}
	c := o.controller
	if c == nil {
		return pod, nil
	}
	controller := corev1.ObjectReference{APIVersion: c.APIVersion, Kind: c.Kind, Namespace: o.workload.Namespace, Name: c.Name, UID: c.UID}
	if o.name == "" {
		return controller, nil // the pod was never stored
	}
	return controller, &pod
}

// record writes an event now.
func (r *eventRecorder) record(ctx context.Context, o *observed, kind, reason, text string) error {
	object, related := target(o)
	if related != nil {
		text = fmt.Sprintf("pod %s: %s", o.name, text)
	}
	now := metav1.Now()
	_, err := r.client.Events(o.workload.Namespace).Create(ctx, &corev1.Event{
		ObjectMeta:     metav1.ObjectMeta{GenerateName: shorten(object.Name, 200) + ".", Namespace: o.workload.Namespace},
		InvolvedObject: object, Related: related,
		Type: kind, Reason: reason, Action: "Audit",
		Message: shorten(text, 1000), // the API server accepts 1024
		Source:  corev1.EventSource{Component: "ampbridge-auditor"},
		// Both forms of time and reporter are set, because versions of kubectl show different ones.
		EventTime: metav1.NewMicroTime(now.Time), FirstTimestamp: now, LastTimestamp: now, Count: 1,
		ReportingController: "ampbridge.io/auditor", ReportingInstance: r.instance,
	}, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("write event %s on %s %s of namespace %s: %w", reason, object.Kind, object.Name, o.workload.Namespace, err)
	}
	return nil
}

// report writes an event for each new finding. A finding that has ended is
// removed after its namespace was read, so that it is reported again when it comes back.
func (a *auditor) report(ctx context.Context, p *policy.Policy, pods []observed, unread map[string]bool) error {
	var errs []error
	still, objects, unreadPods := map[eventKey]bool{}, map[types.UID]bool{}, map[types.UID]bool{}
	tell := func(o *observed, kind, reason, text string) {
		object, _ := target(o)
		objects[object.UID] = true
		r := eventKey{o.workload.Namespace, object.UID, reason, text}
		if still[r] || a.events.sent[r] {
			still[r] = true
			return
		}
		if !a.events.may(o.workload.Namespace) {
			return
		}
		if err := a.events.record(ctx, o, kind, reason, text); err != nil {
			errs = append(errs, err)
			return
		}
		still[r] = true
		a.Logger.Info("finding", append(o.attributes(), "reason", reason, "text", shorten(text, 500))...)
	}
	for i := range pods {
		o := &pods[i]
		// The pod itself gets the event as well, because its team looks there first, with kubectl
		// describe. A sidecar's news are only about its own pod.
		pod := *o
		pod.controller = nil
		if kind, reason, text := eventOf(o, p.Audit.Repair == policy.RepairEvict); reason != "" {
			tell(o, kind, reason, text)
			if o.controller != nil && o.name != "" {
				tell(&pod, kind, reason, text)
			}
		}
		unreadPods[o.uid] = o.unread
		for _, n := range o.news {
			kind := corev1.EventTypeNormal
			if n.Warning {
				kind = corev1.EventTypeWarning
			}
			tell(&pod, kind, n.Reason, n.Text)
		}
	}
	kept := map[string]int{}
	for r := range a.events.sent {
		if kept[r.namespace]++; kept[r.namespace] > maxRemembered {
			continue
		}
		// A refused eviction is relevant as long as the finding that caused it.
		if unread[r.namespace] || unreadPods[r.object] || (r.reason == eventRefused && objects[r.object]) {
			still[r] = true
		}
	}
	a.events.sent = still
	return errors.Join(errs...)
}

// eventOf returns the event for a finding; without a reason there is no event.
func eventOf(o *observed, repair bool) (kind, reason, text string) {
	switch o.Kind {
	case Missed:
		return corev1.EventTypeWarning, eventMissed, "not injected: " + o.Text + ". " + fix(o, repair)
	case Outdated:
		return corev1.EventTypeNormal, eventOutdated, "injected, but " + o.Text + ". " + fix(o, repair)
	case Stuck:
		// The kubelet's message changes with each attempt, so it is not in the event.
		return corev1.EventTypeWarning, eventHangs, fmt.Sprintf("the config sidecar keeps the pod from starting: "+
			"%s", o.Reason)
	case Skipped:
		return corev1.EventTypeWarning, string(o.Reason), "not injected: " + o.Text
	}
	return "", "", ""
}

// fix returns how the pod gets what is missing.
func fix(o *observed, repair bool) string {
	switch w := o.workload; {
	case o.controller == nil:
		return "No controller creates the pod again: delete it and create it again"
	case repair:
		return "The auditor evicts it when its disruption budget and a dry run of its successor allow that"
	case w.Kind == "Deployment" || w.Kind == "StatefulSet" || w.Kind == "DaemonSet":
		return fmt.Sprintf("Roll it out: kubectl -n %s rollout restart %s/%s", w.Namespace, strings.ToLower(w.Kind), w.Name)
	}
	return "Delete the pod, so that its controller creates it again"
}

// shorten returns one line of at most limit bytes.
func shorten(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "")
	}
	return s
}

// minutes returns a duration for people.
func minutes(d time.Duration) string { return d.Round(time.Second).String() }

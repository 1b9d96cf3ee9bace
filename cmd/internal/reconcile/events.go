package reconcile

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// events tells the owners of service accounts how these stand, once per change.
type events struct {
	recorder  record.EventRecorder
	reference func(policy.Subject) *corev1.ObjectReference
	last      map[standing]plan.State
}

type standing struct {
	subject     policy.Subject
	destination string
}

// newEvents records until stop is called.
func newEvents(ctx context.Context, client kubernetes.Interface, reference func(policy.Subject) *corev1.ObjectReference) (e *events, stop func()) {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	recorder := broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "ampbridge-sync"})
	return &events{recorder: recorder, reference: reference, last: map[standing]plan.State{}}, broadcaster.Shutdown
}

// askersAtOnce bounds the events of one look at service accounts without a grant.
const askersAtOnce = 20

// ask tells service accounts that ask for what no grant covers, between two passes.
// Those beyond the bound are told next time.
func (e *events) ask(standings []plan.SubjectStatus) {
	asking := map[standing]bool{}
	for _, s := range standings {
		if s.State == plan.NotGranted {
			asking[standing{s.Subject, s.Destination}] = true
		}
	}
	for key, state := range e.last {
		if state == plan.NotGranted && !asking[key] {
			delete(e.last, key)
		}
	}
	told := 0
	for _, s := range standings {
		key := standing{s.Subject, s.Destination}
		if s.State != plan.NotGranted || e.last[key] == plan.NotGranted {
			continue
		}
		if told++; told > askersAtOnce {
			return
		}
		e.last[key] = s.State
		e.recorder.Event(e.reference(s.Subject), corev1.EventTypeWarning, string(s.State), s.Message)
	}
}

// tell compares with the last time. A change that failed is not told: the next
// pass tries it again. A process that has just begun does not repeat who is
// trusted.
func (e *events) tell(standings []plan.SubjectStatus, failures []Failure) {
	failed := map[policy.ARN]bool{}
	for _, f := range failures {
		failed[f.Resource] = true
	}
	now, asked := map[standing]plan.State{}, 0
	for _, s := range standings {
		key := standing{s.Subject, s.Destination}
		last, known := e.last[key]
		if s.Changes && failed[s.Role] {
			if known {
				now[key] = last
			}
			continue
		}
		now[key] = s.State
		if last == s.State || (s.State == plan.Trusted && !s.Changes) {
			continue
		}
		if s.State == plan.NotGranted {
			if asked++; asked > askersAtOnce {
				delete(now, key)
				continue
			}
		}
		kind := corev1.EventTypeWarning
		if s.State == plan.Trusted {
			kind = corev1.EventTypeNormal
		}
		e.recorder.Event(e.reference(s.Subject), kind, string(s.State), s.Message)
	}
	e.last = now
}

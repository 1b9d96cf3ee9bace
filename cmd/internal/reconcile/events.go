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

// events writes the status of service accounts as events for their owners, once per change.
type events struct {
	recorder  record.EventRecorder
	reference func(policy.Subject) *corev1.ObjectReference
	last      map[statusKey]plan.State
}

// statusKey identifies a [plan.SubjectStatus].
type statusKey struct {
	subject     policy.Subject
	destination string
}

// newEvents returns events that are recorded until stop is called.
func newEvents(
	ctx context.Context,
	client kubernetes.Interface,
	reference func(policy.Subject) *corev1.ObjectReference,
) (e *events, stop func()) {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	recorder := broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "ampbridge-sync"})
	return &events{recorder: recorder, reference: reference, last: map[statusKey]plan.State{}}, broadcaster.Shutdown
}

// askersAtOnce limits the events about service accounts without a grant that are
// recorded at once.
const askersAtOnce = 20

// recordAskers records events, between two passes, about service accounts that ask for something
// without a grant. Those above the limit get their event next time.
func (e *events) recordAskers(statuses []plan.SubjectStatus) {
	asking := map[statusKey]bool{}
	for _, s := range statuses {
		if s.State == plan.NotGranted {
			asking[statusKey{s.Subject, s.Destination}] = true
		}
	}
	for key, state := range e.last {
		if state == plan.NotGranted && !asking[key] {
			delete(e.last, key)
		}
	}
	recorded := 0
	for _, s := range statuses {
		key := statusKey{s.Subject, s.Destination}
		if s.State != plan.NotGranted || e.last[key] == plan.NotGranted {
			continue
		}
		if recorded++; recorded > askersAtOnce {
			return
		}
		e.last[key] = s.State
		e.recorder.Event(e.reference(s.Subject), corev1.EventTypeWarning, string(s.State), s.Message)
	}
}

// record records events about statuses that differ from the last time. It skips a change that
// failed, because the next pass tries it again. After its start, a process does not repeat
// which subjects are trusted.
func (e *events) record(statuses []plan.SubjectStatus, failures []Failure) {
	failed := map[policy.ARN]bool{}
	for _, f := range failures {
		failed[f.Resource] = true
	}
	now, asked := map[statusKey]plan.State{}, 0
	for _, s := range statuses {
		key := statusKey{s.Subject, s.Destination}
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

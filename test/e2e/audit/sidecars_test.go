package audit_test

import (
	"encoding/json"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/audit"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// What a sidecar says of itself becomes events on its pod, each once, and nothing of a
// tenant's text passes but 100 printable characters.
func (f *fixture) testNews(t *testing.T) {
	const namespace = "test-news"
	f.namespace(t, namespace)
	host, err := cluster.Address()
	testkit.Must(t, err)
	listener, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	testkit.Must(t, err)
	var asked atomic.Int32
	var answer atomic.Value // the status's destination; nil: no answer
	now := time.Now()
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		d, ok := answer.Load().(sidecarconfig.DestinationStatus)
		if r.URL.Path != sidecarconfig.StatusPath || !ok || d.Name == "" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		testkit.Must(t, json.NewEncoder(w).Encode(sidecarconfig.Status{
			Started: now.Add(-time.Hour), Time: time.Now(), Destinations: []sidecarconfig.DestinationStatus{d},
		}))
	})}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })

	// A pod as the webhook makes it, in the parts that matter here.
	pod := f.sidecarPod(t, namespace, listener.Addr().(*net.TCPAddr).Port)
	f.report(t, pod, func(s *corev1.PodStatus) {
		ready(s)
		s.PodIP, s.PodIPs = host, []corev1.PodIP{{IP: host}}
	})

	t.Run("turned off", func(t *testing.T) {
		r := f.audit(t, "", func(o *audit.Options) { quick(o); o.NoSidecars = true })
		testkit.Eventually(t, "a round", func() bool { return r.value(t, "ampbridge_audit_last_success_timestamp_seconds", "") > 0 })
		if asked.Load() != 0 {
			t.Error("the sidecar was asked")
		}
	})

	well := sidecarconfig.DestinationStatus{Name: "central", Delivery: sidecarconfig.DeliveryRelay, Valid: true, Served: true}
	answer.Store(well)
	r := f.audit(t, "", quick)
	testkit.Eventually(t, "the sidecar is read", func() bool { return r.value(t, "ampbridge_audit_sidecars", "read") == 1 })
	if list := f.news(t, pod); len(list) != 0 {
		t.Errorf("all is well, and there are events: %v", list)
	}

	trouble := well
	trouble.Delivery, trouble.NotTaken = sidecarconfig.DeliverySigV4, true
	trouble.Relay = sidecarconfig.RelayFailure{At: time.Now(), Status: 403, Error: "Access\x1b[31m\nDenied" + strings.Repeat("x", 2000)}
	answer.Store(trouble)
	f.newsSays(t, pod, "SessionNotTaken", corev1.EventTypeWarning, "central: Prometheus has not taken the latest session")
	f.newsSays(t, pod, "WritesRefused", corev1.EventTypeWarning, "AMP answered a write with 403 Access[31mDenied")
	for _, e := range f.news(t, pod) {
		if strings.Contains(e.Message, strings.Repeat("x", 100)) || strings.ContainsAny(e.Message, "\x1b\n") {
			t.Errorf("a tenant's text is shown: %q", e.Message)
		}
	}
	// A sidecar that does not answer for a while has not recovered.
	answer.Store(sidecarconfig.DestinationStatus{})
	testkit.Eventually(t, "the sidecar is unread", func() bool { return r.value(t, "ampbridge_audit_sidecars", "unread") == 1 })
	answer.Store(trouble)
	before := asked.Load()
	testkit.Eventually(t, "some rounds", func() bool { return asked.Load() > before+4 })
	if list := f.news(t, pod); len(list) != 2 {
		t.Errorf("%d events, want one of each: %v", len(list), list)
	}

	gone := well
	gone.Valid, gone.Expires, gone.Moved = false, time.Now().Add(-10*time.Minute), "the session could not be renewed in time"
	answer.Store(gone)
	f.newsSays(t, pod, "NoSession", corev1.EventTypeWarning, "STS gives no session")
	f.newsSays(t, pod, "MovedToRelay", corev1.EventTypeNormal, "the session could not be renewed in time")
}

// sidecarPod creates a pod with a sidecar at the port.
func (f *fixture) sidecarPod(t *testing.T, namespace string, port int) corev1.Pod {
	t.Helper()
	spec := template().Spec
	spec.InitContainers = []corev1.Container{{
		Name: sidecarconfig.ContainerName, Image: image, RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
		Ports: []corev1.ContainerPort{{Name: sidecarconfig.MetricsPortName, ContainerPort: int32(port)}},
	}}
	pod, err := f.Client().CoreV1().Pods(namespace).Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: "p-" + strconv.Itoa(port), Annotations: map[string]string{inject.AnnotationInjected: `{"version":1}`},
		},
		Spec: spec,
	}, metav1.CreateOptions{})
	testkit.Must(t, err)
	return *pod
}

// news are the events on the pod itself that its sidecar caused.
func (f *fixture) news(t *testing.T, pod corev1.Pod) (found []corev1.Event) {
	t.Helper()
	list, err := f.Client().CoreV1().Events(pod.Namespace).List(t.Context(), metav1.ListOptions{})
	testkit.Must(t, err)
	for _, e := range list.Items {
		switch e.Reason {
		case "SessionNotTaken", "WritesRefused", "NoSession", "MovedToRelay":
			if e.InvolvedObject.UID != pod.UID {
				t.Errorf("an event on %+v", e.InvolvedObject)
			}
			found = append(found, e)
		}
	}
	return found
}

func (f *fixture) newsSays(t *testing.T, pod corev1.Pod, reason, kind, words string) {
	t.Helper()
	testkit.Eventually(t, "event "+reason+": "+words, func() bool {
		for _, e := range f.news(t, pod) {
			if e.Reason == reason && e.Type == kind && strings.Contains(e.Message, words) {
				return true
			}
		}
		return false
	})
}

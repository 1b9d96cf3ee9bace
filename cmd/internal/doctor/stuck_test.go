package doctor

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// objectServer returns the URL of an API server that answers each path with an object.
func objectServer(t *testing.T, objects map[string]any) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		object, known := objects[r.URL.Path]
		w.Header().Set("Content-Type", "application/json")
		if !known {
			w.WriteHeader(http.StatusNotFound)
			object = metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Reason: metav1.StatusReasonNotFound, Code: 404}
		}
		_ = json.NewEncoder(w).Encode(object)
	}))
	t.Cleanup(server.Close)
	return server.URL
}

// runnerOn returns a runner on an [objectServer].
func runnerOn(t *testing.T, objects map[string]any) *runner {
	t.Helper()
	c, err := connect(kubeconfigOf(t, objectServer(t, objects), "{}"), kube.Overrides{})
	testkit.Must(t, err)
	return &runner{Options: Options{System: "ampbridge-system", Now: time.Now}, cluster: c}
}

// If the sidecar cannot run, the finding has the reason of the kubelet or the scheduler, and
// the fix for it.
func TestStuck(t *testing.T) {
	waits := func(name, reason, message string) corev1.ContainerStatus {
		return corev1.ContainerStatus{Name: name,
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}}
	}
	after := func(s corev1.ContainerStatus, reason string, code int32) corev1.ContainerStatus {
		s.RestartCount = 12
		s.LastTerminationState.Terminated = &corev1.ContainerStateTerminated{Reason: reason, ExitCode: code, FinishedAt: metav1.Now()}
		return s
	}
	running := corev1.ContainerStatus{Name: sidecarconfig.ContainerName,
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}}
	const sidecar = sidecarconfig.ContainerName
	events := func(reason string, ago time.Duration) corev1.EventList {
		return corev1.EventList{Items: []corev1.Event{{Reason: reason, Message: "MountVolume.SetUp failed",
			LastTimestamp: metav1.NewTime(time.Now().Add(-ago))}}}
	}
	for _, c := range []struct {
		name      string
		status    corev1.PodStatus
		events    corev1.EventList
		want, fix string // empty: it is not stuck
	}{
		{name: "running", status: corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{running}}},
		{name: "being created", status: corev1.PodStatus{Phase: corev1.PodPending,
			InitContainerStatuses: []corev1.ContainerStatus{waits(sidecar, "PodInitializing", "")}}},
		{name: "no node", status: corev1.PodStatus{Phase: corev1.PodPending, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled,
			Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "0/3 nodes are available: 3 Insufficient memory"}}},
			want: "Unschedulable: 0/3 nodes are available", fix: "events"},
		{name: "no image", status: corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{waits(sidecar,
			"ErrImagePull", "not found")}},
			want: "ErrImagePull: not found", fix: "sidecar.image of the policy"},
		{name: "out of memory", status: corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{
			after(waits(sidecar, "CrashLoopBackOff", "back-off 5m0s"), "OOMKilled", 137)}},
			want: "it ended 12 times, last with OOMKilled (exit code 137)", fix: "sidecar.resources.limits.memory"},
		{name: "another crash", status: corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{
			after(waits(sidecar, "CrashLoopBackOff", "back-off 5m0s"), "Error", 1)}}, want: "Error (exit code 1)", fix: "why the sidecar ended"},
		{name: "security context", status: corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{
			waits(sidecar, "CreateContainerConfigError", "container has runAsNonRoot")}}, want: "runAsNonRoot", fix: "sidecar.securityContext"},
		{name: "another init container", status: corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{
			waits("init-config-reloader", "CrashLoopBackOff", "back-off")}}, want: "the init container init-config-reloader does not start",
			fix: "init container"},
		{name: "a volume", status: corev1.PodStatus{Phase: corev1.PodPending}, events: events("FailedMount", time.Minute),
			want: "FailedMount: MountVolume.SetUp failed", fix: "events"},
		{name: "a volume, long ago", status: corev1.PodStatus{Phase: corev1.PodPending}, events: events("FailedMount", time.Hour)},
		{name: "another event", status: corev1.PodStatus{Phase: corev1.PodPending}, events: events("Unhealthy", time.Minute)},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := runnerOn(t, map[string]any{"/api/v1/namespaces/m/events": c.events})
			f, stuck := x.stuck(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "m", Name: "p-0"}, Status: c.status})
			if stuck != (c.want != "") || !strings.Contains(f.Message, c.want) {
				t.Fatalf("%v: %s", stuck, f.Message)
			}
			if stuck && (f.Status != check.Fail || !strings.Contains(f.Fix.Summary, c.fix)) {
				t.Errorf("%s, fix %+v", f.Status, f.Fix)
			}
		})
	}
	x := &runner{Options: Options{Now: time.Now}}
	pod := &corev1.Pod{Status: corev1.PodStatus{InitContainerStatuses: []corev1.ContainerStatus{after(running, "OOMKilled", 137)}}}
	if f, recently := x.crashed(pod); !recently || f.Status != check.Warn || !strings.Contains(f.Message,
		"OOMKilled (exit code 137), 12 restarts") {
		t.Errorf("after a restart: %+v", f)
	}
	pod.Status.InitContainerStatuses[0].LastTerminationState.Terminated.FinishedAt = metav1.NewTime(time.Now().Add(-time.Hour))
	if f, recently := x.crashed(pod); recently {
		t.Errorf("an hour later: %s", f.Message)
	}
}

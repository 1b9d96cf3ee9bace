package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// restartedLately is how long doctor reports a crash of a sidecar that runs again.
const restartedLately = 15 * time.Minute

// stuck returns a failure if something prevents the pod's sidecar from running; false: it runs,
// or it is starting.
func (x *runner) stuck(ctx context.Context, pod *corev1.Pod) (check.Finding, bool) {
	describe := check.NewFix("see the pod's events", check.Command{"kubectl", "describe", "pod", "--namespace", pod.Namespace, pod.Name})
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			return failed(describe, "the pod is not scheduled: %s", joined(c.Reason, c.Message)), true
		}
	}
	for _, status := range pod.Status.InitContainerStatuses {
		reason := ended(pod, status.Name)
		switch {
		case reason == "":
		case status.Name == sidecarconfig.ContainerName:
			return failed(fixStart(pod, status), "it does not start, and Prometheus waits for it: %s", reason), true
		default:
			return failed(check.NewFix("see why the init container ends", check.Command{"kubectl", "logs", "--namespace", pod.Namespace, pod.Name,
				"--container", status.Name}), "the init container %s does not start, and Prometheus waits for it: %s", status.Name, reason), true
		}
	}
	if pod.Status.Phase == corev1.PodPending {
		if message := x.mountProblem(ctx, pod); message != "" {
			return failed(describe, "the kubelet cannot start the pod: %s", message), true
		}
	}
	return check.Finding{}, false
}

// ended returns why a container does not run, in the kubelet's words; empty: it runs, or it
// has not been started yet.
func ended(pod *corev1.Pod, name string) string {
	i := slices.IndexFunc(statuses(pod), func(s corev1.ContainerStatus) bool { return s.Name == name })
	if i < 0 {
		return ""
	}
	status := statuses(pod)[i]
	w := status.State.Waiting
	if w == nil || w.Reason == "" || w.Reason == "PodInitializing" || w.Reason == "ContainerCreating" {
		return ""
	}
	reason := joined(w.Reason, w.Message)
	if last := status.LastTerminationState.Terminated; last != nil {
		reason += fmt.Sprintf("; it ended %d times, last with %s (exit code %d)", status.RestartCount, joined(last.Reason,
			last.Message), last.ExitCode)
	}
	return reason
}

func statuses(pod *corev1.Pod) []corev1.ContainerStatus {
	return slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses)
}

// joined returns a reason with its message, if there is one.
func joined(reason, message string) string {
	return strings.TrimSuffix(reason+": "+strings.TrimSpace(message), ": ")
}

// fixStart returns the fix for a sidecar that does not start.
func fixStart(pod *corev1.Pod, status corev1.ContainerStatus) check.Fix {
	switch reason := status.State.Waiting.Reason; {
	case strings.Contains(reason, "Image"):
		return check.NewFix("make the sidecar's image available to the node: sidecar.image of the policy, or the webhook's --image, names it "+
			"(sidecar.imagePullSecrets for a private registry); then replace the pod", rollout(pod))
	case strings.HasPrefix(reason, "Create"), reason == "RunContainerError":
		return check.NewFix("let the node start the sidecar: see sidecar.securityContext and sidecar.resources of the policy; then replace "+
			"the pod", rollout(pod))
	}
	return fixCrash(pod, status)
}

// fixCrash returns the fix for a sidecar that ends.
func fixCrash(pod *corev1.Pod, status corev1.ContainerStatus) check.Fix {
	if last := status.LastTerminationState.Terminated; last != nil && last.Reason == "OOMKilled" {
		return check.NewFix("raise sidecar.resources.limits.memory in the policy; then replace the pod", rollout(pod))
	}
	return check.NewFix("see why the sidecar ended", check.Command{"kubectl", "logs", "--namespace", pod.Namespace, pod.Name,
		"--container", sidecarconfig.ContainerName, "--previous"})
}

// crashed returns a warning if the sidecar runs again after a recent crash.
func (x *runner) crashed(pod *corev1.Pod) (check.Finding, bool) {
	for _, s := range pod.Status.InitContainerStatuses {
		last := s.LastTerminationState.Terminated
		if s.Name != sidecarconfig.ContainerName || last == nil || x.Now().Sub(last.FinishedAt.Time) > restartedLately {
			continue
		}
		return warned(fixCrash(pod, s), "it runs, but it ended %s ago with %s (exit code %d), %d restarts",
			check.Span(x.Now().Sub(last.FinishedAt.Time)),
			joined(last.Reason, last.Message), last.ExitCode, s.RestartCount), true
	}
	return check.Finding{}, false
}

// mountProblem returns the newest warning of the kubelet about a pod that does not start;
// empty: there is none, or the events cannot be read.
func (x *runner) mountProblem(ctx context.Context, pod *corev1.Pod) string {
	list, err := x.cluster.client.CoreV1().Events(pod.Namespace).List(ctx, metav1.ListOptions{Limit: pageSize,
		FieldSelector: fields.AndSelectors(
			fields.OneTermEqualSelector("involvedObject.name", pod.Name),
			fields.OneTermEqualSelector("type", corev1.EventTypeWarning),
		).String()})
	if err != nil {
		return ""
	}
	newest := corev1.Event{}
	for _, e := range list.Items {
		recent := x.Now().Sub(e.LastTimestamp.Time) < refusalAge
		if recent && strings.HasPrefix(e.Reason, "Failed") && !e.LastTimestamp.Before(&newest.LastTimestamp) {
			newest = e
		}
	}
	if newest.Reason == "" {
		return ""
	}
	return joined(newest.Reason, newest.Message)
}

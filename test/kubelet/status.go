package kubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Phase returns the pod's phase, by the kubelet's rules.
func (p *Pod) Phase() corev1.PodPhase {
	p.mu.Lock()
	initialised, finished, failed := !p.initDone.IsZero(), p.finished, p.failed
	p.mu.Unlock()
	switch {
	case finished && !failed:
		for _, c := range p.containers {
			if t := c.Status().State.Terminated; c.kind == ordinary && (t == nil || t.ExitCode != 0) {
				return corev1.PodFailed
			}
		}
		return corev1.PodSucceeded
	case failed:
		return corev1.PodFailed
	case initialised:
		return corev1.PodRunning
	}
	return corev1.PodPending
}

// Status returns what a kubelet would report about the pod.
func (p *Pod) Status() corev1.PodStatus {
	status := corev1.PodStatus{
		Phase:  p.Phase(),
		HostIP: loopback, HostIPs: []corev1.HostIP{{IP: loopback}},
		PodIP: loopback, PodIPs: []corev1.PodIP{{IP: loopback}},
		Conditions: []corev1.PodCondition{
			{Type: corev1.PodInitialized, Status: conditionStatus(!p.InitDone().IsZero())},
			{Type: corev1.ContainersReady, Status: conditionStatus(p.Ready())},
			{Type: corev1.PodReady, Status: conditionStatus(p.Ready())},
		},
	}
	p.mu.Lock()
	status.Message = p.message
	p.mu.Unlock()
	for _, c := range p.containers {
		if c.kind == ordinary {
			status.ContainerStatuses = append(status.ContainerStatuses, c.Status())
		} else {
			status.InitContainerStatuses = append(status.InitContainerStatuses, c.Status())
		}
	}
	return status
}

func conditionStatus(b bool) corev1.ConditionStatus {
	if b {
		return corev1.ConditionTrue
	}
	return corev1.ConditionFalse
}

// report writes the status to the API server. The UID prevents an update of another pod with the same name.
func (p *Pod) report(ctx context.Context, status corev1.PodStatus) error {
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"uid": p.spec.UID},
		"status":   status,
	})
	if err != nil {
		return err
	}
	_, err = p.client.CoreV1().Pods(p.spec.Namespace).
		Patch(ctx, p.spec.Name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	return err
}

// Describe returns the pod's state in a readable form: every container's state and its last lines of output.
func (p *Pod) Describe() string {
	var b strings.Builder
	status := p.Status()
	fmt.Fprintf(&b, "pod %s/%s: %s %s\n", p.spec.Namespace, p.spec.Name, status.Phase, status.Message)
	for _, c := range p.containers {
		s := c.Status()
		fmt.Fprintf(&b, "container %s: ", s.Name)
		switch {
		case s.State.Waiting != nil:
			fmt.Fprintf(&b, "waiting: %s %s", s.State.Waiting.Reason, s.State.Waiting.Message)
		case s.State.Running != nil:
			fmt.Fprintf(&b, "running since %s, ready %t", s.State.Running.StartedAt.Format("15:04:05"), s.Ready)
		case s.State.Terminated != nil:
			fmt.Fprintf(
				&b,
				"ended: %s, exit code %d %s",
				s.State.Terminated.Reason,
				s.State.Terminated.ExitCode,
				s.State.Terminated.Message,
			)
		}
		if t := s.LastTerminationState.Terminated; t != nil && s.State.Terminated == nil {
			fmt.Fprintf(&b, "; before: %s %s", t.Reason, t.Message)
		}
		fmt.Fprintf(&b, "; exit codes %v\n", c.ExitCodes())
		lines := strings.Split(strings.TrimRight(c.Logs(), "\n"), "\n")
		for _, line := range lines[max(0, len(lines)-20):] {
			fmt.Fprintf(&b, "    %s\n", line)
		}
	}
	return b.String()
}

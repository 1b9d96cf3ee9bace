package doctor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
)

const (
	// leaseName is the name of sync's Lease, in ampbridge's own namespace.
	leaseName = "ampbridge-sync"
	// leaseWatch is how long doctor waits for a renewal if the clocks differ. A leader
	// renews every two seconds.
	leaseWatch = 5 * time.Second
	// syncMetricsPort is the port of sync's metrics if its pod names none.
	syncMetricsPort = 8080
)

// checkSync checks sync, which updates AWS to match the policy.
func (x *runner) checkSync(ctx context.Context) {
	if x.cluster == nil {
		x.checks.Skip(check.About{}, noCluster, check.SyncLeads)
		return
	}
	if x.policy.Trust.Manage == policy.ManageNone {
		x.checks.Exclude(check.About{}, "the policy has trust.manage: none, so sync does not manage AWS", check.SyncLeads)
		return
	}
	x.checks.Run(check.SyncLeads, check.About{}, func() check.Finding {
		state, err := x.sync(ctx)
		x.syncWorkload = state.Workload
		if err != nil {
			return skipped("%v", err)
		}
		logs := check.NewFix("see sync's log for the changes that failed, and why")
		if state.Workload != "" {
			logs.Commands = []check.Command{{"kubectl", "logs", "--namespace", x.System, "--selector", kube.SyncSelector, "--tail=50"}}
		}
		f := check.Sync(state, time.Duration(x.policy.Trust.Interval), x.Now(), logs)
		if reason := x.syncStuck(ctx, state); f.Status == check.Fail && reason != "" {
			f.Message += "; " + reason
			f.Fix = &check.Fix{Summary: "let a pod of sync run", Commands: []check.Command{
				{"kubectl", "describe", "pods", "--namespace", x.System, "--selector", kube.SyncSelector}}}
		}
		return f
	})
}

// sync returns what the cluster shows about sync.
func (x *runner) sync(ctx context.Context) (state check.SyncState, err error) {
	client, chart := x.cluster.client, metav1.ListOptions{LabelSelector: kube.SyncSelector}
	deployments, err := client.AppsV1().Deployments(x.System).List(ctx, chart)
	if err != nil {
		return state, fmt.Errorf("the Deployments of %s cannot be listed: %w", x.System, err)
	}
	if len(deployments.Items) > 0 {
		state.Workload = "deployment/" + deployments.Items[0].Name
	} else {
		cronJobs, err := client.BatchV1().CronJobs(x.System).List(ctx, chart)
		if err != nil {
			return state, fmt.Errorf("the CronJobs of %s cannot be listed: %w", x.System, err)
		}
		if len(cronJobs.Items) > 0 {
			c := cronJobs.Items[0]
			state.Workload = "cronjob/" + c.Name
			state.CronJob = &check.CronJobState{
				Suspended: c.Spec.Suspend != nil && *c.Spec.Suspend, Hourly: check.Hourly(c.Spec.Schedule),
			}
			if c.Status.LastScheduleTime != nil {
				state.CronJob.Started = c.Status.LastScheduleTime.Time
			}
			if c.Status.LastSuccessfulTime != nil {
				state.CronJob.Succeeded = c.Status.LastSuccessfulTime.Time
			}
			return state, nil
		}
	}
	if state.Lease, err = x.lease(ctx); err != nil {
		return state, fmt.Errorf("the Lease %s/%s cannot be read: %w", x.System, leaseName, err)
	}
	if state.Lease == nil || state.Lease.Holder == "" {
		return state, nil
	}
	text, err := x.leaderMetrics(ctx, state.Lease.Holder)
	if err == nil {
		state.Leader, err = parseMetrics(text)
	}
	if err != nil {
		state.Problem = err.Error()
	}
	return state, nil
}

// syncStuck returns why no pod of sync's Deployment runs; empty: one runs, or it is not known.
func (x *runner) syncStuck(ctx context.Context, state check.SyncState) string {
	if !strings.HasPrefix(state.Workload, "deployment/") {
		return ""
	}
	pods, err := x.cluster.client.CoreV1().Pods(x.System).List(ctx, metav1.ListOptions{LabelSelector: kube.SyncSelector})
	if err != nil {
		return ""
	}
	if len(pods.Items) == 0 {
		return state.Workload + " has no pods: check its replicas (sync.replicas of the chart)"
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		for _, c := range pod.Spec.Containers {
			if reason := ended(pod, c.Name); reason != "" {
				return fmt.Sprintf("pod %s does not run: %s", pod.Name, reason)
			}
		}
		for _, c := range pod.Status.Conditions {
			if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
				return fmt.Sprintf("pod %s is not scheduled: %s", pod.Name, joined(c.Reason, c.Message))
			}
		}
	}
	return ""
}

// lease reads the Lease. If it looks expired, lease reads it again: the clocks of the
// leader and of this machine may differ.
func (x *runner) lease(ctx context.Context) (*check.LeaseState, error) {
	first, err := x.readLease(ctx)
	if err != nil || first == nil || first.Holder == "" || x.Now().Sub(first.Renewed).Abs() <= first.Lasts {
		return first, err
	}
	if err := pause(ctx, leaseWatch); err != nil {
		return nil, err
	}
	second, err := x.readLease(ctx)
	if err != nil || second == nil {
		return second, err
	}
	second.Moved = !second.Renewed.Equal(first.Renewed)
	return second, nil
}

// readLease returns nil if there is no Lease.
func (x *runner) readLease(ctx context.Context) (*check.LeaseState, error) {
	object, err := x.cluster.client.CoordinationV1().Leases(x.System).Get(ctx, leaseName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return leaseState(object.Spec), nil
}

func leaseState(spec coordinationv1.LeaseSpec) *check.LeaseState {
	state := &check.LeaseState{}
	if spec.HolderIdentity != nil {
		state.Holder, _, _ = strings.Cut(*spec.HolderIdentity, "_")
	}
	if spec.RenewTime != nil {
		state.Renewed = spec.RenewTime.Time
	}
	if spec.LeaseDurationSeconds != nil {
		state.Lasts = time.Duration(*spec.LeaseDurationSeconds) * time.Second
	}
	return state
}

// leaderMetrics reads the metrics of the leader through the API server. The Lease
// has the pod's host name, which can be shorter than the pod's name.
func (x *runner) leaderMetrics(ctx context.Context, host string) (string, error) {
	pods, err := x.cluster.client.CoreV1().Pods(x.System).List(ctx, metav1.ListOptions{LabelSelector: kube.SyncSelector})
	if err != nil {
		return "", fmt.Errorf("the pods of %s cannot be listed: %w", x.System, err)
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		if !strings.HasPrefix(pod.Name, host) && pod.Spec.Hostname != host {
			continue
		}
		if pod.Status.Phase != corev1.PodRunning {
			return "", fmt.Errorf("its pod is %s", pod.Status.Phase)
		}
		text, err := x.cluster.client.CoreV1().Pods(
			x.System,
		).ProxyGet(
			"http",
			pod.Name,
			strconv.Itoa(metricsPort(pod)),
			"/metrics",
			nil,
		).DoRaw(
			ctx,
		)
		if err != nil {
			return "", fmt.Errorf("its metrics cannot be read through the API server: %w", err)
		}
		return string(text), nil
	}
	return "", errors.New("it is not a pod of " + x.System)
}

func metricsPort(pod *corev1.Pod) int {
	for _, c := range pod.Spec.Containers {
		for _, p := range c.Ports {
			if p.Name == "metrics" {
				return int(p.ContainerPort)
			}
		}
	}
	return syncMetricsPort
}

// pause waits. It returns early, with an error, when the context ends.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

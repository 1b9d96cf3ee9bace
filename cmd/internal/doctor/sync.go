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

	"github.com/ampbridge/ampbridge/cmd/internal/installation"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
)

const (
	// leaseName is that of sync's Lease, in ampbridge's own namespace.
	leaseName = "ampbridge-sync"
	// leaseWatch is how long doctor waits for a renewal where the clocks differ;
	// a leader renews every two seconds.
	leaseWatch = 5 * time.Second
	// syncMetricsPort is where sync serves metrics, where its pod names no port.
	syncMetricsPort = 8080
)

// lookAtSync checks what keeps the AWS side in sync with the policy.
func (x *runner) lookAtSync(ctx context.Context) {
	if x.cluster == nil {
		x.checks.Skip(check.About{}, noCluster, check.SyncLeads)
		return
	}
	if x.policy.Trust.Manage == policy.ManageNone {
		x.checks.LeaveOut(check.About{}, "the policy says trust.manage: none, so others keep the AWS side", check.SyncLeads)
		return
	}
	x.checks.Run(check.SyncLeads, check.About{}, func() check.Finding {
		seen, err := x.sync(ctx)
		if err != nil {
			return skipped("%v", err)
		}
		logs := check.NewFix("see sync's log, which says what it cannot do and why")
		if seen.Workload != "" {
			logs.Commands = []check.Command{{"kubectl", "logs", "--namespace", x.System, "--selector", installation.Sync, "--tail=50"}}
		}
		return check.Sync(seen, time.Duration(x.policy.Trust.Interval), x.Now(), logs)
	})
}

// sync observes it. The error says what may not be read.
func (x *runner) sync(ctx context.Context) (seen check.SyncSeen, err error) {
	client, chart := x.cluster.client, metav1.ListOptions{LabelSelector: installation.Sync}
	deployments, err := client.AppsV1().Deployments(x.System).List(ctx, chart)
	if err != nil {
		return seen, fmt.Errorf("the Deployments of %s cannot be listed: %w", x.System, err)
	}
	if len(deployments.Items) > 0 {
		seen.Workload = "deployment/" + deployments.Items[0].Name
	} else {
		cronJobs, err := client.BatchV1().CronJobs(x.System).List(ctx, chart)
		if err != nil {
			return seen, fmt.Errorf("the CronJobs of %s cannot be listed: %w", x.System, err)
		}
		if len(cronJobs.Items) > 0 {
			c := cronJobs.Items[0]
			seen.Workload = "cronjob/" + c.Name
			seen.Scheduled = &check.ScheduleSeen{Suspended: c.Spec.Suspend != nil && *c.Spec.Suspend}
			if c.Status.LastScheduleTime != nil {
				seen.Scheduled.Started = c.Status.LastScheduleTime.Time
			}
			if c.Status.LastSuccessfulTime != nil {
				seen.Scheduled.Succeeded = c.Status.LastSuccessfulTime.Time
			}
			return seen, nil
		}
	}
	if seen.Lease, err = x.lease(ctx); err != nil {
		return seen, fmt.Errorf("the Lease %s/%s cannot be read: %w", x.System, leaseName, err)
	}
	if seen.Lease == nil || seen.Lease.Holder == "" {
		return seen, nil
	}
	text, err := x.leaderMetrics(ctx, seen.Lease.Holder)
	if err != nil {
		seen.Problem = err.Error()
	}
	seen.Leader = check.ReadMetrics(text)
	return seen, nil
}

// lease reads the Lease, and again where its age does not tell that it is held:
// the clocks of the leader and of this machine may differ.
func (x *runner) lease(ctx context.Context) (*check.LeaseSeen, error) {
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

// readLease returns nil where there is no Lease.
func (x *runner) readLease(ctx context.Context) (*check.LeaseSeen, error) {
	object, err := x.cluster.client.CoordinationV1().Leases(x.System).Get(ctx, leaseName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return leaseSeen(object.Spec), nil
}

func leaseSeen(spec coordinationv1.LeaseSpec) *check.LeaseSeen {
	seen := &check.LeaseSeen{}
	if spec.HolderIdentity != nil {
		seen.Holder, _, _ = strings.Cut(*spec.HolderIdentity, "_")
	}
	if spec.RenewTime != nil {
		seen.Renewed = spec.RenewTime.Time
	}
	if spec.LeaseDurationSeconds != nil {
		seen.Lasts = time.Duration(*spec.LeaseDurationSeconds) * time.Second
	}
	return seen
}

// leaderMetrics reads the metrics of the leader through the API server. A long
// name of a pod is longer than its host name, which the Lease has.
func (x *runner) leaderMetrics(ctx context.Context, host string) (string, error) {
	pods, err := x.cluster.client.CoreV1().Pods(x.System).List(ctx, metav1.ListOptions{LabelSelector: installation.Sync})
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
		text, err := x.cluster.client.CoreV1().Pods(x.System).ProxyGet("http", pod.Name, strconv.Itoa(metricsPort(pod)), "/metrics", nil).DoRaw(ctx)
		if err != nil {
			return "", fmt.Errorf("its metrics cannot be read through the API server: %w", err)
		}
		return string(text), nil
	}
	return "", errors.New("it is no pod of " + x.System)
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

// pause returns early, with an error, when the context ends.
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

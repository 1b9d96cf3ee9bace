package doctor_test

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// syncLabels are the labels of sync in the chart.
var syncLabels = map[string]string{"ampbridge.io/chart": "ampbridge", "app.kubernetes.io/component": "sync"}

// syncLeads runs sync as the chart's Deployment does, and removes it again.
func (s *fixture) syncLeads() {
	client := s.kube.Client()
	containers := []corev1.Container{{Name: "sync", Image: "registry.example/ampbridge:dev"}}
	s.must(client.AppsV1().Deployments(system).Create(s.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "ampbridge-sync", Labels: syncLabels},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: syncLabels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: syncLabels},
				Spec:       corev1.PodSpec{Containers: containers},
			},
		},
	}, metav1.CreateOptions{}))
	s.onlyFailed(check.SyncLeads, "no replica of deployment/ampbridge-sync ever led: there is no Lease")

	// The pod has this machine's name, which sync uses in its Lease, and this machine's address.
	host, err := os.Hostname()
	s.try(err)
	port := freePort(s.T, s.host)
	number, err := strconv.ParseInt(port, 10, 32)
	s.try(err)
	containers[0].Ports = []corev1.ContainerPort{{Name: "metrics", ContainerPort: int32(number)}}
	s.must(client.CoreV1().Pods(system).Create(s.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "ampbridge-sync-1", Labels: syncLabels},
		Spec:       corev1.PodSpec{NodeName: "node", Hostname: host, Containers: containers},
	}, metav1.CreateOptions{}))
	s.must(client.CoreV1().Pods(system).Patch(s.Context(), "ampbridge-sync-1", types.MergePatchType,
		[]byte(`{"status":{"phase":"Running","podIP":"`+s.host+`","podIPs":[{"ip":"`+s.host+`"}]}}`), metav1.PatchOptions{}, "status"))
	policy := filepath.Join(s.dir, "sync-policy.yaml")
	s.try(os.WriteFile(policy, []byte(s.policy()), 0o600))
	run := s.startSync(policy, net.JoinHostPort(s.host, port))
	s.eventually("sync leads, and its pass succeeds", func() bool { return s.runDoctor(fault{}).Status(check.SyncLeads) == check.Pass })

	s.try(os.WriteFile(policy, []byte(s.policy("destinations: [central]", "destinations: [centrall]")), 0o600))
	s.eventually("sync refuses the policy", func() bool { return s.runDoctor(fault{}).Status(check.SyncLeads) == check.Fail })
	s.onlyFailed(check.SyncLeads, "refuses the newest version of the policy")
	s.try(os.WriteFile(policy, []byte(s.policy()), 0o600))
	s.eventually("sync takes the policy", func() bool { return s.runDoctor(fault{}).Status(check.SyncLeads) == check.Pass })

	s.try(run.Process.Kill())
	_ = run.Wait() // killed
	s.eventually("no replica leads", func() bool { return s.runDoctor(fault{}).Status(check.SyncLeads) == check.Fail })
	s.onlyFailed(check.SyncLeads, "renewed the Lease last")

	s.try(client.AppsV1().Deployments(system).Delete(s.Context(), "ampbridge-sync", metav1.DeleteOptions{}))
	s.try(client.CoreV1().Pods(system).Delete(s.Context(), "ampbridge-sync-1", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}))
	s.try(client.CoordinationV1().Leases(system).Delete(s.Context(), "ampbridge-sync", metav1.DeleteOptions{}))
	s.syncScheduled(containers)
	s.healthy(fault{})
}

// syncScheduled creates a CronJob in place of the Deployment (sync.mode: cronJob).
func (s *fixture) syncScheduled(containers []corev1.Container) {
	s.Helper()
	jobs := s.kube.Client().BatchV1().CronJobs(system)
	const name = "ampbridge-sync"
	patch := func(text string, subresources ...string) {
		s.Helper()
		s.must(jobs.Patch(s.Context(), name, types.MergePatchType, []byte(text), metav1.PatchOptions{}, subresources...))
	}
	ago := func(d time.Duration) string { return time.Now().Add(-d).UTC().Format(time.RFC3339) }
	// The schedule has no run during the test, because the real controller would start a Job.
	s.must(jobs.Create(s.Context(), &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: syncLabels},
		Spec: batchv1.CronJobSpec{Schedule: "0 0 29 2 *", Suspend: new(true), JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever, Containers: containers}},
		}}},
	}, metav1.CreateOptions{}))
	s.onlyFailed(check.SyncLeads, "cronjob/ampbridge-sync is suspended")
	patch(`{"spec":{"suspend":false}}`)
	patch(`{"status":{"lastScheduleTime":"`+ago(time.Hour)+`"}}`, "status")
	s.onlyFailed(check.SyncLeads, "has not succeeded; no run ever succeeded")
	patch(`{"status":{"lastSuccessfulTime":"`+ago(59*time.Minute)+`"}}`, "status")
	if a := s.runDoctor(fault{}); a.Status(check.SyncLeads) != check.Pass {
		s.Fatalf("a CronJob whose last run succeeded\n%s", a.text())
	}
	s.try(jobs.Delete(s.Context(), name, metav1.DeleteOptions{}))
}

// startSync runs sync's controller as its own process.
func (s *fixture) startSync(policy, metrics string) *exec.Cmd {
	s.Helper()
	cmd := exec.Command(s.ampbridge, "sync", "--policy", policy, "--kubeconfig", s.kube.Kubeconfig(), "--system-namespace", system,
		"--metrics-addr", metrics, "--health-addr", testkit.FreeAddr(s.T))
	cmd.Env = s.environ()
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.try(cmd.Start())
	s.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		if s.Failed() {
			s.Logf("sync:\n%s", output.String())
		}
	})
	return cmd
}

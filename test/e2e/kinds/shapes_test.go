//go:build shapes

package kinds_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/env"
)

// TestShapes runs doctor for every kind of healthy pod: all checks pass. The pods run one
// after the other, because the sidecars of this machine share a port. Of the pods of
// other rows nothing is expected: they exist, and do not run.
func TestShapes(t *testing.T) {
	f := newFixture(t)
	f.startOperator(t)
	f.scheduledSync(t)
	host, err := cluster.Address()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			ports, err := env.NewPorts()
			if err != nil {
				t.Fatal(err)
			}
			m, err := r.create(
				f,
				asked{TB: t, name: r.name, tag: r.tag, config: configuration("first-"+r.name, ports), ports: ports},
			)
			if err != nil {
				t.Fatal(err)
			}
			moved := ports.Move(m.pod)
			moved.Spec.ShareProcessNamespace = nil // here all pods are processes of this machine
			p := f.run(t, moved)
			p.arrives("first-" + r.name)
			var failed []string
			for begun := time.Now(); time.Since(begun) < time.Minute; {
				p.address(host)
				if failed = p.diagnose(moved.Spec.ServiceAccountName); len(failed) == 0 {
					return
				}
			}
			t.Error(strings.Join(failed, "\n"))
		})
	}
}

// scheduledSync is what is left of a CronJob of sync that ran: the fixture has synced.
func (f *fixture) scheduledSync(t *testing.T) {
	t.Helper()
	labels := map[string]string{"ampbridge.io/chart": "ampbridge", "app.kubernetes.io/component": "sync"}
	job := &batchv1.CronJob{
		ObjectMeta: metav1.ObjectMeta{Name: "ampbridge-sync", Namespace: env.SystemNamespace, Labels: labels},
		Spec: batchv1.CronJobSpec{Schedule: "0 0 29 2 *", JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy: corev1.RestartPolicyNever, Containers: []corev1.Container{{Name: "sync", Image: env.SidecarImage}},
			}},
		}}},
	}
	if err := f.client.Create(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	now := metav1.Now()
	job.Status = batchv1.CronJobStatus{LastScheduleTime: &now, LastSuccessfulTime: &now}
	if err := f.client.Status().Update(t.Context(), job); err != nil {
		t.Fatal(err)
	}
}

// address gives the pod the machine's address: the API server proxies to no loopback
// address, and Prometheus listens on nothing else here.
func (p *subject) address(host string) {
	p.Helper()
	_, err := p.fixture.Cluster.Client().CoreV1().Pods(
		p.Object.Namespace,
	).Patch(
		p.Context(),
		p.Object.Name,
		types.MergePatchType,
		fmt.Appendf(nil, `{"status":{"podIP":%q,"podIPs":[{"ip":%q}]}}`, host, host),
		metav1.PatchOptions{},
		"status",
	)
	if err != nil {
		p.Fatal(err)
	}
}

// diagnose runs doctor, and returns its findings about the pod, and about everything that
// is no pod, that are neither passed nor excluded.
func (p *subject) diagnose(serviceAccount string) (failed []string) {
	p.Helper()
	out, err := p.fixture.Ampbridge(p.Context(), "doctor", "-o", "json", "--no-write", "--policy", p.fixture.PolicyFile,
		"--kubeconfig", p.fixture.Cluster.Kubeconfig(), "--namespace", env.Namespace, "--service-account", serviceAccount)
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		p.Fatal(err)
	}
	var report check.Report
	if err := json.NewDecoder(strings.NewReader(out)).Decode(&report); err != nil {
		p.Fatalf("%v\n%s", err, out)
	}
	seen := 0
	for _, finding := range report.Findings {
		own := finding.About.Pod == p.Object.Namespace+"/"+p.Object.Name
		if finding.About.Pod != "" && !own {
			continue
		}
		if own && finding.Status == check.Pass {
			seen++
		}
		if finding.Status != check.Pass && !finding.Excluded {
			failed = append(failed, fmt.Sprintf("%s %s: %s: %s", finding.Status, finding.ID, finding.About, finding.Message))
		}
	}
	if seen < 4 && len(failed) == 0 {
		failed = append(failed, fmt.Sprintf("%d checks of the pod passed", seen))
	}
	return failed
}

// TestIssuers runs doctor in clusters of other clouds. That of the rows is EKS's.
func TestIssuers(t *testing.T) {
	host, err := cluster.Address()
	if err != nil {
		t.Fatal(err)
	}
	for name, issuer := range map[string]string{
		"AKS":       "https://westeurope.oic.prod-aks.azure.com/00000000-0000-0000-0000-000000000000/11111111-1111-1111-1111-111111111111/",
		"GKE":       "https://container.googleapis.com/v1/projects/example/locations/europe-west1/clusters/demo",
		"on-prem":   "https://oidc.example.com",
		"k3s":       "https://kubernetes.example.com/cluster-1",
		"OpenShift": "https://example-oidc.s3.eu-west-1.amazonaws.com/demo",
	} {
		t.Run(name, func(t *testing.T) {
			e := env.StartSynced(t, env.Options{Issuer: issuer, Few: true})
			c, err := client.New(e.Cluster.Config(), client.Options{})
			if err != nil {
				t.Fatal(err)
			}
			f := &fixture{e, c}
			f.scheduledSync(t)
			p := &subject{
				t,
				e.StartPrometheus(t, env.Chart{Name: "prometheus-server", Config: env.SelfScrape, Change: env.NoReloader}),
				f,
			}
			failed := []string{"doctor has not run"}
			for begun := time.Now(); time.Since(begun) < time.Minute && len(failed) > 0; {
				p.address(host)
				failed = p.diagnose(env.ServiceAccount)
			}
			if len(failed) > 0 {
				t.Error(strings.Join(failed, "\n"))
			}
		})
	}
}

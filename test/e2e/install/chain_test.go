//go:build linux && e2e

package install

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/node"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

// A workload is one of the ways in which users run Prometheus.
type workload struct {
	what, file, serviceAccount, selector string
	operator                             bool
}

var (
	byChart = workload{"the community chart's Deployment", "testdata/prometheus-chart.yaml", "prometheus-server",
		"app.kubernetes.io/component=server", false}
	byOperator = workload{"prometheus-operator's StatefulSet", "testdata/prometheus-operator.yaml", "prometheus-k8s",
		"app.kubernetes.io/managed-by=prometheus-operator", true}
)

// TestChain tests the main task: several clusters, each with its own issuer, write to one workspace in an
// account in which none of them runs. The first clusters have EKS issuers (dev, qa and prod), and then one
// has an AKS issuer, which ends with a slash.
func TestChain(t *testing.T) {
	cloud := startAWS(t)
	var workspace policy.Workspace // the first cluster creates it
	images := append(foreignImages(t, cloud.CA), archive(node.Dir(), version), archive(node.Dir(), nextVersion))
	const eks = "https://oidc.eks." + region + ".amazonaws.com/id/"
	for _, test := range []struct {
		name, issuer string
		workloads    []workload
		then         func(*environment)
	}{
		{"dev", eks + "0D0E0D0E0D0E0D0E0D0E0D0E0D0E0D0E", []workload{byChart}, killSidecar},
		{"qa", eks + "0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A0A", []workload{byOperator}, nil},
		{"prod", eks + "0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F0F", []workload{byChart, byOperator}, operations},
		{"aks", "https://eastus.oic.prod-aks.azure.com/72f988bf-86f1-41af-91ab-2d7cd011db47/0a1b2c3d-1111-2222-3333-444455556666/",
			[]workload{byChart}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := start(t, cloud, workspace, test.name, test.issuer, images)
			workspace = e.workspace
			e.install(version)
			e.proved("helm installed the chart: two webhook replicas with a certificate of their own, and sync")
			e.helm("test", release, "--namespace", systemNamespace, "--timeout", "2m")
			e.proved("helm test: the image reads the policy as the cluster has it")
			for _, w := range test.workloads {
				e.chain(w)
			}
			e.doctor()
			if test.then != nil {
				test.then(e)
			}
		})
	}
}

// chain follows one Prometheus from its manifest to its samples in the workspace.
func (e *environment) chain(w workload) {
	e.Helper()
	if w.operator {
		e.applyFile(bundle(node.Dir()))
	}
	e.applyFile(w.file)
	e.trusted(w)
	pod := e.injected(w)
	e.session(pod)
	e.ready(pod)
	e.samples(pod, w)
}

// trusted waits until sync trusts the workload; sync runs by itself.
func (e *environment) trusted(w workload) {
	e.Helper()
	subject := policy.Subject{Namespace: monitoring, ServiceAccount: w.serviceAccount}
	name := "ampbridge." + e.name + ".central"
	client := iam.NewFromConfig(e.cloud.Config(e.cloud.Account(central).AdminCredentials(), region))
	e.Eventually(e.T, "sync trusts "+subject.String(), func(ctx context.Context) error {
		role, err := client.GetRole(ctx, &iam.GetRoleInput{RoleName: &name})
		if err == nil && !strings.Contains(*role.Role.AssumeRolePolicyDocument, w.serviceAccount) {
			err = errors.New("not yet in the role's trust document")
		}
		return err
	})
	by := e.role(e.syncRole()) + "/"
	if calls(e.cloud, func(c awstest.Call) bool { return c.Action == "CreateRole" && strings.HasPrefix(c.Principal, by) }) != 1 {
		e.Fatalf("role %s was not created by sync in the cluster with the session of its own token", name)
	}
	e.proved("sync, with its own token, created role %s and trusts %s", name, subject)
}

// injected returns the workload's pod when it exists. Its namespace admits only restricted pods.
func (e *environment) injected(w workload) (pod *corev1.Pod) {
	e.Helper()
	pod = e.current(w)
	if !env.Injected(pod) {
		e.Fatalf("pod %s of %s is not injected: %v", pod.Name, w.what, pod.Annotations)
	}
	e.proved("admission: %s, pod %s, has the config sidecar; the namespace enforces the restricted standard", w.what, pod.Name)
	return pod
}

// session waits for the sidecar's call to STS.
func (e *environment) session(pod *corev1.Pod) {
	e.Helper()
	principal := e.role("ampbridge."+e.name+".central") + "/" + session.Name(e.name, pod.Namespace, pod.Name)
	e.Eventually(e.T, "STS gives "+pod.Name+" a session", func(context.Context) error {
		if calls(e.cloud, func(c awstest.Call) bool { return c.Action == "AssumeRoleWithWebIdentity" && c.Principal == principal }) == 0 {
			return errors.New("no call yet")
		}
		return nil
	})
	e.proved("session: the sidecar sent the pod's projected token to STS at %s, and has the session %s", awsHosts[0], principal)
}

// doctor runs the checks that users run to find a fault.
func (e *environment) doctor() {
	e.Helper()
	said := e.ampbridge("doctor", "--namespace", monitoring)
	passed := strings.Count(said, "\n✓ ") // the first line is the verdict
	if passed == 0 || strings.Contains(said, "✗") {
		e.Fatalf("ampbridge doctor:\n%s", said)
	}
	e.proved("ampbridge doctor: %d checks passed, none failed", passed)
}

// role returns the beginning of the ARNs of a role's sessions.
func (e *environment) role(name string) string {
	return "arn:aws:sts::" + central + ":assumed-role/" + name
}

// ready waits for the pod, and for the block in Prometheus's own configuration.
func (e *environment) ready(pod *corev1.Pod) {
	e.Helper()
	e.podReady(pod)
	for _, s := range pod.Status.ContainerStatuses {
		if s.RestartCount != 0 {
			e.Errorf("container %s of %s was restarted %d times", s.Name, pod.Name, s.RestartCount)
		}
	}
	e.Eventually(e.T, pod.Name+" has the block", func(ctx context.Context) error {
		config, err := testkit.Get(ctx, "http://"+pod.Status.PodIP+":9090/api/v1/status/config")
		if err == nil && !strings.Contains(config, "/workspaces/"+e.workspace.ID()+"/api/v1/remote_write") {
			err = errors.New("not in Prometheus's configuration yet")
		}
		return err
	})
	e.proved("Prometheus of %s is ready, and has the block", pod.Name)
}

// samples waits until the workspace has samples of this pod and its cluster.
func (e *environment) samples(pod *corev1.Pod, w workload) {
	e.Helper()
	e.writes(pod)
	var found []awstest.Sample
	e.Eventually(e.T, "samples of "+pod.Name+" are in the workspace", func(ctx context.Context) (err error) {
		// More than a hundred series show that a whole scrape has arrived, and not only the first series
		// after a start.
		query := fmt.Sprintf(`count({__name__=~".+",cluster=%q}) > 100`, e.name)
		if found, err = e.cloud.Query(ctx, e.workspace.ID(), query); err == nil && len(found) == 0 {
			err = errors.New("none yet")
		}
		return err
	})
	e.proved("samples of %s arrive in workspace %s: %.0f series with cluster=%q", w.what, e.workspace.ID(), found[0].Value, e.name)
}

// writes waits for the pod's next write to the workspace.
func (e *environment) writes(pod *corev1.Pod) {
	e.Helper()
	from := len(e.cloud.Writes(e.workspace.ID()))
	e.Eventually(e.T, "a write of "+pod.Name+" is stored", func(context.Context) error {
		for _, write := range e.cloud.Writes(e.workspace.ID())[from:] {
			if write.Stored() && write.SessionName == session.Name(e.name, pod.Namespace, pod.Name) {
				return nil
			}
		}
		return errors.New("none yet")
	})
}

package chart

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

// What happens to an installation: other tools, other versions, other managers of
// its fields. Each step begins and ends without ampbridge.
func TestUpgradesInACluster(t *testing.T) {
	f := newFixture(t, cluster.Options{Scheduler: true})
	testkit.Must(t, f.ServiceAccount(t.Context(), "monitoring", "prometheus-k8s"))
	f.defineCustomResources(t)
	before := f.settled(t)
	old := &fixture{Cluster: f.Cluster, program: helm3}
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"rendered manifests without Leases and hooks", f.testRendered},
		{"from the chart that shipped the Lease, by Helm 4", f.testShippedLease},
		{"from the chart that shipped the Lease, by Helm 3", old.testShippedLease},
		{"the enforcer of AKS", f.testEnforcer},
		{"a Secret that the webhook has made again", f.testSecretAgain},
		{"other certificates, by Helm 4", f.testCertificateModes},
		{"other certificates, by Helm 3", old.testCertificateModes},
		{"the host's network", f.testHostNetwork},
		{"commands find it, whatever its names are", f.testFound},
	} {
		t.Run(step.name, func(t *testing.T) {
			step.run(t)
			if _, err := f.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Get(
				t.Context(),
				registration.DefaultName,
				metav1.GetOptions{},
			); err == nil {
				f.testUninstall(t, before)
			} else {
				f.eventually(t, before)
			}
		})
	}
}

// managed is a policy of which sync makes the role.
const managed = `
policy:
  cluster: {name: dev}
  destinations:
  - {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001"}
  grants:
  - {namespaces: [monitoring], serviceAccounts: [prometheus-k8s], destinations: [central]}
  trust: {interval: 1m, permissionsBoundary: "arn:aws:iam::111122223333:policy/boundary"}
`

// testRendered installs as Argo CD does: rendered manifests, applied without Leases,
// which it never applies, and without hooks.
func (f *fixture) testRendered(t *testing.T) {
	values := []string{"-f", valuesFile(t, managed)}
	all := render(t, values...).withoutLeasesAndHooks()
	for _, object := range all {
		f.apply(t, object)
	}

	admin, environment := f.startAWS(t)
	sync := f.startDeployment(t, "ampbridge-sync", all, valuesFile(t, renderedPolicy(t, values...)), environment...)
	sync.shows(
		t,
		"\nampbridge_sync_leader 1\n",
		"\nampbridge_sync_last_success_timestamp_seconds 1",
		"\nampbridge_sync_subjects{destination=\"central\"} 1\n",
	)
	role, err := iam.NewFromConfig(admin).GetRole(t.Context(), &iam.GetRoleInput{RoleName: aws.String("ampbridge.dev.central")})
	testkit.Must(t, err)
	t.Logf("sync leads and has made %s", *role.Role.Arn)
	if text := sync.log.String(); strings.Contains(text, "forbidden") || strings.Contains(text, `"level":"ERROR"`) {
		t.Errorf("sync:\n%s", text)
	}
	// A second sync of the same manifests changes nothing of what the process wrote.
	lease, err := f.Client().CoordinationV1().Leases(namespace).Get(t.Context(), "ampbridge-sync", metav1.GetOptions{})
	testkit.Must(t, err)
	for _, object := range all {
		f.apply(t, object)
	}
	sync.shows(t, "\nampbridge_sync_leader 1\n")
	for _, object := range slices.Backward(all) {
		f.delete(t, object)
	}
	// The Lease goes with the ConfigMap that owns it.
	testkit.EventuallyEmpty(t, func() string {
		now, err := f.Client().CoordinationV1().Leases(namespace).Get(t.Context(), "ampbridge-sync", metav1.GetOptions{})
		if err == nil && now.UID == lease.UID {
			return "the Lease is there"
		}
		return ""
	})
}

// testShippedLease upgrades from a chart with the Lease among its objects. Helm
// deletes the Lease then, under the process that holds it.
func (f *fixture) testShippedLease(t *testing.T) {
	ctx := t.Context()
	f.helm(t, "install", release, leaseChart(t), "--namespace", namespace, "-f", minimal)
	leases := f.Client().CoordinationV1().Leases(namespace)
	shipped, err := leases.Get(ctx, "ampbridge-sync", metav1.GetOptions{})
	testkit.Must(t, err)
	sync := f.startDeployment(t, "ampbridge-sync", render(t, "-f", minimal), minimalPolicy(t))
	sync.shows(t, "\nampbridge_sync_leader 1\n")
	held, err := leases.Get(ctx, "ampbridge-sync", metav1.GetOptions{})
	testkit.Must(t, err)

	f.upgrade(t, "-f", minimal)
	testkit.EventuallyEmpty(t, func() string {
		lease, err := leases.Get(ctx, "ampbridge-sync", metav1.GetOptions{})
		switch {
		case err != nil:
			return sync.log.under(err.Error())
		case lease.UID == shipped.UID:
			return "Helm has not deleted the Lease"
		case lease.Spec.HolderIdentity == nil || *lease.Spec.HolderIdentity != *held.Spec.HolderIdentity:
			return fmt.Sprintf("the Lease's holder is not %s: %+v", *held.Spec.HolderIdentity, lease.Spec)
		}
		return ""
	})
	sync.ready(t)
	sync.shows(t, "\nampbridge_sync_leader 1\n")
	// Another upgrade leaves the Lease alone.
	made, err := leases.Get(ctx, "ampbridge-sync", metav1.GetOptions{})
	testkit.Must(t, err)
	f.upgrade(t, "-f", minimal, "--set", "policy.paused=true")
	kept, err := leases.Get(ctx, "ampbridge-sync", metav1.GetOptions{})
	testkit.Must(t, err)
	if kept.UID != made.UID {
		t.Error("an upgrade deleted the Lease that sync has made")
	}
	// Back, as docs/guides/upgrade.md has it.
	sync.stop()
	testkit.Must(t, f.Client().AppsV1().Deployments(namespace).Delete(ctx, "ampbridge-sync", metav1.DeleteOptions{}))
	testkit.Must(t, leases.Delete(ctx, "ampbridge-sync", metav1.DeleteOptions{}))
	f.helm(t, "rollback", release, "1", "--namespace", namespace)
	_, err = leases.Get(ctx, "ampbridge-sync", metav1.GetOptions{})
	testkit.Must(t, err)
	_, err = f.Client().AppsV1().Deployments(namespace).Get(ctx, "ampbridge-sync", metav1.GetOptions{})
	testkit.Must(t, err)
}

// leaseChart is the chart as it was when it shipped the Lease and gave no right to
// create it.
func leaseChart(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ampbridge")
	testkit.Must(t, os.CopyFS(dir, os.DirFS(chartDir)))
	testkit.WriteFile(t, filepath.Join(dir, "templates", "lease.yaml"), `apiVersion: coordination.k8s.io/v1
kind: Lease
metadata:
  name: ampbridge-sync
  namespace: {{ .Release.Namespace }}
  labels: {{- include "ampbridge.labels" (dict "root" . "component" "sync") | nindent 4 }}
`)
	role := filepath.Join(dir, "templates", "sync-rbac.yaml")
	text := testkit.ReadFile(t, role)
	older := strings.Replace(text, "verbs: [get, update, patch, create]", "verbs: [get, update]", 1)
	if text == older {
		t.Fatal("the role's rule for the Lease is not found")
	}
	testkit.WriteFile(t, role, older)
	return dir
}

// testFound has doctor and status read the policy of an installation with other names, and
// then that of the user's own ConfigMap.
func (f *fixture) testFound(t *testing.T) {
	program := binary(t)
	reads := func(want string) {
		t.Helper()
		for _, args := range [][]string{{"status", "--no-aws"}, {"doctor", "--no-write"}} {
			// Both fail here, where no program runs.
			out, _, _ := execute(t, []string{"HOME=" + t.TempDir(), "AWS_EC2_METADATA_DISABLED=true"}, program,
				append(args, "-o", "json", "--kubeconfig", f.Kubeconfig())...)
			if !strings.Contains(out, want) {
				t.Errorf("%q does not read %s:\n%s", args, want, out)
			}
			// Of the webhook's and sync's Deployments.
			for _, lost := range []string{"no installed webhook", "nothing in the cluster runs sync"} {
				if strings.Contains(out, lost) {
					t.Errorf("%q: %s:\n%s", args, lost, out)
				}
			}
		}
	}
	names := []string{"--set", "nameOverride=collector,fullnameOverride=metrics-bridge"}
	f.install(t, append(names, "-f", minimal)...)
	reads("ConfigMap " + namespace + "/metrics-bridge-policy")

	own := configMap("metrics-policy")
	own.Data = map[string]string{"policy.yaml": testkit.ReadFile(t, minimalPolicy(t))}
	_, err := f.Client().CoreV1().ConfigMaps(namespace).Create(t.Context(), own, metav1.CreateOptions{})
	testkit.Must(t, err)
	f.upgrade(t, append(names, "--reset-values", "--set", "policyConfigMap.existing=metrics-policy,sync.region=eu-west-1")...)
	reads("ConfigMap " + namespace + "/metrics-policy")
	testkit.Must(t, f.Client().CoreV1().ConfigMaps(namespace).Delete(t.Context(), own.Name, metav1.DeleteOptions{}))
}

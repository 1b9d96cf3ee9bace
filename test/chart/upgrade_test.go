package chart

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

// What happens to an installation: other tools, other versions, other managers of
// its fields. Each step begins and ends without ampbridge.
func TestUpgradesInACluster(t *testing.T) {
	f := &fixture{Cluster: cluster.Start(t, cluster.Options{Scheduler: true}), program: helm4}
	testkit.Must(t, f.Namespace(t.Context(), namespace, nil))
	testkit.Must(t, f.Namespace(t.Context(), "monitoring", map[string]string{"ampbridge.io/injection": "enabled"}))
	_, err := f.Client().CoreV1().ServiceAccounts(
		"monitoring",
	).Create(
		t.Context(),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "prometheus-k8s"}},
		metav1.CreateOptions{},
	)
	testkit.Must(t, err)
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
				testkit.EventuallyEmpty(t, func() string { return cmp.Diff(before, f.everything(t)) })
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
	all := slices.DeleteFunc(render(t, values...), func(o *unstructured.Unstructured) bool {
		return o.GetKind() == "Lease" || o.GetAnnotations()["helm.sh/hook"] != ""
	})
	for _, object := range all {
		f.apply(t, object)
	}

	cloud := awstest.Start(t, awstest.Options{})
	_, err := cloud.RegisterIssuer(f.Issuer, f.OIDC(), awstest.PublicCA)
	testkit.Must(t, err)
	account := cloud.Account("111122223333")
	_, err = account.PutManagedPolicy(
		"boundary",
		`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"aps:RemoteWrite","Resource":"*"}}`,
	)
	testkit.Must(t, err)
	account.AddWorkspace("eu-west-1", "ws-0001")
	policy := valuesFile(t, renderedPolicy(t, values...))
	sync := f.start(t, "ampbridge-sync", podOf(t, all.get(t, "Deployment", "ampbridge-sync")).Containers[0].Args, policy,
		slices.Concat(cloud.Environ(), account.AdminCredentials().Environ(), []string{"AWS_EC2_METADATA_DISABLED=true"})...)
	sync.ready(t)
	sync.shows(
		t,
		"\nampbridge_sync_leader 1\n",
		"\nampbridge_sync_last_success_timestamp_seconds 1",
		"\nampbridge_sync_subjects{destination=\"central\"} 1\n",
	)
	role, err := iam.NewFromConfig(
		cloud.Config(account.AdminCredentials(), "eu-west-1"),
	).GetRole(
		t.Context(),
		&iam.GetRoleInput{RoleName: aws.String("ampbridge.dev.central")},
	)
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
	args := podOf(t, render(t, "-f", minimal).get(t, "Deployment", "ampbridge-sync")).Containers[0].Args
	sync := f.start(t, "ampbridge-sync", args, valuesFile(t, renderedPolicy(t, "-f", minimal)))
	sync.ready(t)
	sync.shows(t, "\nampbridge_sync_leader 1\n")
	held, err := leases.Get(ctx, "ampbridge-sync", metav1.GetOptions{})
	testkit.Must(t, err)

	f.helm(t, "upgrade", release, chartDir, "--namespace", namespace, "-f", minimal)
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
	f.helm(t, "upgrade", release, chartDir, "--namespace", namespace, "-f", minimal, "--set", "policy.paused=true")
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
	text, err := os.ReadFile(role)
	testkit.Must(t, err)
	older := bytes.Replace(text, []byte("verbs: [get, update, patch, create]"), []byte("verbs: [get, update]"), 1)
	if bytes.Equal(text, older) {
		t.Fatal("the role's rule for the Lease is not found")
	}
	testkit.Must(t, os.WriteFile(role, older, 0o600))
	return dir
}

// testEnforcer plays the admissions enforcer of AKS, which writes into the selectors
// of every registration that has not opted out.
func (f *fixture) testEnforcer(t *testing.T) {
	label := func(m metav1.ObjectMeta) map[string]string { return m.Labels }
	annotation := func(m metav1.ObjectMeta) map[string]string { return m.Annotations }
	upgrade := []string{"upgrade", release, chartDir, "--namespace", namespace, "-f", minimal}
	optOut := `admissions\.enforcer/disabled=`

	// Without the opt-out it is as users reported it.
	optIn := []string{
		"--set-string",
		"webhook.registration.labels." + optOut + "false",
		"--set-string",
		"webhook.registration.annotations." + optOut + "false",
	}
	f.helm(t, slices.Concat([]string{"install"}, upgrade[1:], optIn)...)
	if !f.enforce(t, label) || !f.enforce(t, annotation) {
		t.Fatal("the enforcer leaves a registration alone that has not opted out")
	}
	_, stderr, err := runHelm(
		t,
		f.program,
		slices.Concat(upgrade, optIn, []string{"--set", "webhook.excludedNamespaces={a}", "--kubeconfig", f.Kubeconfig()})...)
	if err == nil {
		t.Error("the enforcer's fields are no conflict, so that this test shows nothing")
	}
	names(t, stderr, "admissionsenforcer", "namespaceSelector")

	// The opt-out is the way out, too, and from then on upgrades pass.
	f.helm(t, append(slices.Clone(upgrade), "--force-conflicts")...)
	for i := range 3 {
		if f.enforce(t, label) || f.enforce(t, annotation) {
			t.Error("the enforcer does not see the opt-out")
		}
		excluded := fmt.Sprintf("system-%d", i)
		f.helm(t, append(slices.Clone(upgrade), "--set", "webhook.excludedNamespaces={"+excluded+"}")...)
		registered := f.registration(t)
		for _, w := range registered.Webhooks {
			if e := w.NamespaceSelector.MatchExpressions; len(e) != 1 || !slices.Contains(e[0].Values, excluded) {
				t.Errorf("upgrade %d: %s selects by %+v", i+1, w.Name, e)
			}
		}
	}
}

// enforce writes as the enforcer does into the registrations that are there, unless
// their labels, or their annotations, opt out.
func (f *fixture) enforce(t *testing.T, read func(metav1.ObjectMeta) map[string]string) (wrote bool) {
	t.Helper()
	enforced := func(object metav1.ObjectMeta, selectors ...*metav1.LabelSelector) bool {
		if read(object)["admissions.enforcer/disabled"] == "true" {
			return false
		}
		for _, selector := range selectors {
			selector.MatchExpressions = append(selector.MatchExpressions,
				metav1.LabelSelectorRequirement{Key: "control-plane", Operator: metav1.LabelSelectorOpDoesNotExist})
		}
		wrote = true
		return true
	}
	enforcer := metav1.UpdateOptions{FieldManager: "admissionsenforcer"}
	api := f.Client().AdmissionregistrationV1()
	mutating, err := api.MutatingWebhookConfigurations().List(t.Context(), metav1.ListOptions{})
	testkit.Must(t, err)
	for _, m := range mutating.Items {
		var selectors []*metav1.LabelSelector
		for i := range m.Webhooks {
			selectors = append(selectors, m.Webhooks[i].NamespaceSelector)
		}
		if enforced(m.ObjectMeta, selectors...) {
			_, err := api.MutatingWebhookConfigurations().Update(t.Context(), &m, enforcer)
			testkit.Must(t, err)
		}
	}
	validating, err := api.ValidatingWebhookConfigurations().List(t.Context(), metav1.ListOptions{})
	testkit.Must(t, err)
	for _, v := range validating.Items {
		var selectors []*metav1.LabelSelector
		for i := range v.Webhooks {
			selectors = append(selectors, v.Webhooks[i].NamespaceSelector)
		}
		if enforced(v.ObjectMeta, selectors...) {
			_, err := api.ValidatingWebhookConfigurations().Update(t.Context(), &v, enforcer)
			testkit.Must(t, err)
		}
	}
	if len(mutating.Items) == 0 {
		t.Fatal("there is no registration")
	}
	return wrote
}

// testSecretAgain: what a process creates in place of an object of the chart's is no
// conflict for the next upgrade, whatever the chart's names and labels.
func (f *fixture) testSecretAgain(t *testing.T) {
	values := []string{"-f", minimal, "--set", "nameOverride=collector"}
	f.helm(t, append([]string{"install", release, chartDir, "--namespace", namespace}, values...)...)
	const name = "ampbridge-collector-webhook"
	args := podOf(t, render(t, values...).get(t, "Deployment", name)).Containers[0].Args
	webhook := f.start(t, name, args, valuesFile(t, renderedPolicy(t, "-f", minimal)))
	webhook.ready(t)
	secrets := f.Client().CoreV1().Secrets(namespace)
	made, err := secrets.Get(t.Context(), name+"-tls", metav1.GetOptions{})
	testkit.Must(t, err)
	testkit.Must(t, secrets.Delete(t.Context(), name+"-tls", metav1.DeleteOptions{}))
	testkit.EventuallyEmpty(t, func() string {
		again, err := secrets.Get(t.Context(), name+"-tls", metav1.GetOptions{})
		if err != nil || again.UID == made.UID || len(again.Data) == 0 {
			return webhook.log.under(fmt.Sprint("the Secret is not back: ", err))
		}
		return ""
	})
	f.helm(
		t,
		slices.Concat(
			[]string{"upgrade", release, chartDir, "--namespace", namespace},
			values,
			[]string{"--set", "commonLabels.team=platform"},
		)...)
	again, err := secrets.Get(t.Context(), name+"-tls", metav1.GetOptions{})
	testkit.Must(t, err)
	if again.Labels["team"] != "platform" || again.Labels["app.kubernetes.io/name"] != "collector" || len(again.Data) == 0 {
		t.Errorf("after the upgrade the Secret has labels %v and %d keys", again.Labels, len(again.Data))
	}
}

// testFound has doctor and status read the policy of an installation with other names, and
// then that of the user's own ConfigMap.
func (f *fixture) testFound(t *testing.T) {
	program := binary(t)
	reads := func(want string) {
		t.Helper()
		for _, args := range [][]string{{"status", "--no-aws"}, {"doctor", "--no-write"}} {
			cmd := exec.CommandContext(t.Context(), program, append(args, "-o", "json", "--kubeconfig", f.Kubeconfig())...)
			cmd.Env = []string{"HOME=" + t.TempDir(), "AWS_EC2_METADATA_DISABLED=true"}
			out, err := cmd.Output()
			if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if !strings.Contains(string(out), want) {
				t.Errorf("%q does not read %s:\n%s", args, want, out)
			}
			// Of the webhook's and sync's Deployments.
			for _, lost := range []string{"no installed webhook", "nothing in the cluster runs sync"} {
				if strings.Contains(string(out), lost) {
					t.Errorf("%q: %s:\n%s", args, lost, out)
				}
			}
		}
	}
	names := []string{"--set", "nameOverride=collector,fullnameOverride=metrics-bridge"}
	f.helm(t, slices.Concat([]string{"install", release, chartDir, "--namespace", namespace, "-f", minimal}, names)...)
	reads("ConfigMap " + namespace + "/metrics-bridge-policy")

	own := configMap("metrics-policy")
	own.Data = map[string]string{"policy.yaml": renderedPolicy(t, "-f", minimal)}
	_, err := f.Client().CoreV1().ConfigMaps(namespace).Create(t.Context(), own, metav1.CreateOptions{})
	testkit.Must(t, err)
	f.helm(t, slices.Concat([]string{"upgrade", release, chartDir, "--namespace", namespace, "--reset-values"}, names,
		[]string{"--set", "policyConfigMap.existing=metrics-policy,sync.region=eu-west-1"})...)
	reads("ConfigMap " + namespace + "/metrics-policy")
	testkit.Must(t, f.Client().CoreV1().ConfigMaps(namespace).Delete(t.Context(), own.Name, metav1.DeleteOptions{}))
}

// testCertificateModes goes from each way to have a certificate to the others. Who
// wrote the CA bundle before is another manager of the field.
func (f *fixture) testCertificateModes(t *testing.T) {
	authority := func(name string) string {
		return "-----BEGIN CERTIFICATE-----\n" + name + "\n-----END CERTIFICATE-----\n"
	}
	upgrade := func(args ...string) []string {
		return append([]string{"upgrade", release, chartDir, "--namespace", namespace, "-f", minimal}, args...)
	}
	mode := func(name string) []string { return []string{"--set", "certificates.mode=" + name} }
	provided := func(ca string) []string {
		return append(
			mode("provided"),
			"--set",
			"certificates.provided.secretName=own",
			"--set",
			"certificates.provided.caBundle="+authority(ca),
		)
	}
	registrations := f.Client().AdmissionregistrationV1().MutatingWebhookConfigurations()
	bundles := func(want string) {
		t.Helper()
		registered, err := registrations.Get(t.Context(), registration.DefaultName, metav1.GetOptions{})
		testkit.Must(t, err)
		for _, w := range registered.Webhooks {
			if got := string(w.ClientConfig.CABundle); got != want {
				t.Errorf("%s: the CA bundle is %q, want %q", w.Name, got, want)
			}
		}
	}
	// takeOver changes to the user's own certificate. Helm 4 must first be told to.
	takeOver := func(writer, ca string) {
		t.Helper()
		if f.program == helm4 {
			deployment := f.webhook(t)
			_, stderr, err := runHelm(t, f.program, append(upgrade(provided(ca)...), "--kubeconfig", f.Kubeconfig())...)
			if err == nil {
				t.Fatal("Helm changes a field of another manager")
			}
			names(
				t,
				stderr,
				"certificates.provided.caBundle",
				"was written by "+writer,
				"kubectl delete mutatingwebhookconfiguration,validatingwebhookconfiguration ampbridge",
				"Nothing was changed",
			)
			if now := f.webhook(t); now.Generation != deployment.Generation {
				t.Error("the refused upgrade changed the webhook's Deployment")
			}
			testkit.Must(t, registrations.Delete(t.Context(), registration.DefaultName, metav1.DeleteOptions{}))
			validating := f.Client().AdmissionregistrationV1().ValidatingWebhookConfigurations()
			if err := validating.Delete(t.Context(), registration.DefaultName, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
				testkit.Must(t, err)
			}
		}
		f.helm(t, upgrade(provided(ca)...)...)
		bundles(authority(ca))
	}

	f.helm(t, slices.Concat([]string{"install"}, upgrade()[1:])...)
	args := podOf(t, render(t, "-f", minimal).get(t, "Deployment", "ampbridge-webhook")).Containers[0].Args
	webhook := f.start(t, "ampbridge-webhook", args, valuesFile(t, renderedPolicy(t, "-f", minimal)))
	webhook.ready(t)
	webhook.shows(t, "\nampbridge_certificate_trusted 1\n")
	takeOver("ampbridge", "first")
	forbidden := regexp.MustCompile(`mutatingwebhookconfigurations[^\n]* forbidden`)
	// The replica of the old way is still there, and has no right any more.
	testkit.EventuallyEmpty(t, func() string {
		if !forbidden.MatchString(webhook.log.String()) {
			return webhook.log.under("the replica of the old way has not tried to write its bundle")
		}
		return ""
	})
	bundles(authority("first"))
	f.helm(t, upgrade(provided("second")...)...)
	bundles(authority("second"))

	f.helm(t, upgrade(mode("certManager")...)...)
	bundles("")
	f.inject(t, "cert-manager-cainjector", authority("cert-manager's"))
	f.helm(t, upgrade(append(mode("certManager"), "--set", "webhook.timeoutSeconds=9")...)...)
	bundles(authority("cert-manager's"))
	takeOver("cert-manager-cainjector", "third")

	f.helm(t, upgrade()...)
	webhook.shows(t, "\nampbridge_certificate_trusted 1\n")
	f.helm(t, upgrade(mode("certManager")...)...)
	f.helm(t, upgrade()...)
}

// inject writes the CA bundle, as that manager.
func (f *fixture) inject(t *testing.T, manager, bundle string) {
	t.Helper()
	registrations := f.Client().AdmissionregistrationV1().MutatingWebhookConfigurations()
	registered, err := registrations.Get(t.Context(), registration.DefaultName, metav1.GetOptions{})
	testkit.Must(t, err)
	for i := range registered.Webhooks {
		registered.Webhooks[i].ClientConfig.CABundle = []byte(bundle)
	}
	_, err = registrations.Update(t.Context(), registered, metav1.UpdateOptions{FieldManager: manager})
	testkit.Must(t, err)
}

// testHostNetwork has a real scheduler place the pods on two nodes, and rolls them
// there: the port of a node has one pod, and no node is left for another. The test
// plays the nodes.
func (f *fixture) testHostNetwork(t *testing.T) {
	for _, name := range []string{"one", "two"} {
		f.node(t, name)
	}
	ctx, stop := context.WithCancel(t.Context())
	played := make(chan struct{})
	go func() { defer close(played); f.playKubelet(ctx) }()
	defer func() { stop(); <-played }()

	args := []string{release, chartDir, "--namespace", namespace, "-f", minimal, "--set", "webhook.tolerations[0].operator=Exists",
		"--set", "sync.enabled=false", "--set", "policy.trust.manage=none"}
	rolled := func(host bool) {
		t.Helper()
		testkit.EventuallyEmpty(t, func() string {
			d := f.webhook(t)
			if status := d.Status; status.ObservedGeneration != d.Generation || status.UpdatedReplicas != 2 || status.Replicas != 2 ||
				status.AvailableReplicas != 2 {
				return fmt.Sprintf("%+v", d.Status)
			}
			return ""
		})
		pods, err := f.Client().CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
		testkit.Must(t, err)
		nodes := map[string]bool{}
		for _, p := range pods.Items {
			if p.DeletionTimestamp == nil {
				nodes[p.Spec.NodeName] = true
			}
			for _, port := range p.Spec.Containers[0].Ports {
				if p.DeletionTimestamp == nil && (port.HostPort != 0) != host {
					t.Errorf("pod %s, host network %t: port %+v", p.Name, host, port)
				}
			}
		}
		if host && len(nodes) != 2 {
			t.Errorf("the pods are on %v", slices.Sorted(maps.Keys(nodes)))
		}
	}
	onHost := append([]string{"upgrade"}, append(slices.Clone(args), "--set", "webhook.hostNetwork=true")...)
	f.helm(t, append([]string{"install"}, args...)...)
	rolled(false)
	f.helm(t, onHost...)
	rolled(true)
	f.helm(t, append(slices.Clone(onHost), "--set", "webhook.logLevel=debug")...)
	rolled(true)
	f.helm(t, append(slices.Clone(onHost), "--set", "webhook.port=10260")...)
	rolled(true)
	f.helm(t, append([]string{"upgrade"}, args...)...)
	rolled(false)

	f.helm(t, "uninstall", release, "--namespace", namespace)
	testkit.EventuallyEmpty(t, func() string {
		pods, err := f.Client().CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
		testkit.Must(t, err)
		if len(pods.Items) > 0 {
			return fmt.Sprintf("%d pods are left", len(pods.Items))
		}
		return ""
	})
	for _, name := range []string{"one", "two"} {
		testkit.Must(t, f.Client().CoreV1().Nodes().Delete(t.Context(), name, metav1.DeleteOptions{}))
	}
}

// playKubelet has pods run as soon as they have a node, and ends them when they are
// deleted, a moment later as the webhook's drain takes.
func (f *fixture) playKubelet(ctx context.Context) {
	pods := f.Client().CoreV1().Pods(namespace)
	ready, err := json.Marshal(map[string]any{"status": map[string]any{
		"phase": "Running", "conditions": []any{map[string]any{"type": "Ready", "status": "True"}},
	}})
	if err != nil {
		panic(err)
	}
	for ; ctx.Err() == nil; time.Sleep(500 * time.Millisecond) {
		list, err := pods.List(ctx, metav1.ListOptions{})
		if err != nil {
			continue
		}
		for _, p := range list.Items {
			switch {
			case p.Spec.NodeName == "":
			case p.DeletionTimestamp != nil:
				err = pods.Delete(ctx, p.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))})
			case !slices.ContainsFunc(p.Status.Conditions,
				func(c corev1.PodCondition) bool { return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue }):
				_, err = pods.Patch(ctx, p.Name, types.StrategicMergePatchType, ready, metav1.PatchOptions{}, "status")
			}
			if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) && ctx.Err() == nil {
				panic(err)
			}
		}
	}
}

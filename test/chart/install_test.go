package chart

import (
	"bytes"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

// One cluster, and what an admin does to it from install to uninstall. There is
// no node, so pods are admitted and do not run.
func TestInAClusterFromInstallToUninstall(t *testing.T) {
	f := &fixture{Cluster: cluster.Start(t, cluster.Options{}), program: helm4}
	restricted := map[string]string{"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/warn": "restricted"}
	testkit.Must(t, f.Namespace(t.Context(), namespace, restricted))
	testkit.Must(t, f.Namespace(t.Context(), "other-system", restricted))
	f.labelledNamespace(t)
	f.defineCustomResources(t)
	before := f.settled(t)

	t.Run("the notes say what comes next", f.testNotes)

	f.install(t, "-f", minimal)
	for _, step := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"pods are admitted under the restricted standard", func(t *testing.T) { f.testPods(t, 2, 1) }},
		{"a second install is refused", f.testSecondInstall},
		{"the processes need no more than their rights", f.testProcesses},
		{"only pods that can be Prometheus reach the webhook", f.testReach},
		{"the webhook's rights", f.testWebhookRights},
		{"sync's rights", f.testSyncRights},
		{"an upgrade keeps what the processes wrote", f.testUpgrade},
		{"uninstall leaves the cluster as found", func(t *testing.T) { f.testUninstall(t, before) }},
		{"again, with everything", func(t *testing.T) {
			f.install(t, append([]string{"--set", "certificates.mode=certManager"}, forms["the chart's own keys"]...)...)
			f.testPods(t, 3, 2)
			f.testUninstall(t, before)
		}},
		{"again, by Helm 3, and upgraded by Helm 4", func(t *testing.T) { f.testHelm3(t, before) }},
	} {
		if !t.Run(step.name, step.run) {
			return
		}
	}
}

// testHelm3: Helm 3 installs and upgrades as Helm 4 does, and Helm 4 goes on with
// its release, on the client's side as Helm 3 did and on the server's.
func (f *fixture) testHelm3(t *testing.T, before map[string]string) {
	old := &fixture{Cluster: f.Cluster, program: helm3}
	old.install(t, "-f", minimal)
	f.testPods(t, 2, 1)
	for i, step := range []struct {
		by   *fixture
		args []string
	}{
		{old, nil},
		{f, nil},
		{f, []string{"--server-side=true"}},
		{f, nil},
	} {
		timeout := 10 + i
		step.by.upgrade(t, append(step.args, "-f", minimal, "--set", fmt.Sprintf("webhook.timeoutSeconds=%d", timeout))...)
		registered := f.registration(t)
		for _, w := range registered.Webhooks {
			if *w.TimeoutSeconds != int32(timeout) {
				t.Errorf("upgrade %d by %s did not reach %s", i+1, step.by.program, w.Name)
			}
		}
	}
	f.testUninstall(t, before)
}

// NOTES.txt says what comes next, with the names of this release.
func (f *fixture) testNotes(t *testing.T) {
	notes := func(args ...string) string {
		out := f.helm(
			t,
			append([]string{"install", "metrics", chartDir, "--namespace", namespace, "--dry-run=client", "-f", minimal}, args...)...)
		_, notes, found := strings.Cut(out, "NOTES:")
		if !found {
			t.Fatal("no notes")
		}
		return notes
	}
	names(
		t,
		notes(),
		"deployment/metrics-ampbridge-webhook",
		"ampbridge.io/injection=enabled",
		"rollout restart",
		"ampbridge doctor",
		"deployment/metrics-ampbridge-sync",
		"sync.roleArn is empty",
		"helm -n ampbridge-system test metrics",
	)
	names(t, notes("--set", "policy.paused=true", "--set", "sync.mode=cronJob"), "policy.paused is true", "cronjob/metrics-ampbridge-sync")
	if text := notes("--set", "policy.trust.manage=none", "--set", "sync.enabled=false"); strings.Contains(text, "-sync") {
		t.Errorf("sync is off, and the notes speak of it:\n%s", text)
	}
}

// testPods: the ReplicaSet controller creates pods, so those that are there were
// admitted.
func (f *fixture) testPods(t *testing.T, webhook, sync int) {
	testkit.EventuallyEmpty(t, func() string {
		pods, err := f.Client().CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
		testkit.Must(t, err)
		count := map[string]int{}
		for _, p := range pods.Items {
			count[p.Labels["app.kubernetes.io/component"]]++
		}
		return cmp.Diff(map[string]int{"webhook": webhook, "sync": sync}, count)
	})
	// What the ReplicaSet controller is refused, it says in events.
	events, err := f.Client().CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "type=Warning"})
	testkit.Must(t, err)
	for _, e := range events.Items {
		if e.Reason == "FailedCreate" {
			t.Errorf("%s %s: %s", e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Message)
		}
	}
}

func (f *fixture) testSecondInstall(t *testing.T) {
	out, stderr, err := runHelm(
		t, f.program, "install", "another", chartDir, "--namespace", "other-system", "-f", minimal, "--kubeconfig", f.Kubeconfig())
	if err == nil {
		t.Fatalf("a second ampbridge is installed:\n%s", out)
	}
	names(t, stderr, "MutatingWebhookConfiguration", `"ampbridge"`, "cannot be imported into the current release")
	objects, err := f.Client().CoreV1().ServiceAccounts("other-system").List(t.Context(), metav1.ListOptions{})
	testkit.Must(t, err)
	if len(objects.Items) != 1 {
		t.Errorf("the refused install left something behind: %v", objects.Items)
	}
}

// testUpgrade goes on with what the processes wrote, and with what they may write
// later.
func (f *fixture) testUpgrade(t *testing.T) {
	ctx := t.Context()
	sync := f.as(t, "ampbridge-sync")
	for _, name := range []string{"ampbridge-sync", "ampbridge-breaker"} {
		state, err := sync.CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
		testkit.Must(t, err)
		state.Data = map[string]string{"key": "value"}
		_, err = sync.CoreV1().ConfigMaps(namespace).Update(ctx, state, metav1.UpdateOptions{})
		testkit.Must(t, err)
	}
	accepted, err := f.Client().CoreV1().ConfigMaps(namespace).Get(ctx, webhook.AcceptedConfigMap, metav1.GetOptions{})
	testkit.Must(t, err)
	if accepted.Annotations[policy.AnnotationVersion] != policy.SchemaVersion || len(accepted.Data) == 0 {
		t.Errorf("the webhook has not kept its policy: %v, %v", accepted.Annotations, accepted.Data)
	}
	secret, err := f.Client().CoreV1().Secrets(namespace).Get(ctx, "ampbridge-webhook-tls", metav1.GetOptions{})
	testkit.Must(t, err)
	lease, err := f.Client().CoordinationV1().Leases(namespace).Get(ctx, "ampbridge-sync", metav1.GetOptions{})
	testkit.Must(t, err)
	deployment, err := f.Client().AppsV1().Deployments(namespace).Get(ctx, "ampbridge-webhook", metav1.GetOptions{})
	testkit.Must(t, err)

	// The registration, the policy and the labels change; pods have no reason to.
	f.upgrade(t, "-f", minimal, "--set", "webhook.timeoutSeconds=7,policy.paused=true",
		"--set", "webhook.excludedNamespaces={istio-system}")

	kept, err := f.Client().CoreV1().Secrets(namespace).Get(ctx, "ampbridge-webhook-tls", metav1.GetOptions{})
	testkit.Must(t, err)
	if len(kept.Data) == 0 || !reflect.DeepEqual(secret.Data, kept.Data) || !reflect.DeepEqual(secret.Annotations, kept.Annotations) {
		t.Errorf("the upgrade changed the certificate's Secret: annotations %v, then %v", secret.Annotations, kept.Annotations)
	}
	registered := f.registration(t)
	for _, w := range registered.Webhooks {
		if !bytes.Equal(w.ClientConfig.CABundle, secret.Data["ca.crt"]) {
			t.Errorf("%s: the upgrade made the CA bundle %q", w.Name, w.ClientConfig.CABundle)
		}
		if *w.TimeoutSeconds != 7 || !slices.Contains(w.NamespaceSelector.MatchExpressions[0].Values, "istio-system") {
			t.Errorf("%s: the upgrade did not reach it: %+v", w.Name, w)
		}
	}
	reviews, err := f.Client().AdmissionregistrationV1().ValidatingWebhookConfigurations().Get(
		ctx,
		registration.DefaultName,
		metav1.GetOptions{},
	)
	testkit.Must(t, err)
	for _, w := range reviews.Webhooks {
		if !bytes.Equal(w.ClientConfig.CABundle, secret.Data["ca.crt"]) {
			t.Errorf("%s: the upgrade made the CA bundle %q", w.Name, w.ClientConfig.CABundle)
		}
	}
	stillAccepted, err := f.Client().CoreV1().ConfigMaps(namespace).Get(ctx, webhook.AcceptedConfigMap, metav1.GetOptions{})
	testkit.Must(t, err)
	if !reflect.DeepEqual(accepted.Data, stillAccepted.Data) || !reflect.DeepEqual(accepted.Annotations, stillAccepted.Annotations) {
		t.Errorf("the upgrade made the accepted policy %v, %v", stillAccepted.Annotations, stillAccepted.Data)
	}
	for _, name := range []string{"ampbridge-sync", "ampbridge-breaker"} {
		state, err := f.Client().CoreV1().ConfigMaps(namespace).Get(ctx, name, metav1.GetOptions{})
		testkit.Must(t, err)
		if state.Data["key"] != "value" {
			t.Errorf("the upgrade made ConfigMap %s %v", name, state.Data)
		}
	}
	held, err := f.Client().CoordinationV1().Leases(namespace).Get(ctx, "ampbridge-sync", metav1.GetOptions{})
	testkit.Must(t, err)
	if diff := cmp.Diff(lease.Spec, held.Spec); diff != "" || lease.Spec.HolderIdentity == nil {
		t.Errorf("the upgrade changed the Lease: %s", diff)
	}
	policy, err := f.Client().CoreV1().ConfigMaps(namespace).Get(ctx, "ampbridge-policy", metav1.GetOptions{})
	testkit.Must(t, err)
	if !strings.Contains(policy.Data["policy.yaml"], "paused: true") {
		t.Errorf("the upgrade left the policy as it was:\n%s", policy.Data["policy.yaml"])
	}
	after, err := f.Client().AppsV1().Deployments(namespace).Get(ctx, "ampbridge-webhook", metav1.GetOptions{})
	testkit.Must(t, err)
	if diff := cmp.Diff(deployment.Spec.Template, after.Spec.Template); diff != "" {
		t.Errorf("a change of the policy rolls the webhook, -before +after:\n%s", diff)
	}
	for _, mode := range []string{"certManager", "selfManaged"} {
		f.upgrade(t, "-f", minimal, "--set", "certificates.mode="+mode)
	}
}

func (f *fixture) testUninstall(t *testing.T, before map[string]string) {
	f.helm(t, "uninstall", release, "--namespace", namespace)
	_, err := f.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Get(
		t.Context(),
		registration.DefaultName,
		metav1.GetOptions{},
	)
	if !apierrors.IsNotFound(err) {
		t.Errorf("the webhook's registration is left behind: %v", err)
	}
	// Pods and ReplicaSets go with the garbage collector.
	f.eventually(t, before)
}

// eventually waits until the cluster holds exactly that, see [fixture.everything].
func (f *fixture) eventually(t *testing.T, everything map[string]string) {
	t.Helper()
	testkit.EventuallyEmpty(t, func() string { return cmp.Diff(everything, f.everything(t)) })
}

// settled is everything once the controllers have finished what a start brings.
func (f *fixture) settled(t *testing.T) map[string]string {
	t.Helper()
	before := f.everything(t)
	testkit.EventuallyEmpty(t, func() string {
		time.Sleep(time.Second)
		now := f.everything(t)
		difference := cmp.Diff(before, now)
		before = now
		return difference
	})
	return before
}

package kinds_test

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/webhooktest"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// start runs a hand-written pod.
func (f *fixture) start(t *testing.T, name, tag string, ports env.Ports, change func(*corev1.Pod)) (*subject, made) {
	t.Helper()
	m, err := hand(change)(f, asked{TB: t, name: name, tag: tag, config: configuration("first-"+name, ports), ports: ports})
	testkit.Must(t, err)
	return f.run(t, ports.Move(m.pod)), m
}

// newPolicy writes a policy and waits until the webhook has read it, which happens with a short delay.
func (f *fixture) newPolicy(t *testing.T, text string) {
	t.Helper()
	pods := f.Cluster.Client().CoreV1().Pods(env.Namespace)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "which-policy"}, Spec: webhooktest.Prometheus(env.ServiceAccount),
	}
	revision := func() string {
		admitted, err := pods.Create(t.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		testkit.Must(t, err)
		return injection(t, admitted).Policy
	}
	before := revision()
	testkit.Must(t, f.SetPolicy(text))
	testkit.EventuallyEmpty(t, func() string {
		if revision() != before {
			return ""
		}
		log, err := f.WebhookLog()
		return fmt.Sprintf("the webhook does not take the new policy (%v)\n%s", err, log)
	})
}

// injection returns what the webhook has noted in an injected pod.
func injection(t *testing.T, pod *corev1.Pod) (mark inject.Injected) {
	t.Helper()
	testkit.DecodeJSON(t, pod.Annotations[inject.AnnotationInjected], &mark)
	return mark
}

// twoAccounts writes to workspaces of two accounts. At first one account denies access, which must not affect
// the other. It recovers without a restart.
func twoAccounts(t *testing.T, f *fixture) {
	ctx := t.Context()
	second := f.Cloud.Account("444455556666")
	workspace := second.CreateWorkspace(env.Region, "second")
	if _, err := second.PutManagedPolicy(
		"ampbridge-boundary",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"aps:RemoteWrite","Resource":"*"}]}`,
	); err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer(
		"\ngrants:",
		"\n- name: second\n  workspace: "+workspace.ARN+"\n  endpoint: "+f.Cloud.URL+"\n  remoteWrite:\n    queueConfig: "+
			"{batchSendDeadline: 1s}\ngrants:",
		"destinations: [central]",
		"destinations: [central, second]",
	).Replace(policyOf(f.Env))
	f.newPolicy(t, text)
	ports, err := env.NewPorts()
	testkit.Must(t, err)
	p, _ := f.start(t, "two-accounts", current, ports, feature)
	p.arrives("first-two-accounts")
	// A destination without a session at the start uses the relay for this run. Its samples wait in
	// Prometheus's WAL.
	if loaded := env.LoadedConfig(ctx, p.Object); !strings.Contains(loaded, "profile: ampbridge-central") ||
		strings.Contains(loaded, "profile: ampbridge-second") || !strings.Contains(loaded, "name: ampbridge-second") {
		t.Errorf("want sigv4 for central, and the relay for the destination without a session:\n%s", loaded)
	}

	// The second account's administrator runs sync there. Sync cannot change the first account's roles, and
	// reports that with its exit status.
	first := f.Account
	f.Account = second
	out, err := f.Sync(ctx)
	f.Account = first
	if err == nil || !strings.Contains(out, "the credentials are of account "+second.ID) {
		t.Fatalf("sync with the second account's keys: %v\n%s", err, out)
	}
	p.arrivesIn(workspace.ID, "first-two-accounts")
	p.unharmed()
	for _, w := range f.Cloud.Writes(workspace.ID) {
		if !w.Stored() {
			t.Errorf("a write was refused: %d %s", w.Status, w.Reason)
		}
	}
}

// newerField tests a policy with a configuration field that Prometheus supports since 2.52. Older versions
// get a configuration without the field, and newer ones get it.
func newerField(t *testing.T, f *fixture) {
	f.newPolicy(t, strings.Replace(policyOf(f.Env), "batchSendDeadline: 1s,", "batchSendDeadline: 1s, sampleAgeLimit: 1h,", 1))
	const field = "sample_age_limit: 1h"
	for _, tag := range []string{"v2.42.0", sdkV1, current} {
		t.Run(tag, func(t *testing.T) {
			t.Parallel()
			ports, err := env.NewPorts()
			testkit.Must(t, err)
			name := "newer-" + strings.ReplaceAll(tag, ".", "-")
			p, m := f.start(t, name, tag, ports, flagAndValue)
			p.arrives("first-" + name)
			knows := tag != "v2.42.0"
			if knows {
				p.eventually("the field", func() bool { return strings.Contains(env.LoadedConfig(t.Context(), p.Object), field) })
			}
			lag := p.changes(m, configuration("second-"+name, ports), "second-"+name)
			p.arrives("second-" + name)
			if loaded := env.LoadedConfig(t.Context(), p.Object); strings.Contains(loaded, field) != knows {
				t.Errorf("%s in the configuration: %t, want %t", field, !knows, knows)
			}
			p.unharmed()
			t.Logf("%-8s has the field: %t; change live after %.1f s", tag, knows, lag.Seconds())
		})
	}
}

package rotation_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

func TestRotation(t *testing.T) {
	f := newRegistered(t)
	registered := f.configuration(t, registration.DefaultName)
	replicas := []*replica{f.start(t, "first-0", false), f.start(t, "first-1", true)}
	f.eventuallyInjected(t)
	t.Run("no admission is lost", func(t *testing.T) { f.testUnderLoad(t, replicas) })
	f.wantOnlyBundles(t, registered, f.configuration(t, registration.DefaultName))
}

// Prometheus pods are created without a pause while the replicas are replaced twice, as in a Deployment, and
// the certificate is rotated twice. One of two replicas always gets changes of the Secret late, so for a
// while they serve different certificates.
func (f *fixture) testUnderLoad(t *testing.T, replicas []*replica) {
	const want = 500
	failed, called := f.count(t, failures), f.count(t, calls)
	ctx, leave := context.WithCancel(t.Context())
	var created, injected atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil || created.Load() < want {
				ok, err := f.admit(t.Context(), false)
				if err != nil {
					t.Errorf("create a pod: %v", err)
					return
				}
				created.Add(1)
				if ok {
					injected.Add(1)
				} else {
					t.Errorf("%s: a pod is not injected", time.Now().Format(time.TimeOnly))
				}
				time.Sleep(200 * time.Millisecond)
			}
		})
	}

	handshakes := 0
	clients.Go(func() { handshakes = f.probe(ctx, t) })
	for round := range 2 {
		var rotation sync.WaitGroup
		rotation.Go(func() {
			before := f.secret(t, secret)
			f.rotate(t, secret)
			testkit.Eventually(t, "the certificate is rotated", func() bool {
				now := f.secret(t, secret)
				return !bytes.Equal(now.Data["tls.crt"], before.Data["tls.crt"]) && f.stable(t, secret, registration.DefaultName)
			})
		})
		for i, old := range replicas {
			replicas[i] = f.start(t, fmt.Sprintf("round-%d-%d", round, i), i == 1)
			f.end(t, old)
		}
		rotation.Wait()
	}
	leave()
	clients.Wait()

	t.Logf(
		"%d pods created, %d injected, %d calls, %d failed; %d handshakes",
		created.Load(),
		injected.Load(),
		f.count(t, calls)-called,
		f.count(t, failures)-failed,
		handshakes,
	)
	if created.Load() < want || injected.Load() != created.Load() {
		t.Errorf("injected: got %d of %d", injected.Load(), created.Load())
	}
	if got := f.count(t, failures) - failed; got != 0 {
		t.Errorf("calls that failed, as the API server counts them: got %d, want 0", got)
	}
	if handshakes < want {
		t.Errorf("handshakes: got %d, want at least %d", handshakes, want)
	}
	// Check that the counters count at all.
	if got := f.count(t, calls) - called; got < int(created.Load()) {
		t.Errorf("calls: got %d, want at least %d", got, created.Load())
	}
	for _, r := range replicas {
		f.end(t, r)
	}
	ok, err := f.admit(t.Context(), true)
	testkit.Must(t, err)
	if ok || f.count(t, failures) == failed {
		t.Errorf("without a replica: injected %v, %d failures counted", ok, f.count(t, failures)-failed)
	}
}

// Changes of users and tools to the Secret and to the configuration are repaired.
func TestRepaired(t *testing.T) {
	f := newRegistered(t)
	r := f.start(t, "a", false)
	f.eventuallyInjected(t)
	registered := f.configuration(t, registration.DefaultName)
	testkit.Eventually(t, "stable", func() bool { return f.stable(t, secret, registration.DefaultName) })
	first := f.secret(t, secret)

	t.Run("the bundle is stripped", func(t *testing.T) {
		object := f.configuration(t, registration.DefaultName)
		for i := range object.Webhooks {
			object.Webhooks[i].ClientConfig.CABundle = nil
		}
		_, err := f.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Update(t.Context(), object, metav1.UpdateOptions{})
		testkit.Must(t, err)
		testkit.Eventually(t, "the bundle is back", func() bool { return f.stable(t, secret, registration.DefaultName) })
		f.eventuallyInjected(t)
	})
	t.Run("the Secret is deleted", func(t *testing.T) {
		testkit.Must(t, f.Client().CoreV1().Secrets(home).Delete(t.Context(), secret, metav1.DeleteOptions{}))
		testkit.Eventually(t, "the Secret is back", func() bool {
			s := f.secret(t, secret)
			return s != nil && s.UID != first.UID && len(s.Data) > 0
		})
		// The new Secret has the certificate that is served, so replicas and configuration always agreed.
		if s := f.secret(t, secret); !bytes.Equal(s.Data["tls.crt"], first.Data["tls.crt"]) {
			t.Error("the Secret has another certificate than before")
		}
		f.eventuallyInjected(t)
	})
	t.Run("the Secret is broken", func(t *testing.T) {
		s := f.secret(t, secret)
		s.Data["tls.crt"] = []byte("rubbish")
		_, err := f.Client().CoreV1().Secrets(home).Update(t.Context(), s, metav1.UpdateOptions{})
		testkit.Must(t, err)
		testkit.Eventually(
			t,
			"the Secret is repaired",
			func() bool { return bytes.Equal(f.secret(t, secret).Data["tls.crt"], first.Data["tls.crt"]) },
		)
	})
	t.Run("the configuration is deleted", func(t *testing.T) {
		client := f.Client().AdmissionregistrationV1().MutatingWebhookConfigurations()
		testkit.Must(t, client.Delete(t.Context(), registration.DefaultName, metav1.DeleteOptions{}))
		testkit.Eventually(t, "not ready, with the reason", func() bool {
			err := r.ready()
			return err != nil && strings.Contains(err.Error(), "there is no MutatingWebhookConfiguration ampbridge")
		})
		object := registered.DeepCopy()
		object.ResourceVersion, object.UID = "", ""
		for i := range object.Webhooks {
			object.Webhooks[i].ClientConfig.CABundle = nil
		}
		_, err := client.Create(t.Context(), object, metav1.CreateOptions{})
		testkit.Must(t, err)
		testkit.Eventually(t, "ready", func() bool { return r.ready() == nil })
		f.eventuallyInjected(t)
	})
	t.Run("another program removes the bundle repeatedly", func(t *testing.T) {
		client := f.Client().AdmissionregistrationV1().MutatingWebhookConfigurations()
		before := f.configuration(t, registration.DefaultName).Generation
		began := time.Now()
		for range 3 {
			_, err := client.Patch(
				t.Context(),
				registration.DefaultName,
				"application/json-patch+json",
				[]byte(`[{"op":"remove","path":"/webhooks/0/clientConfig/caBundle"}]`),
				metav1.PatchOptions{},
			)
			testkit.Must(t, err)
			testkit.Eventually(t, "the bundle is back", func() bool { return f.stable(t, secret, registration.DefaultName) })
		}
		// A conflict with another program must not cause many calls to the API server.
		if took := time.Since(began); took < 2*time.Second {
			t.Errorf("three times in %s", took)
		}
		if got := f.configuration(t, registration.DefaultName).Generation - before; got != 6 {
			t.Errorf("changes: got %d, want 6", got)
		}
	})
	t.Run("all of it at once, with a new replica", func(t *testing.T) {
		f.end(t, r)
		testkit.Must(t, f.Client().CoreV1().Secrets(home).Delete(t.Context(), secret, metav1.DeleteOptions{}))
		f.start(t, "b", false)
		f.eventuallyInjected(t)
		testkit.Eventually(t, "stable", func() bool { return f.stable(t, secret, registration.DefaultName) })
		if s := f.secret(t, secret); bytes.Equal(s.Data["tls.crt"], first.Data["tls.crt"]) {
			t.Error("the Secret has the old certificate, which no replica has")
		}
	})
	f.wantOnlyBundles(t, registered, f.configuration(t, registration.DefaultName))

	t.Run("everything is removed, as by helm uninstall", func(t *testing.T) {
		testkit.Must(
			t,
			f.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(
				t.Context(),
				registration.DefaultName,
				metav1.DeleteOptions{},
			),
		)
		testkit.Must(t, f.Client().CoreV1().Secrets(home).Delete(t.Context(), secret, metav1.DeleteOptions{}))
		time.Sleep(3 * timing.Resync)
		if s := f.secret(t, secret); s != nil {
			t.Error("the remaining replica has created the Secret again")
		}
	})
}

// The webhook's identity can create its own Secret and no other.
func TestRightsAreNarrow(t *testing.T) {
	f := newRegistered(t)
	f.register(t, "another", "another")
	client := cluster.ClientFor(t, f.config)
	other := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "other"}}
	_, err := f.Client().CoreV1().Secrets(home).Create(t.Context(), other, metav1.CreateOptions{})
	testkit.Must(t, err)
	nothing := []byte(`{"metadata":{"labels":{"touched":"yes"}}}`)
	ctx, secrets, configurations := t.Context(), client.CoreV1().Secrets(
		home,
	), client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	applied := func(name string) error {
		_, err := secrets.Patch(
			ctx,
			name,
			"application/apply-patch+yaml",
			fmt.Appendf(nil, `{"apiVersion":"v1","kind":"Secret","metadata":{"name":%q}}`, name),
			metav1.PatchOptions{FieldManager: "test"},
		)
		return err
	}
	for what, try := range map[string]func() error{
		"create a Secret": func() error {
			_, err := secrets.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "new"}}, metav1.CreateOptions{})
			return err
		},
		"create its Secret by POST": func() error {
			_, err := secrets.Create(ctx, &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: secret}}, metav1.CreateOptions{})
			return err
		},
		"apply a new Secret":   func() error { return applied("new") },
		"apply another Secret": func() error { return applied("other") },
		"read another Secret":  func() error { _, err := secrets.Get(ctx, "other", metav1.GetOptions{}); return err },
		"list Secrets":         func() error { _, err := secrets.List(ctx, metav1.ListOptions{}); return err },
		"watch Secrets":        func() error { _, err := secrets.Watch(ctx, metav1.ListOptions{}); return err },
		"delete its Secret":    func() error { return secrets.Delete(ctx, secret, metav1.DeleteOptions{}) },
		"patch another configuration": func() error {
			_, err := configurations.Patch(ctx, "another", "application/merge-patch+json", nothing, metav1.PatchOptions{})
			return err
		},
		"list configurations":      func() error { _, err := configurations.List(ctx, metav1.ListOptions{}); return err },
		"delete its configuration": func() error { return configurations.Delete(ctx, registration.DefaultName, metav1.DeleteOptions{}) },
	} {
		if err := try(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v, want forbidden", what, err)
		}
	}
	testkit.Must(t, applied(secret))
}

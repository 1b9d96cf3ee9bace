package admission_test

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/webhooktest"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// writer returns a pod of a program that writes to AMP and is not Prometheus.
func writer(account, containers string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: account + "-"},
		Spec: corev1.PodSpec{
			ServiceAccountName: account,
			Containers:         []corev1.Container{{Name: "main", Image: "example.com/" + account}, {Name: "other", Image: "example.com/other"}},
		},
	}
	if containers != "" {
		pod.Annotations = map[string]string{policy.AnnotationContainer: containers}
	}
	return pod
}

// The modes identity and relay with a real API server. The API server's own plugins mount an API token into
// each container without a mount at that path. The sidecar must not get the token.
func (f *fixture) testModes(t *testing.T) {
	const namespace, annotated = "test-modes", "test-modes-annotated"
	f.namespace(t, namespace, policy.InjectionEnabled, map[string]string{"pod-security.kubernetes.io/warn": "restricted"})
	f.namespace(t, annotated, policy.InjectionAnnotated, nil)
	for _, name := range []string{"otel", "vmagent"} {
		f.account(t, namespace, name, nil)
		f.account(t, annotated, name, nil)
	}

	identity := f.pod(t, namespace, writer("otel", "main"))
	if webhooktest.Injected(identity) || len(identity.Spec.InitContainers) > 0 {
		t.Error("mode identity has a sidecar")
	}
	main, other := identity.Spec.Containers[0], identity.Spec.Containers[1]
	if !setsEnv(main, "AWS_ROLE_ARN") || !setsEnv(main, "AWS_WEB_IDENTITY_TOKEN_FILE") || !mounts(main, sidecarconfig.TokenDir) {
		t.Errorf("container main: %v %v", main.Env, main.VolumeMounts)
	}
	if len(other.Env) > 0 || mounts(other, sidecarconfig.TokenDir) {
		t.Errorf("container other: %v %v", other.Env, other.VolumeMounts)
	}

	relay := f.pod(t, namespace, writer("vmagent", "main"))
	if !webhooktest.Injected(relay) {
		t.Fatal("mode relay has no sidecar")
	}
	if main := relay.Spec.Containers[0]; !setsEnv(main, sidecarconfig.WriteURLVariable) || setsEnv(main, "AWS_ROLE_ARN") ||
		!mounts(main, sidecarconfig.CredentialsDir) || mounts(main, sidecarconfig.TokenDir) {
		t.Errorf("container main: %v %v", main.Env, main.VolumeMounts)
	}
	for _, m := range relay.Spec.InitContainers[0].VolumeMounts {
		if m.MountPath == "/var/run/secrets/kubernetes.io/serviceaccount" && m.Name != sidecarconfig.VolumeNoAPIToken {
			t.Errorf("the sidecar has the volume %s", m.Name)
		}
	}

	for _, row := range []struct {
		name, namespace, account, containers string
		change                               func(*corev1.Pod)
		want                                 policy.Reason
	}{
		{"no such container", namespace, "otel", "mian", nil, inject.NoSuchContainer},
		{"twice", namespace, "vmagent", "main,main", nil, inject.NoSuchContainer},
		{"a foreign identity", namespace, "otel", "main", func(p *corev1.Pod) {
			p.Spec.Containers[0].Env = []corev1.EnvVar{{Name: "AWS_ROLE_ARN", Value: "arn:aws:iam::111122223333:role/own"}}
		}, inject.ForeignIdentity},
		{"annotated namespace", annotated, "otel", "main", nil, policy.NotAsked},
		{"annotated namespace, asked", annotated, "otel", "main", func(p *corev1.Pod) {
			p.Annotations[policy.AnnotationInject] = "true"
		}, policy.Granted},
		{"not granted", namespace, "default", "main", nil, policy.NotGranted},
	} {
		t.Run(row.name, func(t *testing.T) {
			pod := writer(row.account, row.containers)
			if row.change != nil {
				row.change(pod)
			}
			created := f.pod(t, row.namespace, pod)
			// For a pod without a name, the webhook logs the prefix of the name.
			_, marked := created.Annotations[inject.AnnotationInjected]
			if want := row.want == policy.Granted; marked != want {
				t.Errorf("injected: got %t, want %t", marked, want)
			}
			testkit.Eventually(t, "the webhook logs "+string(row.want), func() bool { return f.decided(t, row.namespace, row.want) })
		})
	}

	// Pods of the same service accounts that name no container must cause no call.
	before := f.podCalls(t)
	for range 10 {
		f.pod(t, namespace, writer("otel", ""))
		f.pod(t, namespace, writer("vmagent", ""))
	}
	if got := f.podCalls(t) - before; got != 0 {
		t.Errorf("20 pods without the annotation: got %d calls, want 0", got)
	}
}

func setsEnv(c corev1.Container, name string) bool {
	return slices.ContainsFunc(c.Env, func(v corev1.EnvVar) bool { return v.Name == name })
}

func mounts(c corev1.Container, at string) bool {
	return slices.ContainsFunc(c.VolumeMounts, func(m corev1.VolumeMount) bool { return m.MountPath == at })
}

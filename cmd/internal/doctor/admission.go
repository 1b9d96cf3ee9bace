package doctor

import (
	"context"
	"strings"
	"sync"

	"github.com/go-json-experiment/json"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/ampbridge/ampbridge/cmd/internal/installation"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// warnings collects what the API server says beside its answer: that is how the
// webhook tells why it skipped.
type warnings struct {
	mu   sync.Mutex
	said []string
}

// HandleWarningHeader implements [rest.WarningHandler].
func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.said = append(w.said, text)
}

// dryRun creates a Prometheus pod that is admitted and not stored.
func (x *runner) dryRun(ctx context.Context, s *subject) check.Finding {
	heard := &warnings{}
	config := rest.CopyConfig(x.cluster.config)
	config.WarningHandler = heard
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return skipped("%v", err)
	}
	pod, err := client.CoreV1().Pods(s.Namespace).Create(ctx, samplePod(s.Subject, x.policy.Token.Source), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	said := strings.Join(heard.said, "; ")
	switch {
	// Admission plugins forbid too, in their own words.
	case forbidden(err) && strings.Contains(err.Error(), "cannot create resource"):
		return skipped("you may not create pods in %s, not in a dry run either: %v", s.Namespace, err)
	case apierrors.IsBadRequest(err) && strings.Contains(err.Error(), "dry run"):
		return skipped("another webhook does not take dry runs: %v", err)
	case err != nil:
		return failed(check.NewFix("let the namespace admit a pod with the service account: this one is refused with or without ampbridge"), "the pod is refused: %v", err)
	}
	if mark, injected := pod.Annotations[inject.AnnotationInjected]; injected {
		var m inject.Injected
		if err := json.Unmarshal([]byte(mark), &m); err != nil {
			return skipped("injected, with a mark that cannot be read: %v", err)
		}
		return passed("injected, for %s", strings.Join(m.Destinations, ", "))
	}
	if said != "" {
		return failed(check.NewFix("the warning says what to do; the webhook follows a changed policy within a minute or so"), "left as it was: %s", said)
	}
	return failed(check.NewFix("the API server did not reach the webhook, or the webhook failed: both fail open; look at the webhook's log, and whether the API server may connect to its pods (firewall, NetworkPolicy)",
		check.Command{"kubectl", "logs", "--namespace", x.System, "--selector", installation.Webhook, "--tail=50"}),
		"left as it was, without a word")
}

// samplePod is what the prometheus-community chart makes, as small as it can
// be, and fit for the restricted Pod Security Standard and for quotas.
func samplePod(s policy.Subject, tokenSource string) *corev1.Pod {
	labels := map[string]string{"app.kubernetes.io/name": "prometheus", "app.kubernetes.io/component": "server"}
	if tokenSource == policy.TokenSourceAzure {
		labels["azure.workload.identity/use"] = "true" // asks Azure's webhook for its token
	}
	small := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("32Mi")}
	container := func(name, image string, args ...string) corev1.Container {
		return corev1.Container{
			Name: name, Image: image, Args: args,
			Resources: corev1.ResourceRequirements{Requests: small, Limits: small},
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: new(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			},
			VolumeMounts: []corev1.VolumeMount{{Name: "config-volume", MountPath: "/etc/config"}},
		}
	}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			GenerateName: "ampbridge-doctor-", Namespace: s.Namespace,
			Labels:      labels,
			Annotations: map[string]string{policy.AnnotationInject: "true"},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: s.ServiceAccount,
			SecurityContext: &corev1.PodSecurityContext{
				RunAsUser: new(int64(65534)), RunAsGroup: new(int64(65534)), RunAsNonRoot: new(true),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{
				container("prometheus-server-configmap-reload", "quay.io/prometheus-operator/prometheus-config-reloader", "--watched-dir=/etc/config", "--reload-url=http://127.0.0.1:9090/-/reload"),
				container("prometheus-server", "quay.io/prometheus/prometheus", "--config.file=/etc/config/prometheus.yml", "--web.enable-lifecycle"),
			},
			Volumes: []corev1.Volume{{Name: "config-volume", VolumeSource: corev1.VolumeSource{
				ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "ampbridge-doctor"}},
			}}},
		},
	}
}

// tokenSeconds is the shortest life that Kubernetes gives a token.
const tokenSeconds = 600

// mint has the API server make a token, as the kubelet does for a pod.
func (x *runner) mint(ctx context.Context, s *subject) check.Finding {
	answer, err := x.cluster.client.CoreV1().ServiceAccounts(s.Namespace).CreateToken(ctx, s.ServiceAccount, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{x.policy.Token.Audience}, ExpirationSeconds: new(int64(tokenSeconds))},
	}, metav1.CreateOptions{})
	switch {
	case forbidden(err):
		return skipped("you may not have tokens of %s/%s made (create serviceaccounts/token)", s.Namespace, s.ServiceAccount)
	case err != nil:
		return failed(check.NewFix("look at the API server"), "the API server makes no token: %v", err)
	}
	claims, err := check.ReadClaims(answer.Status.Token)
	if err != nil {
		return failed(check.NewFix("look at the API server"), "%v", err)
	}
	f := check.Token(claims, check.WantedToken{Issuer: x.issuer, Subject: s.String(), Audience: x.policy.Token.Audience, Source: "minted by TokenRequest"}, x.Now())
	if f.State == check.Pass {
		s.token, s.claims = answer.Status.Token, claims
	}
	if x.issuer == "" {
		x.issuer = claims.Issuer // where the API server's document cannot be read
	}
	return f
}

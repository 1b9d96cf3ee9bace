package doctor

import (
	"context"
	"fmt"
	"regexp"
	"slices"
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

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/webhook/audit"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// warnings collects the warnings of the API server. The webhook uses them to
// report why it skipped a pod.
type warnings struct {
	mu    sync.Mutex
	texts []string
}

// HandleWarningHeader implements [rest.WarningHandler].
func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.texts = append(w.texts, text)
}

// dryRun creates a Prometheus pod in a dry run, and judges whether it is admitted and injected.
func (x *runner) dryRun(ctx context.Context, s *subject) check.Finding {
	collected := &warnings{}
	config := rest.CopyConfig(x.cluster.config)
	config.WarningHandler = collected
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return skipped("%v", err)
	}
	create := func(annotation string) (*corev1.Pod, error) {
		pod := samplePod(s.Subject, x.policy.Token.Source)
		s.ask(x.policy, pod)
		pod.Annotations[policy.AnnotationInject] = annotation
		return client.CoreV1().Pods(s.Namespace).Create(ctx, pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	}
	pod, err := create("true")
	warning := strings.Join(collected.texts, "; ")
	switch {
	// Admission plugins also answer Forbidden, with other messages.
	case forbidden(err) && strings.Contains(err.Error(), "cannot create resource"):
		return skipped("you may not create pods in %s, not even in a dry run: %v", s.Namespace, err)
	case apierrors.IsBadRequest(err) && strings.Contains(err.Error(), "dry run"):
		return skipped("another webhook does not support dry runs: %v", err)
	case err != nil && s.entry() != "" && strings.Contains(err.Error(), s.entry()):
		return failed(x.reachWebhook(), "the pod is refused, because the webhook does not answer the API server: %v", err)
	case err != nil:
		return x.refusedSample(ctx, s, err, create)
	}
	if annotation, injected := pod.Annotations[inject.AnnotationInjected]; injected {
		var m inject.Injected
		if err := json.Unmarshal([]byte(annotation), &m); err != nil {
			return skipped("injected, with an annotation that cannot be read: %v", err)
		}
		if change := altered(pod, m, x.policy.Token); change != "" {
			return failed(fixAltered, "the pod was injected, and then another webhook changed it: %s", change)
		}
		if missing := x.missing(s, m); len(missing) > 0 {
			return failed(check.NewFix("wait about a minute, until the webhook has read the changed policy; if it does not read it, see its log",
				x.reachWebhook().Commands...), "injected, for %s, and not for %s: the webhook has another version of the policy",
				strings.Join(m.Destinations, ", "), strings.Join(missing, ", "))
		}
		return passed("injected, for %s", strings.Join(m.Destinations, ", "))
	}
	if doubt, found := x.checks.Doubt(check.Injection, s.about); found && warning == "" {
		return failed(*doubt.Fix, "the pod was not injected, and the webhook gave no reason; %s", doubt.Message)
	}
	if warning != "" {
		fix := check.NewFix("follow the webhook's warning; the webhook applies a changed policy within about a minute")
		if other := x.otherRevision(ctx); other != "" {
			fix = check.NewFix("apply this policy to the cluster, or run doctor without --policy: " + other)
		}
		return failed(fix, "the pod was not injected: %s", warning)
	}
	return failed(x.reachWebhook(), "the pod was not injected, and the webhook gave no reason")
}

// otherRevision returns the revisions of the installed policy and of the file; empty: they are
// equal, or the installed policy cannot be read.
func (x *runner) otherRevision(ctx context.Context) string {
	found, err := kube.Policies(ctx, x.cluster.client, x.System)
	if x.source.file == "" || err != nil || len(found) != 1 || revision([]byte(found[0].Text)) == x.checks.Head.PolicyRevision {
		return ""
	}
	return fmt.Sprintf("the webhook has revision %s of ConfigMap %s/%s, and %s is revision %s",
		revision([]byte(found[0].Text)), x.System, found[0].ConfigMap, x.source.file, x.checks.Head.PolicyRevision)
}

// reachWebhook returns the fix for a webhook that the API server cannot reach.
func (x *runner) reachWebhook() check.Fix {
	return check.NewFix(
		"let the API server reach the webhook: check the webhook's log, and whether the API server may connect to its pods "+
			"(firewall, NetworkPolicy)",
		check.Command{"kubectl", "logs", "--namespace", x.System, "--selector", kube.WebhookSelector, "--tail=50"},
	)
}

// silentWebhook matches the API server's error about a webhook that does not answer.
var silentWebhook = regexp.MustCompile(`failed calling webhook "([^"]+)"`)

// refusedSample judges the refusal of doctor's sample pod. create creates it in a dry run,
// with a value of the annotation that asks for the injection.
func (x *runner) refusedSample(
	ctx context.Context,
	s *subject,
	refusal error,
	create func(annotation string) (*corev1.Pod, error),
) check.Finding {
	_, plain := create("false")
	if by, text, plausible := audit.Blame(refusal.Error()); plausible && plain == nil {
		return failed(fitSidecar(), "the pod is refused with the sidecar, and admitted without it: %s refuses it: %s", by, text)
	}
	if m := silentWebhook.FindStringSubmatch(refusal.Error()); m != nil {
		return failed(check.NewFix("let the webhook "+m[1]+", which is not ampbridge's, answer the API server, or remove its registration"),
			"the pod is refused: %v", refusal)
	}
	fix := check.NewFix("let the namespace admit a pod with the service account: this one is refused, with or without ampbridge")
	pods, err := x.prometheusPods(ctx, s)
	running := err == nil && slices.ContainsFunc(pods, func(p *runningPod) bool { return p.mark.Policy != "" })
	if plain != nil && running {
		// The user's own pods are admitted and injected, so only the sample breaks a rule.
		f := warned(fix, "doctor's sample pod is refused, with or without ampbridge, and the next pod may be: %v", refusal)
		f.Proof = check.Pods
		return f
	}
	return failed(fix, "the pod is refused: %v", refusal)
}

// missing returns the destinations that an injected pod of mode prometheus lacks. With the
// other modes a pod has the one destination that it asks for.
func (x *runner) missing(s *subject, m inject.Injected) []string {
	if m.Mode != "" {
		return nil
	}
	granted, _ := x.policy.EntitledAs(s.Subject, policy.ModePrometheus)
	var names []string
	for _, d := range granted.Destinations {
		kept := slices.ContainsFunc(s.destinations, func(k policy.Destination) bool { return k.Name == d.Name })
		if kept && !slices.Contains(m.Destinations, d.Name) {
			names = append(names, d.Name)
		}
	}
	return names
}

var fixAltered = check.NewFix("exclude the container " + sidecarconfig.ContainerName +
	", its volumes ampbridge-*, or the namespace from that " +
	"webhook, or update it: an old one drops fields that it does not know, such as restartPolicy of an init container")

// altered returns which part of ampbridge's changes an injected pod lacks; empty: none.
func altered(pod *corev1.Pod, m inject.Injected, token policy.Token) string {
	for _, v := range pod.Spec.Volumes {
		if v.Name != sidecarconfig.VolumeToken || v.Projected == nil || token.Source == policy.TokenSourceAzure {
			continue
		}
		for _, source := range v.Projected.Sources {
			if t := source.ServiceAccountToken; t != nil && t.Audience != token.Audience {
				return fmt.Sprintf("the audience of the volume %s is %q", v.Name, t.Audience)
			}
		}
	}
	if m.Mode == policy.ModeIdentity {
		return ""
	}
	i := slices.IndexFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == sidecarconfig.ContainerName })
	if i < 0 {
		return "the container " + sidecarconfig.ContainerName + " is missing"
	}
	sidecar := pod.Spec.InitContainers[i]
	if sidecar.RestartPolicy == nil || *sidecar.RestartPolicy != corev1.ContainerRestartPolicyAlways {
		return "the container " + sidecarconfig.ContainerName + " has no restartPolicy: Always, so the pod would wait for it for ever"
	}
	if sidecarConfigOf(pod) == nil {
		return "the container " + sidecarconfig.ContainerName + " lacks the variable " + sidecarconfig.Variable
	}
	for _, mount := range sidecar.VolumeMounts {
		if !slices.ContainsFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name }) {
			return "the volume " + mount.Name + " is missing"
		}
	}
	return ""
}

// ask adds the annotations that a pod of the service account needs. With mode prometheus it
// needs none. With the other modes a pod names its containers and one destination.
func (s *subject) ask(p *policy.Policy, pod *corev1.Pod) {
	for _, mode := range []policy.Mode{policy.ModePrometheus, policy.ModeIdentity, policy.ModeRelay} {
		granted, ok := p.EntitledAs(s.Subject, mode)
		if !ok {
			continue
		}
		if mode != policy.ModePrometheus {
			pod.Annotations[policy.AnnotationContainer] = sampleContainer
			pod.Annotations[policy.AnnotationMode] = string(mode)
			pod.Annotations[policy.AnnotationDestination] = granted.Destinations[0].Name
			for _, d := range granted.Destinations {
				// The service account may have opted out of the others.
				if slices.ContainsFunc(s.destinations, func(kept policy.Destination) bool { return kept.Name == d.Name }) {
					pod.Annotations[policy.AnnotationDestination] = d.Name
					break
				}
			}
		}
		return
	}
}

// sampleContainer is the Prometheus container of [samplePod].
const sampleContainer = "prometheus-server"

// samplePod returns a small pod like that of the prometheus-community chart. It
// meets the restricted Pod Security Standard and sets resources for quotas.
func samplePod(s policy.Subject, tokenSource string) *corev1.Pod {
	labels := map[string]string{"app.kubernetes.io/name": "prometheus", "app.kubernetes.io/component": "server"}
	if tokenSource == policy.TokenSourceAzure {
		labels["azure.workload.identity/use"] = "true" // lets Azure's webhook add its token
	}
	small := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("32Mi")}
	container := func(name, image string, args ...string) corev1.Container {
		return corev1.Container{
			Name: name, Image: image, Args: args,
			Resources: corev1.ResourceRequirements{Requests: small, Limits: small},
			SecurityContext: &corev1.SecurityContext{
				AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
				Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
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
				container(
					"prometheus-server-configmap-reload",
					"quay.io/prometheus-operator/prometheus-config-reloader:v0.86.1",
					"--watched-dir=/etc/config",
					"--reload-url=http://127.0.0.1:9090/-/reload",
				),
				container(
					sampleContainer,
					"quay.io/prometheus/prometheus:v3.7.3",
					"--config.file=/etc/config/prometheus.yml",
					"--web.enable-lifecycle",
				),
			},
			Volumes: []corev1.Volume{{Name: "config-volume", VolumeSource: corev1.VolumeSource{
				ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "ampbridge-doctor"}},
			}}},
		},
	}
}

// tokenSeconds is the shortest lifetime of a token in Kubernetes.
const tokenSeconds = 600

// mintToken requests a token from the API server, as the kubelet does for a pod.
func (x *runner) mintToken(ctx context.Context, s *subject) check.Finding {
	response, err := x.cluster.client.CoreV1().ServiceAccounts(
		s.Namespace,
	).CreateToken(
		ctx,
		s.ServiceAccount,
		&authenticationv1.TokenRequest{
			Spec: authenticationv1.TokenRequestSpec{
				Audiences:         []string{x.policy.Token.Audience},
				ExpirationSeconds: new(int64(tokenSeconds)),
			},
		},
		metav1.CreateOptions{},
	)
	switch {
	case forbidden(err):
		return skipped("you may not request tokens of %s/%s (create serviceaccounts/token): %v", s.Namespace, s.ServiceAccount, err)
	case err != nil:
		return failed(check.NewFix("check the API server"), "the API server issues no token: %v", err)
	}
	claims, err := check.ReadClaims(response.Status.Token)
	if err != nil {
		return failed(check.NewFix("check the API server"), "%v", err)
	}
	f := check.Token(
		claims,
		check.WantedToken{
			Issuer: x.issuer, Subject: s.String(), Audience: x.policy.Token.Audience, Source: "minted by TokenRequest", New: true,
		},
		x.Now(),
	)
	if f.Status != check.Fail {
		s.token, s.claims = response.Status.Token, claims
	}
	if x.issuer == "" {
		x.issuer = claims.Issuer // if the API server's document cannot be read
	}
	return f
}

package admission_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	registrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/otherwebhooks"
	"github.com/ampbridge/ampbridge/test/servingcert"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/webhooktest"
)

// The API server calls webhooks in the order of their registrations' names. The labels select what each
// webhook does to a pod.
const (
	before, after           = "a-other", "z-other" // ampbridge's registration is between them
	beforeLabel, afterLabel = "before.example.com/change", "after.example.com/change"
	seen                    = "others.example.com/seen"
)

// changers are the other webhooks. Each changes a pod as the value of its label selects.
type changers map[string]func(pod map[string]any)

// ServeHTTP answers with whole members of the pod, as webhooks do that decode a pod into types.
func (c changers) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	var pod map[string]any
	err := json.NewDecoder(r.Body).Decode(&review)
	if err == nil {
		err = json.Unmarshal(review.Request.Object.Raw, &pod)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	metadata := pod["metadata"].(map[string]any)
	label := map[string]string{"/" + before: beforeLabel, "/" + after: afterLabel}[r.URL.Path]
	c.change(metadata["labels"].(map[string]any)[label].(string), pod)
	annotations, _ := metadata["annotations"].(map[string]any)
	if annotations == nil {
		annotations = map[string]any{}
	}
	annotations[seen] = "yes"
	patch, err := json.Marshal([]map[string]any{
		{"op": "add", "path": "/spec", "value": pod["spec"]},
		{"op": "add", "path": "/metadata/annotations", "value": annotations},
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	review.Response = &admissionv1.AdmissionResponse{
		UID: review.Request.UID, Allowed: true, Patch: patch, PatchType: new(admissionv1.PatchTypeJSONPatch),
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(review)
}

// change changes the parts that the pod has. A pod without injection lacks most of them.
func (c changers) change(name string, pod map[string]any) {
	defer func() { _ = recover() }()
	c[name](pod)
}

// others registers the other webhooks, and returns when the API server calls both.
func (f *fixture) others(t *testing.T, c changers) {
	t.Helper()
	certs := t.TempDir()
	ca, err := servingcert.Write(certs, "127.0.0.1")
	testkit.Must(t, err)
	server := &http.Server{Addr: testkit.FreeAddr(t), Handler: c}
	go func() { _ = server.ListenAndServeTLS(certs+"/tls.crt", certs+"/tls.key") }()
	t.Cleanup(func() { _ = server.Close() })
	configurations := f.Client().AdmissionregistrationV1().MutatingWebhookConfigurations()
	for name, label := range map[string]string{before: beforeLabel, after: afterLabel} {
		_, err := configurations.Create(t.Context(), &registrationv1.MutatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Webhooks: []registrationv1.MutatingWebhook{{
				Name:         name + ".example.com",
				ClientConfig: registrationv1.WebhookClientConfig{URL: new("https://" + server.Addr + "/" + name), CABundle: ca},
				Rules: []registrationv1.RuleWithOperations{{
					Operations: []registrationv1.OperationType{registrationv1.Create},
					Rule:       registrationv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
				}},
				ObjectSelector: &metav1.LabelSelector{
					MatchExpressions: []metav1.LabelSelectorRequirement{{Key: label, Operator: metav1.LabelSelectorOpExists}},
				},
				FailurePolicy:           new(registrationv1.Fail),
				SideEffects:             new(registrationv1.SideEffectClassNone),
				AdmissionReviewVersions: []string{"v1"},
			}},
		}, metav1.CreateOptions{})
		testkit.Must(t, err)
		t.Cleanup(func() {
			testkit.Must(t, configurations.Delete(context.WithoutCancel(t.Context()), name, metav1.DeleteOptions{}))
		})
		testkit.Eventually(t, name+" is called", func() bool {
			got, err := f.tryPod(t, metav1.NamespaceDefault, withLabel(webPod(), label, "nothing"), true)
			return err == nil && got.Annotations[seen] != ""
		})
	}
}

func withLabel(pod *corev1.Pod, label, value string) *corev1.Pod {
	if pod.Labels == nil {
		pod.Labels = map[string]string{}
	}
	pod.Labels[label] = value
	return pod
}

// testChangedByOthers makes the API server call another webhook after ampbridge's, and then ampbridge's
// again. Each pod that is accepted without injection must be accepted with it. If the injection stays,
// Prometheus must wait for the sidecar.
func (f *fixture) testChangedByOthers(t *testing.T) {
	const namespace, outside = "test-changed", "test-changed-outside"
	webhooktest.Namespace(t, f.Cluster, namespace)
	f.namespace(t, outside, "", nil)
	for _, account := range []string{"prometheus-k8s", "prometheus-server"} {
		f.account(t, namespace, account, nil)
		f.account(t, outside, account, nil)
	}
	changes, all := otherwebhooks.Changes(), changers{}
	for i, change := range changes {
		all[fmt.Sprint(i)] = change.Do
	}
	f.others(t, all)
	counts := map[string]int{}
	for base, makePod := range map[string]func(*testing.T) *corev1.Pod{
		"operator": operatorPod, "chart": chartPod, "hand": handPod, "guaranteed": guaranteedPod,
	} {
		for i, change := range changes {
			if change.Want == otherwebhooks.Lost {
				continue // a removed part cannot be restored
			}
			t.Run(base+"/"+change.Name, func(t *testing.T) {
				pod := withLabel(makePod(t), afterLabel, fmt.Sprint(i))
				counts[f.playedBeside(t, namespace, outside, pod)]++
			})
		}
	}
	t.Logf("pods by what became of them: %v", counts)
}

// playedBeside creates a pod as a dry run in two namespaces: without injection and with it. It returns the
// result of the second.
func (f *fixture) playedBeside(t *testing.T, namespace, outside string, pod *corev1.Pod) string {
	t.Helper()
	if _, err := f.tryPod(t, outside, pod.DeepCopy(), true); err != nil {
		t.Fatalf("the API server refuses the pod without injection: %v", err)
	}
	got, err := f.tryPod(t, namespace, pod.DeepCopy(), true)
	switch {
	case apierrors.IsInvalid(err) || apierrors.IsForbidden(err):
		t.Errorf("the API server accepts the pod, but refuses it injected: %v", err)
		return "refused"
	case err != nil:
		t.Fatal(err)
	}
	if !webhooktest.Injected(got) {
		// Taken back as a whole: nothing waits for a sidecar that is not there.
		for _, v := range got.Spec.Volumes {
			if slices.Contains([]string{sidecarconfig.VolumeSource, sidecarconfig.VolumeCredentials, sidecarconfig.VolumeToken}, v.Name) {
				t.Errorf("the volume %s is left", v.Name)
			}
		}
		return "not injected"
	}
	for _, c := range got.Spec.InitContainers {
		if c.Name == sidecarconfig.ContainerName &&
			(c.RestartPolicy == nil || *c.RestartPolicy != corev1.ContainerRestartPolicyAlways || c.StartupProbe == nil) {
			t.Error("Prometheus does not wait for the sidecar")
		}
	}
	return "injected"
}

// handPod returns a pod that only its image shows to be Prometheus, with an init container and a native
// sidecar.
func handPod(*testing.T) *corev1.Pod {
	config := corev1.VolumeMount{Name: "config", MountPath: "/etc/prometheus"}
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "hand-"},
		Spec: corev1.PodSpec{
			ServiceAccountName: "prometheus-server",
			InitContainers: []corev1.Container{
				{Name: "permissions", Image: "busybox:1", Command: []string{"chown", "65534", "/prometheus"}},
				{Name: "tunnel", Image: "tunnel:1", RestartPolicy: new(corev1.ContainerRestartPolicyAlways)},
			},
			Containers: []corev1.Container{
				{Name: "main", Image: "quay.io/prometheus/prometheus:v3.15.0", VolumeMounts: []corev1.VolumeMount{config}},
			},
			Volumes: []corev1.Volume{{Name: "config", VolumeSource: corev1.VolumeSource{
				ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "config"}},
			}}},
		},
	}
}

// guaranteedPod returns a pod with requests that equal its limits.
func guaranteedPod(t *testing.T) *corev1.Pod {
	pod := chartPod(t)
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			list[i].Resources = corev1.ResourceRequirements{Requests: resources("500m", "500Mi"), Limits: resources("500m", "500Mi")}
		}
	}
	return pod
}

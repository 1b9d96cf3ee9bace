package audit

import (
	"errors"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// A pod may be evicted only if the API server admits its successor in a dry run, with
// the sidecar. Every other answer, and none, keeps it.
func TestSuccessor(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	forbid := func(text string) error { return apierrors.NewForbidden(pods, "p-0-x", errors.New(text)) }
	same := func(*observed) {}
	for _, test := range []struct {
		name     string
		answer   error
		injected bool
		change   func(*observed)
		why      string // empty: it may be evicted
	}{
		{"admitted and injected", nil, true, same, ""},
		{"admitted, not injected", nil, false, same, "would not be injected"},
		{"a policy", forbid("ValidatingAdmissionPolicy 'limits' with binding 'b' denied request: set limits"), false, same,
			"its successor would be refused by ValidatingAdmissionPolicy limits: set limits"},
		{"a quota", forbid("exceeded quota: q, requested: pods=1"), false, same, "refused by ResourceQuota q"},
		{"no service account", forbid("error looking up service account a/b: not found"), false, same, "refused by the API server"},
		{"no right", forbid(`User "s" cannot create resource "pods" in API group ""`), false, same, "lacks the right"},
		{"the admission policy of sync's right", forbid("ValidatingAdmissionPolicy 'ampbridge-sync' with binding 'ampbridge-sync' denied " +
			"request: ampbridge's auditor may create pods only in a dry run."), false, same, "refused by ValidatingAdmissionPolicy ampbridge-sync"},
		{"a webhook without dry runs", apierrors.NewBadRequest(`admission webhook "w" does not support dry run`), false, same,
			"does not support dry runs"},
		{"a webhook that does not answer", apierrors.NewInternalError(errors.New("failed calling webhook")), false, same, "cannot be tried"},
		{"a timeout", apierrors.NewTimeoutError("later", 1), false, same, "cannot be tried"},
		{"no connection", errors.New("connection refused"), false, same, "cannot be tried"},
		{"another StatefulSet of that name", nil, true, func(o *observed) { o.controller.UID = "old" }, "its controller was deleted"},
		{"no StatefulSet", nil, true, func(o *observed) { o.controller.Name = "gone" }, "its controller was deleted"},
		{"a rollout", nil, true, func(o *observed) { o.template = "p-1" }, "is being rolled out"},
		{"an unknown kind", nil, true, func(o *observed) { o.controller.Kind, o.controller.APIVersion = "CloneSet", "apps.kruise.io/v1" },
			"cannot read the pod template of a CloneSet"},
	} {
		client := fake.NewClientset(&appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "p", UID: "u"},
			Spec: appsv1.StatefulSetSpec{
				ServiceName: "headless", Template: prometheusTemplate(map[string]string{"app": "p"}),
				VolumeClaimTemplates: []corev1.PersistentVolumeClaim{{ObjectMeta: metav1.ObjectMeta{Name: "data"}}},
			},
			Status: appsv1.StatefulSetStatus{UpdateRevision: "p-2"},
		})
		var tried *corev1.Pod
		client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
			create := a.(clienttesting.CreateActionImpl)
			tried = create.GetObject().(*corev1.Pod).DeepCopy()
			if dry := create.CreateOptions.DryRun; len(dry) != 1 || dry[0] != metav1.DryRunAll {
				t.Errorf("%s: it was created for real: %v", test.name, dry)
			}
			answer := tried.DeepCopy()
			if test.injected {
				metav1.SetMetaDataAnnotation(&answer.ObjectMeta, inject.AnnotationInjected, "{}")
			}
			return true, answer, test.answer
		})
		o := &observed{
			name: "p-0", template: "p-2", workload: breaker.Workload{Namespace: "team", Kind: "StatefulSet", Name: "p"},
			controller: &metav1.OwnerReference{APIVersion: "apps/v1", Kind: "StatefulSet", Name: "p", UID: "u", Controller: new(true)},
		}
		test.change(o)
		why, err := cluster{client.CoreV1(), client.AppsV1()}.trySuccessor(t.Context(), o)
		testkit.Must(t, err)
		if (why == "") != (test.why == "") || !strings.Contains(why, test.why) {
			t.Errorf("%s: got %q, want %q", test.name, why, test.why)
		}
		if tried == nil {
			continue
		}
		// The successor is as the StatefulSet would make it, and leaves the running pod's name alone.
		last := tried.Spec.Volumes[len(tried.Spec.Volumes)-1]
		if owner := metav1.GetControllerOf(tried); tried.Name != "" || tried.GenerateName != "p-0-" || owner == nil || owner.UID != "u" ||
			owner.BlockOwnerDeletion != nil || tried.Spec.Hostname != "p-0" || tried.Spec.Subdomain != "headless" ||
			tried.Labels["statefulset.kubernetes.io/pod-name"] != "p-0" || last.PersistentVolumeClaim.ClaimName != "data-p-0" {
			t.Errorf("%s: tried %+v", test.name, tried)
		}
	}
}

package chart

import (
	"fmt"
	"slices"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// testEnforcer plays the admissions enforcer of AKS, which writes into the selectors
// of every registration that has not opted out.
func (f *fixture) testEnforcer(t *testing.T) {
	label, annotation := (*unstructured.Unstructured).GetLabels, (*unstructured.Unstructured).GetAnnotations
	optOut := `admissions\.enforcer/disabled=`

	// Without the opt-out it is as users reported it.
	optIn := []string{
		"-f", minimal,
		"--set-string", "webhook.registration.labels." + optOut + "false",
		"--set-string", "webhook.registration.annotations." + optOut + "false",
	}
	f.install(t, optIn...)
	if !f.enforce(t, label) || !f.enforce(t, annotation) {
		t.Fatal("the enforcer leaves a registration alone that has not opted out")
	}
	stderr := f.refusedUpgrade(t, append(optIn, "--set", "webhook.excludedNamespaces={a}")...)
	names(t, stderr, "admissionsenforcer", "namespaceSelector")

	// The opt-out is the way out, too, and from then on upgrades pass.
	f.upgrade(t, "-f", minimal, "--force-conflicts")
	for i := range 3 {
		if f.enforce(t, label) || f.enforce(t, annotation) {
			t.Error("the enforcer does not see the opt-out")
		}
		excluded := fmt.Sprintf("system-%d", i)
		f.upgrade(t, "-f", minimal, "--set", "webhook.excludedNamespaces={"+excluded+"}")
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
func (f *fixture) enforce(t *testing.T, read func(*unstructured.Unstructured) map[string]string) (wrote bool) {
	t.Helper()
	group := schema.GroupVersion{Group: "admissionregistration.k8s.io", Version: "v1"}
	for _, resource := range []string{"mutatingwebhookconfigurations", "validatingwebhookconfigurations"} {
		client := f.dynamic(t).Resource(group.WithResource(resource))
		list, err := client.List(t.Context(), metav1.ListOptions{})
		testkit.Must(t, err)
		if len(list.Items) == 0 {
			t.Fatalf("there are no %s", resource)
		}
		for _, object := range list.Items {
			if read(&object)["admissions.enforcer/disabled"] == "true" {
				continue
			}
			for _, webhook := range object.Object["webhooks"].([]any) {
				selector := webhook.(map[string]any)["namespaceSelector"].(map[string]any)
				expressions, _ := selector["matchExpressions"].([]any)
				selector["matchExpressions"] = append(expressions, map[string]any{"key": "control-plane", "operator": "DoesNotExist"})
			}
			_, err := client.Update(t.Context(), &object, metav1.UpdateOptions{FieldManager: "admissionsenforcer"})
			testkit.Must(t, err)
			wrote = true
		}
	}
	return wrote
}

package webhook_test

import (
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/patchtest"
	"github.com/ampbridge/ampbridge/webhook"
)

func TestServiceAccountShowsRole(t *testing.T) {
	for _, operation := range []admissionv1.Operation{admissionv1.Create, admissionv1.Update} {
		t.Run(string(operation), func(t *testing.T) {
			f := newFixture(t)
			r := serviceAccountRequest(t, account)
			r.Operation = operation
			answer := f.review("/serviceaccounts/enabled", r)
			changed := patchtest.Apply(t, r.Object.Raw, answer.Patch)
			if role := "arn:aws:iam::111122223333:role/ampbridge/dev-eks/ampbridge.dev-eks.central"; !strings.Contains(
				string(changed),
				role,
			) {
				t.Errorf("%s is not shown: %s", role, changed)
			}
			if !strings.Contains(string(changed), `"fieldOfTheFuture":true`) {
				t.Errorf("an unknown field was lost: %s", changed)
			}
		})
	}
}

func TestServiceAccountIsLeftAlone(t *testing.T) {
	t.Run("not granted", func(t *testing.T) {
		f := newFixture(t)
		if answer := f.review("/serviceaccounts/enabled", serviceAccountRequest(t, "web")); answer.Patch != nil {
			t.Errorf("got a patch: %s", answer.Patch)
		}
	})
	t.Run("no policy", func(t *testing.T) {
		f := newFixture(t)
		f.policy = nil
		answer := f.review("/serviceaccounts/enabled", serviceAccountRequest(t, account))
		f.wantUntouched(answer, "no valid policy")
		f.wantCounted("serviceaccount", "error", webhook.PolicyMissing)
	})
	t.Run("panic", func(t *testing.T) {
		f := newFixture(t)
		f.Policy = func() *policy.Policy { panic("broken") }
		answer := f.review("/serviceaccounts/enabled", serviceAccountRequest(t, account))
		f.wantUntouched(answer, "the webhook failed")
		f.wantCounted("serviceaccount", "error", webhook.InternalError)
	})
}

func serviceAccountRequest(t *testing.T, name string) *admissionv1.AdmissionRequest {
	return request(
		t,
		"ServiceAccount",
		"serviceaccounts",
		map[string]any{"metadata": map[string]any{"name": name}, "fieldOfTheFuture": true},
	)
}

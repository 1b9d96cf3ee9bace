package webhook_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/otherwebhooks"
	"github.com/ampbridge/ampbridge/test/patchtest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/breaker"
)

// The API server calls this webhook, then the webhook of EKS Pod Identity, and then this one again.
// The variables are removed even if the circuit breaker cannot be read.
func TestIdentityThatAppearsLater(t *testing.T) {
	f := newFixture(t)
	f.policy.Grants[0].Environment = policy.EnvironmentContainer
	r := podRequest(t, operatorPod, nil)
	r.Object.Raw = patchtest.Apply(t, r.Object.Raw, f.review("/pods/enabled", r).Patch)
	variables := func() string {
		t.Helper()
		var pod struct {
			Spec struct {
				Containers []struct{ Env []struct{ Name string } }
			}
		}
		testkit.Must(t, json.Unmarshal(r.Object.Raw, &pod))
		var names []string
		for _, e := range pod.Spec.Containers[0].Env {
			names = append(names, e.Name)
		}
		return strings.Join(names, " ")
	}
	const all = "AWS_ROLE_ARN AWS_WEB_IDENTITY_TOKEN_FILE AWS_REGION AWS_DEFAULT_REGION AWS_STS_REGIONAL_ENDPOINTS"
	if got := variables(); got != all {
		t.Fatalf("the first time: %s, want %s", got, all)
	}
	r.Object.Raw = patchtest.Apply(t, r.Object.Raw, []byte(`[{"op": "add", "path": "/spec/containers/0/env/-",
"value": {"name": "AWS_CONTAINER_CREDENTIALS_FULL_URI", "value": "http://169.254.170.23/v1/credentials"}}]`))
	f.Breaker = func(context.Context) (breaker.State, error) { return breaker.State{}, errors.New("not available") }
	answer := f.review("/pods/enabled", r)
	if len(answer.Warnings) > 0 || answer.Patch == nil {
		t.Fatalf("warnings %q, patch %s", answer.Warnings, answer.Patch)
	}
	r.Object.Raw = patchtest.Apply(t, r.Object.Raw, answer.Patch)
	if got, want := variables(), "AWS_CONTAINER_CREDENTIALS_FULL_URI"; got != want {
		t.Errorf("the second time: %s, want %s", got, want)
	}
	if answer := f.review("/pods/enabled", r); answer.Patch != nil {
		t.Errorf("a third time: %s", answer.Patch)
	}
}

// A later webhook removes restartPolicy, or mounts something over the directory of the credentials.
// The injection is then undone, whatever the state of the circuit breaker.
func TestInjectionIsTakenBack(t *testing.T) {
	f := newFixture(t)
	r := podRequest(t, operatorPod, nil)
	plain := r.Object.Raw
	whole := patchtest.Apply(t, plain, f.review("/pods/enabled", r).Patch)
	for _, change := range otherwebhooks.Changes() {
		if change.Want != otherwebhooks.TakenBack {
			continue
		}
		var pod map[string]any
		testkit.Must(t, json.Unmarshal(whole, &pod))
		change.Do(pod)
		changed, err := json.Marshal(pod)
		testkit.Must(t, err)
		r.Object.Raw = changed
		f.Breaker = func(context.Context) (breaker.State, error) { return breaker.State{}, errors.New("not available") }
		answer := f.review("/pods/enabled", r)
		if len(answer.Warnings) != 1 || !strings.Contains(answer.Warnings[0], "is undone") || answer.Patch == nil {
			t.Fatalf("%s: warnings %q, patch %s", change.Name, answer.Warnings, answer.Patch)
		}
		r.Object.Raw = patchtest.Apply(t, r.Object.Raw, answer.Patch)
		if strings.Contains(string(r.Object.Raw), "ampbridge-") {
			t.Errorf("%s: parts are left: %s", change.Name, r.Object.Raw)
		}
		if answer := f.review("/pods/enabled", r); answer.Patch != nil {
			t.Errorf("%s: a third time: %s", change.Name, answer.Patch)
		}
	}
}

// The warning about a pod that only resembles Prometheus names the annotation.
func TestPodThatResemblesPrometheus(t *testing.T) {
	f := newFixture(t)
	r := podRequest(t, operatorPod, func(pod map[string]any) {
		notPrometheus(pod)
		pod["spec"].(map[string]any)["containers"] = []any{
			map[string]any{"name": "metrics", "image": "own/metrics", "args": []any{"--config.file=/etc/prometheus/prometheus.yml"}},
		}
	})
	f.wantUntouched(f.review("/pods/enabled", r), policy.AnnotationContainer)
	f.wantCounted("pod", "skip", policy.NotPrometheus)
}

package doctor

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// If only the pod with the sidecar is refused, ampbridge's policy needs the fix. If doctor's sample
// is refused in any case, the user's own injected pods decide.
func TestRefusedSample(t *testing.T) {
	const tag = `admission webhook "validate.kyverno.svc-fail" denied the request: an image tag is required`
	const silent = `Internal error occurred: failed calling webhook "validate.kyverno.svc-fail": connection refused`
	injected := samplePod(policy.Subject{Namespace: "m", ServiceAccount: "p"}, "")
	injected.Name = "p-0"
	injected.Annotations[inject.AnnotationInjected] = `{"policy": "0123456789ab", "destinations": ["central"]}`
	for _, c := range []struct {
		name, refusal string
		plain         error
		running       []corev1.Pod
		status        check.Status
		want, fix     string
	}{
		{"with the sidecar alone", tag, nil, nil, check.Fail, "admitted without it", "let the sidecar meet that rule"},
		{"in any case, and no pod runs", tag, errors.New(tag), nil, check.Fail, "the pod is refused", "with or without ampbridge"},
		{"in any case, and an injected pod runs", tag, errors.New(tag), []corev1.Pod{*injected}, check.Warn, "doctor's sample pod is refused",
			"with or without ampbridge"},
		{"a webhook of others does not answer", silent, errors.New(silent), nil, check.Fail, "the pod is refused",
			"let the webhook validate.kyverno.svc-fail"},
		{"a webhook of others does not answer any more", silent, errors.New(silent), []corev1.Pod{*injected}, check.Fail,
			"the pod is refused", "let the webhook validate.kyverno.svc-fail"},
	} {
		x := runnerOn(t, map[string]any{"/api/v1/namespaces/m/pods": corev1.PodList{Items: c.running}})
		s := &subject{Subject: policy.Subject{Namespace: "m", ServiceAccount: "p"}}
		f := x.refusedSample(t.Context(), s, errors.New(c.refusal), func(string) (*corev1.Pod, error) { return nil, c.plain })
		if f.Status != c.status || !strings.Contains(f.Message, c.want) || !strings.Contains(f.Fix.Summary, c.fix) {
			t.Errorf("%s: %s: %s → %s", c.name, f.Status, f.Message, f.Fix.Summary)
		}
		if (f.Proof == check.Pods) != (c.status == check.Warn) {
			t.Errorf("%s is proven by %q", c.name, f.Proof)
		}
	}
}

// If this machine's clock is wrong, the new token is still good for STS.
func TestMintTokenWithAWrongClock(t *testing.T) {
	s := subject{Subject: policy.Subject{Namespace: "monitoring", ServiceAccount: "prometheus"}}
	const audience = "sts.amazonaws.com"
	issued := awstest.NewSigner("https://oidc.example", jose.ES256).Token(s.String(), audience)
	x := runnerOn(t, map[string]any{"/api/v1/namespaces/monitoring/serviceaccounts/prometheus/token": authenticationv1.TokenRequest{
		Status: authenticationv1.TokenRequestStatus{Token: issued}}})
	x.policy = &policy.Policy{Token: policy.Token{Audience: audience}}
	for ahead, want := range map[time.Duration]check.Status{
		0: check.Pass, 2 * time.Minute: check.Pass, 2 * time.Hour: check.Warn, -2 * time.Hour: check.Warn,
	} {
		x.Now = func() time.Time { return time.Now().Add(ahead) }
		s := s
		if f := x.mintToken(t.Context(), &s); f.Status != want || s.token != issued {
			t.Errorf("%s ahead: %s: %s; the token is kept: %t", ahead, f.Status, f.Message, s.token == issued)
		}
	}
}

// A sample that is refused proves nothing about the webhook's certificate.
func TestRefusedSampleProvesNoCertificate(t *testing.T) {
	injected := samplePod(policy.Subject{Namespace: "m", ServiceAccount: "p"}, "")
	injected.Name = "p-0"
	injected.Annotations[inject.AnnotationInjected] = `{"policy": "0123456789ab", "destinations": ["central"], "mode": "identity"}`
	for refused, want := range map[bool]check.Status{true: check.Skip, false: check.Pass} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			var answer any = corev1.PodList{Items: []corev1.Pod{*injected}}
			switch {
			case r.Method == http.MethodPost && refused:
				w.WriteHeader(http.StatusForbidden)
				answer = metav1.Status{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Status"}, Reason: metav1.StatusReasonForbidden,
					Message: `admission webhook "validate.kyverno.svc-fail" denied the request: an image tag is required`, Code: http.StatusForbidden}
			case r.Method == http.MethodPost:
				answer = injected
			}
			_ = json.NewEncoder(w).Encode(answer)
		}))
		t.Cleanup(server.Close)
		c, err := connect(kubeconfigOf(t, server.URL, "{}"), kube.Overrides{})
		testkit.Must(t, err)
		x := &runner{Options: Options{System: "ampbridge-system"}, cluster: c, policy: &policy.Policy{}}
		x.checks.Add(check.Skipped(check.Certificate, check.About{}, "the Secret cannot be read"))
		x.checkInjection(t.Context(), &subject{Subject: policy.Subject{Namespace: "m", ServiceAccount: "p"}})
		if got := x.checks.Report().Status(check.Certificate); got != want {
			t.Errorf("refused: %v: %s: %+v", refused, got, x.checks.Report().Findings)
		}
	}
}

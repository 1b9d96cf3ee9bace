package doctor_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy/check"
)

// allowWith returns the statement that lets the service account in, with more conditions.
func allowWith(more string) string {
	return `{"Effect":"Allow","Principal":{"Federated":"` + providerARN + `"},"Action":"sts:AssumeRoleWithWebIdentity","Condition":` +
		`{"StringEquals":{"oidc.example.com/clusters/demo/:aud":"sts.amazonaws.com","oidc.example.com/clusters/demo/:sub":` +
		`"system:serviceaccount:monitoring:prometheus"}` + more + `}}`
}

// rekeyed publishes the cluster's keys after a change of each key.
func rekeyed(s *fixture, change func(map[string]any)) {
	s.forgetKeys()
	original := s.kube.OIDC()
	s.published.replace(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		recorder := httptest.NewRecorder()
		original.ServeHTTP(recorder, r)
		var set struct {
			Keys []map[string]any `json:"keys"`
		}
		if json.Unmarshal(recorder.Body.Bytes(), &set) != nil || len(set.Keys) == 0 {
			_, _ = w.Write(recorder.Body.Bytes())
			return
		}
		for _, k := range set.Keys {
			change(k)
		}
		_ = json.NewEncoder(w).Encode(set)
	}))
}

// otherNamespace is a namespace without the label. A grant names it.
const otherNamespace = "staging"

// editedFaults are faults in edited objects. The objects exist, so only their effect shows the
// fault.
var editedFaults = []fault{
	{name: "trust that denies this subject", id: check.TrustDocument, message: "statement 2 denies them to", inject: func(s *fixture) {
		s.trustOf(allowWith("") + `,{"Effect":"Deny","Principal":{"Federated":"` + providerARN + `"},"Action":"sts:*","Condition":` +
			`{"StringEquals":{"oidc.example.com/clusters/demo/:sub":"system:serviceaccount:monitoring:prometheus"}}}`)
	}},
	{name: "trust that denies everybody", id: check.TrustDocument, message: "statement Freeze denies them to", inject: func(s *fixture) {
		s.trustOf(`{"Sid":"Freeze","Effect":"Deny","Principal":"*","Action":"sts:*"},` + allowWith(""))
	}},
	{name: "trust that has ended", id: check.TrustDocument, message: "DateLessThan of aws:CurrentTime is 2020-01-01",
		inject: func(s *fixture) {
			s.trustOf(allowWith(`,"DateLessThan":{"aws:CurrentTime":"2020-01-01T00:00:00Z"}`))
		}},
	{name: "permission in another region", id: check.Permissions, message: "aws:RequestedRegion is us-east-1", inject: func(s *fixture) {
		s.permit("ampbridge", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"aps:*","Resource":"*","Condition":`+
			`{"StringEquals":{"aws:RequestedRegion":"us-east-1"}}}]}`)
	}},
	{name: "key under another kid", id: check.SigningKeys, message: `published with the kid "other"`,
		inject: func(s *fixture) { rekeyed(s, func(k map[string]any) { k["kid"] = "other" }) }, fix: publishAgain},
	{name: "key without a kid", id: check.SigningKeys, message: `published with the kid ""`,
		inject: func(s *fixture) { rekeyed(s, func(k map[string]any) { delete(k, "kid") }) }, fix: publishAgain},
	{name: "registered for objects with another label", id: check.Registration, message: "check its objectSelector",
		inject: func(s *fixture) {
			s.patchRegistration(`[{"op":"add","path":"/webhooks/0/objectSelector","value":{"matchLabels":{"inject":"yes"}}}]`)
		}, fix: (*fixture).register},
	{name: "registered for another path", id: check.Registration, message: "which must end in /pods/enabled", inject: func(s *fixture) {
		s.patchRegistration(`[{"op":"replace","path":"/webhooks/0/clientConfig/service/path","value":"/mutate"}]`)
	}, fix: (*fixture).register},
	{name: "registered for another API group", id: check.Registration, message: "has no rule for the creation of pods",
		inject: func(s *fixture) {
			s.patchRegistration(`[{"op":"replace","path":"/webhooks/0/rules/0/apiGroups","value":["apps"]}]`)
		}, fix: (*fixture).register},
	{name: "registered for a port that the Service lacks", id: check.Endpoints, message: "has no port 9443", inject: func(s *fixture) {
		s.patchRegistration(`[{"op":"replace","path":"/webhooks/0/clientConfig/service/port","value":9443}]`)
	}, fix: (*fixture).register},
	{name: "registered to refuse, and the webhook is down", id: check.Injection, message: "the webhook does not answer the API server",
		inject: func(s *fixture) {
			s.patchRegistration(`[{"op":"replace","path":"/webhooks/0/failurePolicy","value":"Fail"}]`)
			s.stopWebhook()
			s.eventually("pods are refused", func() bool {
				return contains(s.runDoctor(fault{}).finding().Message, "the webhook does not answer the API server")
			})
		}, fix: func(s *fixture) { s.startWebhook(); s.register() }},
	{name: "workspace mistyped in the policy alone", id: check.Workspace, message: "there is no ws-0000",
		inject: func(s *fixture) { s.setPolicy(s.workspace.ID, "ws-0000") }, fix: plainPolicy},
	{name: "proxy of AMP refuses connections", id: check.Query, message: "no answer", inject: func(s *fixture) {
		s.setPolicy("  endpoint: "+s.cloud.URL, "  endpoint: "+s.cloud.URL+"\n  remoteWrite: {proxyURL: \"http://127.0.0.1:1\"}")
	}, fix: plainPolicy},
	{name: "no grants", id: check.Grant, message: "the policy has no grants", inject: func(s *fixture) {
		text := s.policy()
		from, to := strings.Index(text, "grants:"), strings.Index(text, "token:")
		s.setPolicy(text[from:to], "grants: []\n")
	}, fix: plainPolicy},
	{name: "one of two namespaces without the label", id: check.Namespace, message: otherNamespace + " does not carry the label",
		inject: func(s *fixture) {
			s.try(s.kube.Namespace(s.Context(), otherNamespace, nil))
			s.must(s.kube.Client().CoreV1().ServiceAccounts(otherNamespace).Create(s.Context(),
				&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: serviceAccount}}, metav1.CreateOptions{}))
			s.setPolicy("namespaces: ["+namespace+"]", "namespaces: ["+namespace+", "+otherNamespace+"]")
			s.sync()
		}, fix: func(s *fixture) { s.setPolicy(); s.sync() }},
}

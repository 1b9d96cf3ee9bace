package policy_test

import (
	"testing"

	"github.com/ampbridge/ampbridge/policy"
)

func TestNearMiss(t *testing.T) {
	p, err := policy.Parse([]byte(`apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev}
destinations:
- {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001"}
grants:
- {namespaces: [monitorng], serviceAccounts: [prometheus-k8s, thanos-ruler], destinations: [central]}
- {namespaces: ["team-*", dev], serviceAccounts: ["*-agent"], destinations: [central]}
trust: {manage: none}
`))
	if err != nil {
		t.Fatal(err)
	}
	for subject, want := range map[policy.Subject]string{
		{Namespace: "monitoring", ServiceAccount: "prometheus-k8s"}: "grants[0] names the namespace monitorng",
		{Namespace: "monitorng", ServiceAccount: "prometheus-k8"}:   "grants[0] names the service account prometheus-k8s",
		{Namespace: "monitorng", ServiceAccount: "Prometheus-K8s"}:  "grants[0] names the service account prometheus-k8s",
		{Namespace: "monitoring", ServiceAccount: "thanos-rulers"}: "grants[0] names the namespace monitorng and " +
			"the service account thanos-ruler",
		{Namespace: "tema", ServiceAccount: "grafana-agent"}:         "",
		{Namespace: "tem-a", ServiceAccount: "grafana-agent"}:        "grants[1] names the namespace team-*",
		{Namespace: "team-a", ServiceAccount: "grafana-agnt"}:        "grants[1] names the service account *-agent",
		{Namespace: "team-a", ServiceAccount: "grafana-agent"}:       "", // covered
		{Namespace: "prd", ServiceAccount: "grafana-agent"}:          "", // two of three letters
		{Namespace: "monitoring", ServiceAccount: "default"}:         "",
		{Namespace: "observability", ServiceAccount: "thanos-ruler"}: "",
	} {
		if got := p.NearMiss(subject); got != want {
			t.Errorf("%s: %q, want %q", subject, got, want)
		}
	}
}

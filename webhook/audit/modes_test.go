package audit

import (
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/policytest"
)

// Pods of the modes identity and relay are found like any other: missed, as the policy
// says, and outdated once it says something else.
func TestAssessModes(t *testing.T) {
	for _, mode := range []policy.Mode{policy.ModeIdentity, policy.ModeRelay} {
		t.Run(string(mode), func(t *testing.T) {
			with := func(text string, m policy.Mode) *policy.Policy {
				return policytest.Parse(t, strings.Replace(text, "destinations: [central]}", "destinations: [central], mode: "+string(m)+"}", 1))
			}
			p := with(policyText, mode)
			text := podWith(t, podText, `{"metadata": {"annotations": {"ampbridge.io/container": "prometheus"}}}`)
			assess := func(p *policy.Policy, pod string) Finding {
				return Assess(Question{Policy: p, Image: testImage, Injection: policy.InjectionEnabled, Pod: decodePod(t, pod)})
			}
			if f := assess(p, text); f.Kind != Missed {
				t.Errorf("not injected: %+v", f)
			}
			if f := assess(p, podText); f.Kind != Skipped || f.Reason != policy.NoContainerNamed {
				t.Errorf("without the annotation: %+v", f)
			}

			injected := admittedBy(t, text, p, p.Decide(policy.Request{
				Namespace: "monitoring", Injection: policy.InjectionEnabled, ServiceAccount: "prometheus",
				Prometheus: true, PodAnnotations: decodePod(t, text).Metadata.Annotations,
			}))
			if f := assess(p, injected); f.Kind != Healthy {
				t.Errorf("injected: %+v", f)
			}
			if f := assess(with(strings.Replace(policyText, "name: dev", "name: other", 1), mode), injected); f.Kind != Outdated {
				t.Errorf("with other roles: %+v", f)
			}
			if f := assess(with(policyText, policy.ModePrometheus), injected); f.Kind != Outdated || !strings.Contains(f.Text, "mode") {
				t.Errorf("with another mode: %+v", f)
			}
			if f := assess(p, podWith(t, injected, `{"spec": {"volumes": []}}`)); f.Kind != Outdated {
				t.Errorf("without its volumes: %+v", f)
			}
		})
	}
}

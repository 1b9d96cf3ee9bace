package doctor

import (
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// The pod of the dry run has the annotations that its grant needs, in every mode. The
// webhook's own code then injects it.
func TestSamplePodAsksForItsMode(t *testing.T) {
	p := policyOf(t, `
{namespaces: [m], serviceAccounts: [prometheus, both], destinations: [central]},
{namespaces: [m], serviceAccounts: [grafana, both, two], destinations: [reader], mode: identity},
{namespaces: [m], serviceAccounts: [two], destinations: [central], mode: identity},
{namespaces: [m], serviceAccounts: [vmagent, modes], destinations: [central], mode: relay},
{namespaces: [m], serviceAccounts: [modes], destinations: [reader], mode: identity}`)
	named := func(mode, destination string) map[string]string {
		return map[string]string{policy.AnnotationContainer: sampleContainer, policy.AnnotationMode: mode,
			policy.AnnotationDestination: destination}
	}
	for _, c := range []struct {
		account string
		kept    []string // the service account opted out of the others; empty: of none
		want    map[string]string
	}{
		{"prometheus", nil, map[string]string{}},
		{"both", nil, map[string]string{}},
		{"grafana", nil, named("identity", "reader")},
		{"vmagent", nil, named("relay", "central")},
		{"modes", nil, named("identity", "reader")},
		{"two", nil, named("identity", "central")},
		{"two", []string{"reader"}, named("identity", "reader")},
	} {
		s := &subject{Subject: policy.Subject{Namespace: "m", ServiceAccount: c.account}}
		granted, _ := p.Entitled(s.Subject)
		s.destinations = granted.Destinations
		if c.kept != nil {
			s.destinations = nil
			for _, d := range granted.Destinations {
				if d.Name == c.kept[0] {
					s.destinations = append(s.destinations, d)
				}
			}
		}
		pod := samplePod(s.Subject, p.Token.Source)
		s.ask(p, pod)
		c.want[policy.AnnotationInject] = "true"
		if diff := cmp.Diff(c.want, maps.Clone(pod.Annotations)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.account, diff)
		}
		view, err := convert(pod)
		testkit.Must(t, err)
		d := p.Decide(policy.Request{Namespace: "m", Injection: policy.InjectionEnabled, ServiceAccount: c.account, Prometheus: true,
			PodAnnotations: pod.Annotations})
		if _, d = inject.Inject(view, d, inject.Options{Policy: p, Image: "example.com/sidecar:v1"}); !d.Inject {
			t.Errorf("%s is not injected: %s %s", c.account, d.Reason, d.Warning)
		}
	}
}

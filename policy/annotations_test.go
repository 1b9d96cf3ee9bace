package policy

import (
	"strings"
	"testing"
)

// TestMisspeltAnnotations checks that an annotation with almost the right name is never ignored in
// silence.
func TestMisspeltAnnotations(t *testing.T) {
	p := load(t, "minimal.yaml")
	for _, row := range []struct {
		label      Injection
		name       string
		prometheus bool
		want       Reason
		says       string
	}{
		{"enabled", "ampbridge.io/containr", false, InvalidAnnotation, "did you mean ampbridge.io/container?"},
		{"enabled", "ampbridge.io/containers", false, InvalidAnnotation, "did you mean ampbridge.io/container?"},
		{"enabled", "ampbridge.io/Mode", false, InvalidAnnotation, "did you mean ampbridge.io/mode?"},
		{"annotated", "ampbridge.io/injct", true, NotAsked, "did you mean ampbridge.io/inject?"},
		{"enabled", "ampbridge.io/injection", false, InvalidAnnotation, "label of the namespace"},
		{"enabled", "ampbridge.io/destinationz", true, Granted, "did you mean ampbridge.io/destinations?"},
		{"enabled", "ampbridge.io/destinatio", true, Granted, "did you mean ampbridge.io/destination?"},

		{"", "ampbridge.io/containr", true, NotLabelled, "does not carry the label"},
		{"enabled", "ampbridge.io/injected", false, NotPrometheus, ""},
		{"enabled", "ampbridge.io/role-arn", false, NotPrometheus, ""},
		{"enabled", "ampbridge.io/of-a-later-version", true, Granted, ""},
		{"enabled", "example.com/containr", false, NotPrometheus, ""},
		{"enabled", "ampbridge.io/" + strings.Repeat("x", 1<<16), false, NotPrometheus, ""},
	} {
		annotations := map[string]string{row.name: "x", "app": "y", "ampbridge.io/a-later-version": "z"}
		for where, r := range map[string]Request{
			"pod":             {PodAnnotations: annotations},
			"service account": {ServiceAccountAnnotations: annotations},
		} {
			r.Namespace, r.Injection, r.ServiceAccount, r.Prometheus = "monitoring", row.label, "prometheus", row.prometheus
			d := p.Decide(r)
			if d.Reason != row.want || (d.Warning == "") != (row.says == "") || !strings.Contains(d.Warning, row.says) {
				t.Errorf("%s with %.40s: %s %q, want %s %q", where, row.name, d.Reason, d.Warning, row.want, row.says)
			}
		}
	}
}

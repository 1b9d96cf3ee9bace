package policy

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

// Grants of one service account with several modes: the pod's annotation chooses, and a
// Prometheus that has none stays one.
func TestModeOfAPod(t *testing.T) {
	p := load(t, "minimal.yaml")
	p.Grants = []Grant{
		{Namespaces: []Glob{"a", "b"}, ServiceAccounts: []Glob{"x"}, Destinations: []string{"central"}, Mode: ModeIdentity},
		{Namespaces: []Glob{"a"}, ServiceAccounts: []Glob{"x"}, Destinations: []string{"central"}, Mode: ModePrometheus},
		{Namespaces: []Glob{"b"}, ServiceAccounts: []Glob{"x"}, Destinations: []string{"central"}, Mode: ModeRelay},
	}
	for _, row := range []struct {
		namespace, mode, container string
		want                       Reason
		as                         Mode
	}{
		{"a", "", "", Granted, ModePrometheus},
		{"a", "", "main", Granted, ModePrometheus},
		{"a", "identity", "main", Granted, ModeIdentity},
		{"a", "identity", "", NoContainerNamed, ""},
		{"a", "relay", "main", InvalidAnnotation, ""},
		{"b", "", "main", InvalidAnnotation, ""},
		{"b", "relay", "main", Granted, ModeRelay},
	} {
		r := Request{
			Namespace: row.namespace, Injection: InjectionEnabled, ServiceAccount: "x", Prometheus: true, PodAnnotations: map[string]string{},
		}
		if row.mode != "" {
			r.PodAnnotations[AnnotationMode] = row.mode
		}
		if row.container != "" {
			r.PodAnnotations[AnnotationContainer] = row.container
		}
		if d := p.Decide(r); d.Reason != row.want || d.Mode != row.as {
			t.Errorf("%+v: %s (%s): %s", row, d.Reason, d.Mode, d.Warning)
		}
	}
}

// Trust follows the service account: whatever the modes of its grants, and without a
// pod's annotations.
func TestAServiceAccountIsDecidedForAllModes(t *testing.T) {
	p := load(t, "minimal.yaml")
	for _, m := range []Mode{ModePrometheus, ModeIdentity, ModeRelay} {
		p.Grants[0].Mode = m
		s := Subject{"monitoring", "prometheus"}
		d := p.Decide(Request{Namespace: s.Namespace, Injection: InjectionAnnotated, ServiceAccount: s.ServiceAccount, Account: true})
		if !d.Inject || len(d.Destinations) != 1 {
			t.Errorf("%s: %s: %s", m, d.Reason, d.Warning)
		}
		out := p.Decide(Request{Namespace: s.Namespace, Injection: InjectionEnabled, ServiceAccount: s.ServiceAccount, Account: true,
			ServiceAccountAnnotations: map[string]string{AnnotationInject: "false"}})
		if out.Inject || out.Reason != OptedOut {
			t.Errorf("%s: opted out: %s", m, out.Reason)
		}
	}
}

func TestModesRefuseFieldsThatMeanNothingToThem(t *testing.T) {
	for _, row := range []struct{ grant, sidecar, says string }{
		{"mode: proxy", "", `grants[0].mode: "proxy" is unknown: write prometheus, identity or relay`},
		{"mode: identity, ha: eu", "", "grants[0].ha: is for mode prometheus"},
		{"mode: relay, environment: container", "", "grants[0].environment: is for mode prometheus"},
		{"mode: identity, irsa: true", "", "grants[0].irsa: makes EKS's webhook give an identity"},
		{"mode: relay", "registry.example/ampbridge:v0.0.9",
			"grants[0].mode: is relay, and sidecar.image (registry.example/ampbridge:v0.0.9) is older than 0.1"},
		{"mode: relay", "registry.example:5000/ampbridge:v0.1.0@sha256:" + strings.Repeat("0", 64), ""},
		{"mode: relay", "registry.example/ampbridge:dev", ""},
		{"mode: identity", "registry.example/ampbridge:v0.0.9", ""},
	} {
		text := `
apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev}
destinations: [{name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0123abcd"}]
grants: [{namespaces: [a], serviceAccounts: [b], destinations: [central], ` + row.grant + `}]
sidecar: {image: "` + row.sidecar + `"}
trust: {manage: none}
`
		_, err := Parse([]byte(text))
		var errs Errors
		errors.As(err, &errs)
		switch {
		case row.says == "" && err != nil:
			t.Errorf("%s: %v", row.grant, err)
		case row.says != "" && !slices.ContainsFunc(errs, func(e FieldError) bool { return strings.Contains(e.Error(), row.says) }):
			t.Errorf("%s: %v, want %s", row.grant, err, row.says)
		}
	}
}

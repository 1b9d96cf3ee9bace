package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestOptIn is the opt-in table of the documentation.
func TestOptIn(t *testing.T) {
	p := load(t, "minimal.yaml")
	const absent = ""
	for _, row := range []struct {
		label               Injection
		onPod, onServiceAcc string
		prometheus          bool
		want                Reason
	}{
		{"", absent, absent, true, NotLabelled},
		{"", "true", "true", true, NotLabelled},
		{"disabled", "true", absent, true, NotLabelled},

		{"enabled", absent, absent, true, Granted},
		{"enabled", absent, absent, false, NotPrometheus},
		{"enabled", "true", absent, true, Granted},
		{"enabled", "true", absent, false, NotPrometheus},
		{"enabled", absent, "true", true, Granted},
		{"enabled", absent, "true", false, NotPrometheus},
		{"enabled", "false", absent, true, OptedOut},
		{"enabled", absent, "false", true, OptedOut},
		{"enabled", "true", "false", true, OptedOut},
		{"enabled", "false", "true", true, OptedOut},
		{"enabled", "yes", absent, true, InvalidAnnotation},
		{"enabled", absent, "True", true, InvalidAnnotation},

		{"annotated", absent, absent, true, NotAsked},
		{"annotated", absent, absent, false, NotPrometheus},
		{"annotated", "true", absent, true, Granted},
		{"annotated", absent, "true", true, Granted},
		{"annotated", absent, "true", false, NotPrometheus},
		{"annotated", "false", "true", true, OptedOut},
		{"annotated", "true", "false", true, OptedOut},
	} {
		r := Request{Namespace: "monitoring", Injection: row.label, ServiceAccount: "prometheus", Prometheus: row.prometheus}
		if row.onPod != absent {
			r.PodAnnotations = map[string]string{AnnotationInject: row.onPod}
		}
		if row.onServiceAcc != absent {
			r.ServiceAccountAnnotations = map[string]string{AnnotationInject: row.onServiceAcc}
		}
		d := p.Decide(r)
		if d.Reason != row.want || d.Inject != (row.want == Granted) {
			t.Errorf("label %q, pod %q, service account %q, Prometheus %v: %v %s, want %s",
				row.label, row.onPod, row.onServiceAcc, row.prometheus, d.Inject, d.Reason, row.want)
		}
	}
}

func TestDecisionsSayWhatIsMissing(t *testing.T) {
	p := load(t, "full.yaml")
	granted := Request{Namespace: "team-a", Injection: "enabled", ServiceAccount: "x-prometheus", Prometheus: true}
	for name, row := range map[string]struct {
		change func(*Request)
		reason Reason
		says   string
	}{
		"other service account": {func(r *Request) { r.ServiceAccount = "default" }, NotGranted, "service account default of namespace team-a"},
		"other namespace":       {func(r *Request) { r.Namespace = "teams" }, NotGranted, "namespace teams"},
		"case counts":           {func(r *Request) { r.Namespace = "Team-a" }, NotGranted, "Team-a"},
		"destination not granted": {func(r *Request) { r.PodAnnotations = map[string]string{AnnotationDestinations: "central, elsewhere"} },
			UnknownDestination, `"elsewhere"`},
		"destinations left empty": {func(r *Request) { r.PodAnnotations = map[string]string{AnnotationDestinations: ""} }, UnknownDestination,
			"central, backup"},
		"pod cannot widen account": {func(r *Request) {
			r.ServiceAccountAnnotations = map[string]string{AnnotationDestinations: "backup"}
			r.PodAnnotations = map[string]string{AnnotationDestinations: "central"}
		}, UnknownDestination, `"central"`},
		"environment of an earlier version": {func(r *Request) { r.PodAnnotations = map[string]string{AnnotationEnvironment: "never"} },
			InvalidAnnotation, "remove it"},
		"delivery misspelt": {func(r *Request) { r.PodAnnotations = map[string]string{AnnotationDelivery: "SigV4"} }, InvalidAnnotation,
			"auto, sigv4 or relay"},
		"delivery that the policy rules out": {func(r *Request) { r.PodAnnotations = map[string]string{AnnotationDelivery: "sigv4"} },
			InvalidAnnotation, "destination backup (relay): remove the annotation"},
		"environment misspelt": {func(r *Request) { r.PodAnnotations = map[string]string{AnnotationEnvironment: "off"} }, InvalidAnnotation,
			"sidecar or container"},
	} {
		r := granted
		row.change(&r)
		if d := p.Decide(r); d.Inject || d.Reason != row.reason || !strings.Contains(d.Warning, row.says) {
			t.Errorf("%s: %v %s %q, want %s naming %q", name, d.Inject, d.Reason, d.Warning, row.reason, row.says)
		}
	}
	granted.Prometheus, granted.Resembles = false, "main"
	for name, row := range map[string]struct {
		injection Injection
		account   string
		says      string
	}{
		"a container that may be Prometheus":     {InjectionEnabled, "", `container "main" may be Prometheus`},
		"and the pod's namespace waits for asks": {InjectionAnnotated, "", ""},
		"and the service account asks":           {InjectionAnnotated, "true", AnnotationContainer},
		"and the service account opted out":      {InjectionEnabled, "false", ""},
	} {
		r := granted
		r.Injection, r.ServiceAccountAnnotations = row.injection, map[string]string{AnnotationInject: row.account}
		if d := p.Decide(r); d.Inject || (d.Warning != "") != (row.says != "") || !strings.Contains(d.Warning, row.says) {
			t.Errorf("%s: %v %s %q, want a warning with %q", name, d.Inject, d.Reason, d.Warning, row.says)
		}
	}
	granted.Prometheus, granted.Resembles = true, ""
	p.Paused = true
	if d := p.Decide(granted); d.Reason != Paused || d.Warning == "" {
		t.Errorf("paused: %s %q", d.Reason, d.Warning)
	}
}

func TestEntitlement(t *testing.T) {
	p := load(t, "full.yaml")
	for name, row := range map[string]struct {
		subject      Subject
		annotations  map[string]string
		destinations []string
		environment  Environment
		ha           string
	}{
		"all granted destinations": {Subject{"monitoring", "prometheus-k8s"}, nil, []string{"central", "backup"}, EnvironmentSidecar, ""},
		"narrowed": {Subject{"monitoring", "prometheus-k8s"}, map[string]string{AnnotationDestinations: " backup "},
			[]string{"backup"}, EnvironmentSidecar, ""},
		"the policy's order": {Subject{"monitoring", "prometheus-k8s"}, map[string]string{AnnotationDestinations: "backup,central"},
			[]string{"central", "backup"}, EnvironmentSidecar, ""},
		"the grant's settings": {Subject{"legacy", "prometheus"}, nil, []string{"central"}, EnvironmentContainer, "legacy-pair"},
		"a pod may ask for less": {Subject{"legacy", "prometheus"}, map[string]string{AnnotationEnvironment: "sidecar"}, []string{"central"},
			EnvironmentSidecar, "legacy-pair"},
		"and not for more": {Subject{"monitoring", "prometheus-k8s"}, map[string]string{AnnotationEnvironment: "container"},
			[]string{"central", "backup"}, EnvironmentSidecar, ""},
	} {
		d := p.Decide(
			Request{
				Namespace:      row.subject.Namespace,
				Injection:      "enabled",
				ServiceAccount: row.subject.ServiceAccount,
				Prometheus:     true,
				PodAnnotations: row.annotations,
			},
		)
		if diff := cmp.Diff(row.destinations, names(d.Destinations)); diff != "" || d.Environment != row.environment || d.HA != row.ha {
			t.Errorf("%s: destinations %v, environment %s, ha %q", name, names(d.Destinations), d.Environment, d.HA)
		}
	}
	if e, _ := p.Entitled(Subject{"legacy", "prometheus"}); e.IRSA.RoleName() != "ampbridge.dev-aks.central" {
		t.Errorf("IRSA = %s", e.IRSA)
	}
}

// TestDeliveryNarrows: a pod decides where the policy leaves it open, and changes nothing
// of what the policy says. The policy itself stays as it is.
func TestDeliveryNarrows(t *testing.T) {
	for name, row := range map[string]struct {
		central, backup Delivery
		asked           Delivery
		wantCentral     Delivery
		wantBackup      Delivery
	}{
		"not asked":                 {DeliveryAuto, DeliveryRelay, "", DeliveryAuto, DeliveryRelay},
		"auto asks for nothing":     {DeliverySigV4, DeliveryRelay, DeliveryAuto, DeliverySigV4, DeliveryRelay},
		"both are open, relay":      {DeliveryAuto, DeliveryAuto, DeliveryRelay, DeliveryRelay, DeliveryRelay},
		"both are open, sigv4":      {DeliveryAuto, DeliveryAuto, DeliverySigV4, DeliverySigV4, DeliverySigV4},
		"one is what it asks for":   {DeliveryAuto, DeliveryRelay, DeliveryRelay, DeliveryRelay, DeliveryRelay},
		"both are what it asks for": {DeliverySigV4, DeliverySigV4, DeliverySigV4, DeliverySigV4, DeliverySigV4},
		"one is another":            {DeliveryAuto, DeliveryRelay, DeliverySigV4, "", ""},
		"the first is another":      {DeliverySigV4, DeliveryAuto, DeliveryRelay, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := load(t, "full.yaml")
			p.Destinations[0].Delivery, p.Destinations[1].Delivery = row.central, row.backup
			r := Request{Namespace: "monitoring", Injection: "enabled", ServiceAccount: "prometheus-k8s", Prometheus: true}
			if row.asked != "" {
				r.PodAnnotations = map[string]string{AnnotationDelivery: string(row.asked)}
			}
			d := p.Decide(r)
			if row.wantCentral == "" {
				if d.Inject || d.Reason != InvalidAnnotation || !strings.Contains(d.Warning, "remove the annotation") {
					t.Errorf("%v %s %q, want it refused with the fix", d.Inject, d.Reason, d.Warning)
				}
			} else if !d.Inject || d.Destinations[0].Delivery != row.wantCentral || d.Destinations[1].Delivery != row.wantBackup {
				t.Errorf("%s %q: %+v", d.Reason, d.Warning, d.Destinations)
			}
			if p.Destinations[0].Delivery != row.central || p.Destinations[1].Delivery != row.backup {
				t.Error("Decide changes the policy")
			}
		})
	}
}

// TestIRSAFollowsTheDestinations: the annotation gives an identity, and that of a
// destination that was left out is not wanted.
func TestIRSAFollowsTheDestinations(t *testing.T) {
	p := load(t, "full.yaml")
	p.Grants[1].Destinations = []string{"backup"}
	p.Grants = append(
		p.Grants,
		Grant{Namespaces: []Glob{"legacy"}, ServiceAccounts: []Glob{"prometheus"}, Destinations: []string{"central"}, Mode: ModePrometheus,
			IRSA: true},
	)
	request := Request{Namespace: "legacy", Injection: "enabled", ServiceAccount: "prometheus", Prometheus: true}
	for destinations, want := range map[string]string{"backup,central": "ampbridge.dev-aks.backup", "backup": "ampbridge.dev-aks.backup",
		"central": "ampbridge.dev-aks.central"} {
		request.ServiceAccountAnnotations = map[string]string{AnnotationDestinations: destinations}
		if got := p.Decide(request).IRSA; got.RoleName() != want {
			t.Errorf("%s: %s, want %s", destinations, got, want)
		}
	}
	p.Grants[2].IRSA = false
	request.ServiceAccountAnnotations = map[string]string{AnnotationDestinations: "central"}
	if got := p.Decide(request); !got.Inject || !got.IRSA.IsZero() {
		t.Errorf("central, whose grant does not ask for it: %s", got.IRSA)
	}
}

func TestGrantsAddUp(t *testing.T) {
	p := load(t, "full.yaml")
	p.Grants = append(
		p.Grants,
		Grant{
			Namespaces:      []Glob{"legacy"},
			ServiceAccounts: []Glob{"*"},
			Destinations:    []string{"backup"},
			Environment:     EnvironmentSidecar,
			HA:              "other",
		},
	)
	e, ok := p.Entitled(Subject{"legacy", "prometheus"})
	if diff := cmp.Diff([]string{"central", "backup"}, names(e.Destinations)); !ok || diff != "" {
		t.Errorf("destinations: %s", diff)
	}
	if e.Environment != EnvironmentSidecar || e.HA != "legacy-pair" {
		t.Errorf("environment %s, ha %s: the careful, and the first, win", e.Environment, e.HA)
	}
}

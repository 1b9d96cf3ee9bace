package inject

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// Every injected pod carries the mark that it would get again. Otherwise each pod of its kind would
// always look outdated.
func TestMarkIsStable(t *testing.T) {
	files, err := filepath.Glob("testdata/*.in.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no pods in testdata", err)
	}
	compared := 0
	for _, file := range files {
		data := readFile(t, filepath.Base(file))
		o := options(t)
		pod := decode(t, data)
		decision := granted(t, o.Policy, pod.Metadata.Namespace)
		operations, outcome := Inject(pod, decision, o)
		if !outcome.Inject || operations == nil {
			continue // a refused pod has no mark
		}
		compared++
		carried, today, err := Mark(decode(t, injected(t, data, o)), decision.Entitlement, o.Policy)
		if err != nil {
			t.Errorf("%s: %v", file, err)
		}
		testkit.Equal(t, file+": the mark would change", carried, today)
	}
	if compared == 0 {
		t.Error("no pod of testdata was injected")
	}
}

func TestMarkFollowsThePolicy(t *testing.T) {
	data := []byte(`{"metadata": {"name": "p", "namespace": "monitoring"}, "spec": {
		"containers": [{"name": "prometheus", "image": "prom/prometheus", "args": ["--config.file=/etc/p/p.yml", "--config.auto-reload"],
			"volumeMounts": [{"name": "config", "mountPath": "/etc/p"}]}],
		"volumes": [{"name": "config", "configMap": {"name": "c"}}]}}`)
	o := options(t)
	e := granted(t, o.Policy, "monitoring").Entitlement
	pod := decode(t, injected(t, data, o))
	for _, test := range []struct {
		name   string
		change func(*policy.Policy, *policy.Entitlement)
		differ bool
	}{
		{"nothing", func(*policy.Policy, *policy.Entitlement) {}, false},
		{"another grant", func(p *policy.Policy, _ *policy.Entitlement) {
			p.Grants = append(p.Grants, policy.Grant{Namespaces: []policy.Glob{"elsewhere"}})
		}, false},
		{"destinations", func(_ *policy.Policy, e *policy.Entitlement) { e.Destinations = nil }, true},
		{"session", func(p *policy.Policy, _ *policy.Entitlement) { p.Session.Duration = policy.Duration(time.Hour) }, true},
		{"sts, with a variable's sign", func(p *policy.Policy, _ *policy.Entitlement) { p.STS.ProxyURL = "http://proxy/$x" }, true},
		{"cluster", func(p *policy.Policy, _ *policy.Entitlement) { p.Cluster.Name = "other" }, true},
		{"ha", func(_ *policy.Policy, e *policy.Entitlement) { e.HA = "group" }, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, e := *o.Policy, e
			test.change(&p, &e)
			carried, today, err := Mark(pod, e, &p)
			testkit.Must(t, err)
			if got := !cmp.Equal(carried, today); got != test.differ {
				t.Errorf("differ: got %v, want %v; carried %+v, today %+v", got, test.differ, carried, today)
			}
			// A pod that is injected under the changed policy carries today's mark.
			again := o
			again.Policy = &p
			if test.differ && len(e.Destinations) > 0 {
				operations, d := Inject(decode(t, data), policy.Decision{Inject: true, Entitlement: e}, again)
				if !d.Inject {
					t.Fatal(d)
				}
				changed := decode(t, apply(t, data, operations))
				if carried, _, err := Mark(changed, e, &p); err != nil || carried.Policy != today.Policy {
					t.Errorf("injected now: carried %+v, %v; want %+v", carried, err, today)
				}
				markStays(t, changed, e, &p)
			}
		})
	}
	if _, _, err := Mark(decode(t, data), e, o.Policy); err == nil {
		t.Error("a pod without an injection has a mark")
	}
}

func TestMarkInWords(t *testing.T) {
	for want, m := range map[string]Injected{
		"delivery sigv4: a container of the pod reloads Prometheus": {Destinations: []string{"a", "b"}, Reload: ReloadByReloader,
			Delivery: map[string]policy.Delivery{"a": policy.DeliverySigV4, "b": policy.DeliverySigV4}},
		"delivery relay: it is so": {Destinations: []string{"a"}, Reload: ReloadNone, Why: "it is so",
			Delivery: map[string]policy.Delivery{"a": policy.DeliveryRelay}},
		"delivery a sigv4, b relay: it is so": {Destinations: []string{"a", "b"}, Why: "it is so",
			Delivery: map[string]policy.Delivery{"a": policy.DeliverySigV4, "b": policy.DeliveryRelay}},
		"nothing is known to reload Prometheus": {Reload: ReloadNone},
		"start-only":                            {Destinations: []string{"a"}, Reload: sidecarconfig.StartOnly},
	} {
		if got := m.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

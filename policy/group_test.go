package policy

import (
	"strings"
	"testing"
)

// statefulSet is the workload of prometheus-operator's pods.
func statefulSet(name, shard string) Workload {
	return Workload{Kind: "StatefulSet", Controller: name, Shard: shard}
}

// TestGroups: AMP keeps one replica of a group, so two pods are in one group exactly if
// they are replicas of each other.
func TestGroups(t *testing.T) {
	p := load(t, "full.yaml")
	p.Grants = append(p.Grants, Grant{
		Namespaces: []Glob{"tenant-*"}, ServiceAccounts: []Glob{"*"}, Destinations: []string{"central"}, HA: "tenants",
	})
	for name, c := range map[string]struct {
		namespace   string
		workload    Workload
		annotations map[string]string
		want        string
	}{
		"a pod without a controller":    {"legacy", Workload{}, nil, "legacy-pair"},
		"a StatefulSet":                 {"legacy", statefulSet("prometheus-k8s", ""), nil, "legacy-pair/prometheus-k8s"},
		"another of the same account":   {"legacy", statefulSet("prometheus-apps", ""), nil, "legacy-pair/prometheus-apps"},
		"a Deployment":                  {"legacy", Workload{Kind: "Deployment", Controller: "server"}, nil, "legacy-pair/server"},
		"the one with the group's name": {"legacy", statefulSet("legacy-pair", ""), nil, "legacy-pair"},
		"the first shard":               {"legacy", statefulSet("prometheus-k8s", "0"), nil, "legacy-pair/prometheus-k8s"},
		"the second shard":              {"legacy", statefulSet("prometheus-k8s-shard-1", "1"), nil, "legacy-pair/prometheus-k8s-shard-1"},
		"a shard with another name":     {"legacy", statefulSet("prom", "2"), nil, "legacy-pair/prom-shard-2"},
		"a shard without a controller":  {"legacy", Workload{Shard: "3"}, nil, "legacy-pair-shard-3"},
		"a pair of two workloads": {"legacy", statefulSet("prometheus-a", ""), map[string]string{AnnotationHA: "prometheus"},
			"legacy-pair/prometheus"},
		"and the other of the two": {"legacy", statefulSet("prometheus-b", ""), map[string]string{AnnotationHA: "prometheus"},
			"legacy-pair/prometheus"},
		"the group itself, by annotation": {"legacy", statefulSet("prometheus-k8s", ""), map[string]string{AnnotationHA: "legacy-pair"},
			"legacy-pair"},
		"shards by annotation": {"legacy", statefulSet("prometheus-k8s-shard-1", "1"), map[string]string{AnnotationHA: "legacy-pair"},
			"legacy-pair-shard-1"},
		"a grant for several namespaces": {"tenant-a", statefulSet("prometheus-k8s", "0"), nil, "tenants/tenant-a/prometheus-k8s"},
		"and another one of them":        {"tenant-b", statefulSet("prometheus-k8s", "0"), nil, "tenants/tenant-b/prometheus-k8s"},
		"a grant without ha":             {"monitoring", statefulSet("prometheus-k8s", "1"), nil, ""},
	} {
		account := "prometheus"
		if c.namespace == "monitoring" {
			account = "prometheus-k8s"
		}
		d := p.Decide(Request{
			Namespace: c.namespace, Injection: InjectionEnabled, ServiceAccount: account, Prometheus: true,
			PodAnnotations: c.annotations, Workload: c.workload,
		})
		if !d.Inject || d.HA != c.want {
			t.Errorf("%s: group %q, want %q (%s %s)", name, d.HA, c.want, d.Reason, d.Warning)
		}
	}
}

// TestNoGroup: pods that cannot be replicas are refused where a grant says that they are,
// and only there.
func TestNoGroup(t *testing.T) {
	p := load(t, "full.yaml")
	daemonSet := Workload{Kind: "DaemonSet", Controller: "agent"}
	for name, c := range map[string]struct {
		namespace, account string
		workload           Workload
		annotation         string
		reason             Reason
		says               string
	}{
		"a DaemonSet":                  {"legacy", "prometheus", daemonSet, "", NotReplicas, "DaemonSet agent scrape different targets"},
		"a DaemonSet without ha":       {"monitoring", "prometheus-k8s", daemonSet, "", Granted, ""},
		"a shard that is none":         {"legacy", "prometheus", Workload{Shard: "$1"}, "", NotReplicas, LabelShard},
		"a shard that is none, no ha":  {"monitoring", "prometheus-k8s", Workload{Shard: "$1"}, "", Granted, ""},
		"an annotation that is a rule": {"legacy", "prometheus", Workload{}, "$1", InvalidAnnotation, AnnotationHA},
		"an annotation with a slash":   {"legacy", "prometheus", Workload{}, "other/pair", InvalidAnnotation, "DNS label"},
	} {
		d := p.Decide(Request{
			Namespace: c.namespace, Injection: InjectionEnabled, ServiceAccount: c.account, Prometheus: true,
			PodAnnotations: map[string]string{AnnotationHA: c.annotation}, Workload: c.workload,
		})
		if d.Reason != c.reason || !strings.Contains(d.Warning, c.says) {
			t.Errorf("%s: %s %q", name, d.Reason, d.Warning)
		}
	}
}

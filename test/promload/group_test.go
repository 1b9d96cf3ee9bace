package promload

import (
	"testing"

	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/relabel"
	"go.yaml.in/yaml/v4"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// replicated is a policy in which one service account, and one of each tenant, have ha.
const replicated = `
apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev}
trust: {manage: none}
destinations:
- {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001"}
grants:
- {namespaces: [monitoring], serviceAccounts: [prometheus-k8s], destinations: [central], ha: eu}
- {namespaces: ["team-*"], serviceAccounts: [prometheus-k8s], destinations: [central], ha: teams}
`

// TestReplicasAtAMP has Prometheus relabel what pods with ha send. AMP keeps one replica
// of each value of cluster, so replicas of one workload and shard must have one value,
// and all others another one. Every series is in the election.
func TestReplicasAtAMP(t *testing.T) {
	p, err := policy.Parse([]byte(replicated))
	testkit.Must(t, err)
	// set names those that scrape the same targets.
	pods := []struct {
		set, namespace, controller, shard, pod string
		annotations                            map[string]string
	}{
		{set: "shard 0", namespace: "monitoring", controller: "prometheus-k8s", shard: "0", pod: "prometheus-k8s-0"},
		{set: "shard 0", namespace: "monitoring", controller: "prometheus-k8s", shard: "0", pod: "prometheus-k8s-1"},
		{set: "shard 1", namespace: "monitoring", controller: "prometheus-k8s-shard-1", shard: "1", pod: "prometheus-k8s-shard-1-0"},
		{set: "shard 1", namespace: "monitoring", controller: "prometheus-k8s-shard-1", shard: "1", pod: "prometheus-k8s-shard-1-1"},
		{set: "another Prometheus", namespace: "monitoring", controller: "prometheus-apps", shard: "0", pod: "prometheus-apps-0"},
		{set: "another Prometheus", namespace: "monitoring", controller: "prometheus-apps", shard: "0", pod: "prometheus-apps-1"},
		{set: "an agent", namespace: "monitoring", controller: "prom-agent-k8s", shard: "0", pod: "prom-agent-k8s-0"},
		{set: "two workloads", namespace: "monitoring", controller: "prometheus-a", pod: "prometheus-a-0",
			annotations: map[string]string{policy.AnnotationHA: "ab"}},
		{set: "two workloads", namespace: "monitoring", controller: "prometheus-b", pod: "prometheus-b-0",
			annotations: map[string]string{policy.AnnotationHA: "ab"}},
		{set: "team a", namespace: "team-a", controller: "prometheus-k8s", shard: "0", pod: "prometheus-k8s-0"},
		{set: "team b", namespace: "team-b", controller: "prometheus-k8s", shard: "0", pod: "prometheus-k8s-0"},
	}
	clusters := map[string]string{} // of each set
	sets := map[string]string{}     // of each cluster
	for _, c := range pods {
		d := p.Decide(policy.Request{
			Namespace: c.namespace, Injection: policy.InjectionEnabled, ServiceAccount: "prometheus-k8s", Prometheus: true,
			PodAnnotations: c.annotations, Workload: policy.Workload{Kind: "StatefulSet", Controller: c.controller, Shard: c.shard},
		})
		if !d.Inject {
			t.Fatalf("%s: %s", c.pod, d.Warning)
		}
		block := sidecarconfig.New(p, d.Entitlement).Destinations[0].For(c.pod)
		for _, series := range []labels.Labels{
			labels.FromStrings("__name__", "up", "prometheus_replica", c.pod),
			labels.FromStrings("__name__", "up", "cluster", "federated"),
		} {
			for _, b := range []policy.Block{block, block.ByRelay("127.0.0.1:39999", "/password")} {
				sent := relabelled(t, b, series)
				cluster, replica := sent.Get("cluster"), sent.Get("__replica__")
				if replica != c.pod || sent.Has("prometheus_replica") {
					t.Errorf("%s of %s sends %s", c.pod, c.set, sent)
				}
				if known, seen := clusters[c.set]; seen && known != cluster {
					t.Errorf("%s is in the group %q, and its replicas are in %q: AMP keeps both", c.pod, cluster, known)
				}
				if other, seen := sets[cluster]; seen && other != c.set {
					t.Errorf("%s and %s are in the group %q: AMP drops the samples of one", c.set, other, cluster)
				}
				clusters[c.set], sets[cluster] = cluster, c.set
			}
		}
	}
	if len(clusters) != 7 {
		t.Errorf("groups: %v", clusters)
	}
}

// relabelled returns what Prometheus makes of a series before it sends it.
func relabelled(t *testing.T, b policy.Block, series labels.Labels) labels.Labels {
	t.Helper()
	text, err := yaml.Marshal(map[string]any{"remote_write": []policy.Block{b}})
	testkit.Must(t, err)
	c, err := load(text)
	testkit.Must(t, err)
	builder := labels.NewBuilder(series)
	if !relabel.ProcessBuilder(builder, c.RemoteWriteConfigs[0].WriteRelabelConfigs...) {
		t.Fatalf("%s is not sent", series)
	}
	return builder.Labels()
}

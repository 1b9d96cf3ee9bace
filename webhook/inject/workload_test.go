package inject

import (
	"testing"

	"github.com/ampbridge/ampbridge/policy"
)

func TestWorkload(t *testing.T) {
	for name, c := range map[string]struct {
		metadata Metadata
		want     policy.Workload
	}{
		"none": {Metadata{Name: "p"}, policy.Workload{}},
		"an owner that is not a controller": {
			Metadata{Owners: []Owner{{Kind: "Release", Name: "r"}}},
			policy.Workload{},
		},
		"the operator's": {
			Metadata{
				Labels: map[string]string{policy.LabelShard: "1"},
				Owners: []Owner{{Kind: "StatefulSet", Name: "prometheus-k8s-shard-1", Controller: true}},
			},
			policy.Workload{Kind: "StatefulSet", Controller: "prometheus-k8s-shard-1", Shard: "1"},
		},
		"a Deployment": {
			Metadata{
				Labels: map[string]string{"pod-template-hash": "5d4f8c9b7"},
				Owners: []Owner{{Kind: "ReplicaSet", Name: "server-5d4f8c9b7", Controller: true}},
			},
			policy.Workload{Kind: "Deployment", Controller: "server"},
		},
		"a ReplicaSet of its own": {
			Metadata{Owners: []Owner{{Kind: "ReplicaSet", Name: "server-5d4f8c9b7", Controller: true}}},
			policy.Workload{Kind: "ReplicaSet", Controller: "server-5d4f8c9b7"},
		},
	} {
		if got := Workload(&Pod{Metadata: c.metadata}); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	// Kubernetes does not validate the name of an owner, and the group is a replacement in a
	// relabelling rule.
	forged := Workload(&Pod{Metadata: Metadata{Owners: []Owner{{Kind: "StatefulSet", Name: "$(HOME)/$1", Controller: true}}}})
	for _, c := range forged.Controller {
		if c == '$' || c == '/' || c == '(' {
			t.Errorf("a forged name comes through: %q", forged.Controller)
		}
	}
}

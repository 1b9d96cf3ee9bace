package breaker_test

import (
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/breaker"
)

func TestOf(t *testing.T) {
	hash := map[string]string{"pod-template-hash": "5d4f8"}
	for _, test := range []struct {
		name, kind, owner string
		labels            map[string]string
		want              string
	}{
		{"no controller", "", "", hash, "Pod/p"},
		{"statefulset", "StatefulSet", "prometheus-k8s", nil, "StatefulSet/prometheus-k8s"},
		{"deployment's replicaset", "ReplicaSet", "server-5d4f8", hash, "Deployment/server"},
		{"replicaset of its own", "ReplicaSet", "server", nil, "ReplicaSet/server"},
		{"replicaset of another name", "ReplicaSet", "server-1", hash, "ReplicaSet/server-1"},
		{"the label alone says nothing", "DaemonSet", "agent-5d4f8", hash, "DaemonSet/agent-5d4f8"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := breaker.Of("ns", "p", test.kind, test.owner, test.labels).String(); got != test.want {
				t.Errorf("got %s, want %s", got, test.want)
			}
		})
	}
}

// Everything that could fix a hanging sidecar is another revision, and nothing else.
func TestRevisionFollowsWhatCouldHelp(t *testing.T) {
	revision := func(more, image string) string {
		t.Helper()
		p := policytest.Parse(t, policytest.Granting("prometheus", "monitoring")+more)
		return breaker.Revision(p, policytest.Entitled(t, p, "monitoring", "prometheus"), image)
	}
	first := revision("", "a")
	for _, test := range []struct {
		name, more, image string
		same              bool
	}{
		{"again", "", "a", true},
		{"audit", "audit: {repair: evict}", "a", true},
		{"webhook's image", "", "b", false},
		{"policy's image", "sidecar: {image: b}", "a", false},
		{"pull secret", "sidecar: {imagePullSecrets: [{name: s}]}", "a", false},
		{"limits", "sidecar: {resources: {limits: {memory: 512Mi}}}", "a", false},
		{"token", "token: {audience: other}", "a", false},
		{"session", "session: {duration: 1h}", "a", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := revision(test.more, test.image) == first; got != test.same {
				t.Errorf("same revision: got %v, want %v", got, test.same)
			}
		})
	}
}

func TestState(t *testing.T) {
	w := breaker.Workload{Namespace: "ns", Kind: "StatefulSet", Name: "prometheus"}
	entry := breaker.Entry{Workload: w, Revision: "one", Cause: "ImagePullBackOff", Since: time.Unix(1, 0).UTC()}
	var empty breaker.State
	state := empty.With(entry)
	if got, open := state.Open(w, "one"); !open || got != entry {
		t.Errorf("got %+v, %v", got, open)
	}
	if _, open := state.Open(w, "two"); open {
		t.Error("open for another revision")
	}
	if got, found := state.Entry(w); !found || got.Revision != "one" {
		t.Errorf("got %+v, %v", got, found)
	}
	for _, other := range []breaker.Workload{
		{Namespace: "ns2", Kind: w.Kind, Name: w.Name}, {Namespace: w.Namespace, Kind: "Deployment", Name: w.Name},
		{Namespace: w.Namespace, Kind: w.Kind, Name: "x"},
	} {
		if _, open := state.Open(other, "one"); open {
			t.Errorf("open for %+v", other)
		}
	}
	if len(empty) != 0 || len(state.Without(w)) != 0 || len(state) != 1 {
		t.Error("a state was changed in its place")
	}
	garbage := breaker.State{"ns.StatefulSet.prometheus": "{", "other": state["ns.StatefulSet.prometheus"]}
	if _, open := garbage.Open(w, "one"); open || len(garbage.Entries()) != 0 {
		t.Error("open by an entry that cannot be read")
	}
	testkit.Equal(t, "entries", []breaker.Entry{entry}, state.Entries())
	long := w
	long.Name = strings.Repeat("n", 253)
	longer := state.With(breaker.Entry{Workload: long, Revision: "one"})
	for key := range longer {
		if len(key) > 253 {
			t.Errorf("a key of %d characters", len(key))
		}
	}
	if _, open := longer.Open(long, "one"); !open {
		t.Error("not open for a long name")
	}
	if d := (breaker.Entry{Workload: long, Cause: "ImagePullBackOff"}).Decision(); d.Inject || d.Reason != breaker.CircuitOpen ||
		len(d.Warning) > 240 ||
		!strings.Contains(d.Warning, "ImagePullBackOff") {
		t.Errorf("got %+v", d)
	}
}

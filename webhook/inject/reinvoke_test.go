package inject

import (
	stdjson "encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/otherwebhooks"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// Changes of other webhooks to an injected pod are repaired, or the injection is undone. The next
// call changes nothing.
func TestReinvocation(t *testing.T) {
	for _, name := range pods {
		data := readFile(t, name+".in.json")
		whole := injected(t, data, options(t))
		for _, change := range otherwebhooks.Changes() {
			t.Run(name+"/"+change.Name, func(t *testing.T) { reinvoked(t, data, whole, change) })
		}
	}
}

func reinvoked(t *testing.T, data, whole []byte, change otherwebhooks.Change) {
	t.Helper()
	changed := generic(t, whole).(map[string]any)
	change.Do(changed)
	text, err := stdjson.Marshal(changed)
	testkit.Must(t, err)
	o := options(t)
	ops, d := Inject(decode(t, text), granted(t, o.Policy, decode(t, whole).Metadata.Namespace), o)
	after := apply(t, text, ops)
	want := change.Want
	if want == otherwebhooks.Restored && cmp.Equal(canonical(t, text, false), canonical(t, whole, false)) {
		want = otherwebhooks.Kept // the pod has nothing that the change applies to
	}
	switch want {
	case otherwebhooks.Restored:
		testkit.Equal(t, "the pod", canonical(t, whole, false), canonical(t, after, false))
	case otherwebhooks.Kept, otherwebhooks.Lost:
		if len(ops) > 0 {
			t.Errorf("operations: %s", asYAML(t, ops))
		}
	case otherwebhooks.TakenBack:
		without := canonical(t, after, true)
		// The other webhook's changes to the pod itself stay.
		volumes := without["spec"].(map[string]any)["volumes"].([]any)
		without["spec"].(map[string]any)["volumes"] = slices.DeleteFunc(volumes, func(v any) bool {
			return v.(map[string]any)["name"] == "cover"
		})
		before := canonical(t, data, true)
		for _, member := range []string{"volumes", "initContainers"} {
			testkit.Equal(t, member, before["spec"].(map[string]any)[member], without["spec"].(map[string]any)[member])
		}
		if !strings.Contains(d.Warning, "is undone") || len(d.Warning) > 256 {
			t.Errorf("the warning: %q", d.Warning)
		}
		takenBack(t, o.Policy, after, d)
	}
	switch want {
	case otherwebhooks.Restored, otherwebhooks.Injected, otherwebhooks.Kept:
		allOrNothing(t, decode(t, after))
		if more, next := Inject(decode(t, after), granted(t, o.Policy, decode(t, whole).Metadata.Namespace), o); d.Reason != AlreadyInjected ||
			next.Reason != AlreadyInjected || len(more) > 0 {
			t.Errorf("%s, but the second time %s with %s", d.Reason, next.Reason, asYAML(t, more))
		}
	case otherwebhooks.Lost:
		if d.Inject || d.Reason != PartlyInjected || d.Warning == "" {
			t.Errorf("%+v", d)
		}
	}
}

// The same properties hold if several webhooks have changed the pod.
func TestSeveralOtherWebhooks(t *testing.T) {
	p, changes := testPolicy(t), otherwebhooks.Changes()
	seen := map[policy.Reason]int{}
	for _, name := range pods {
		whole := injected(t, readFile(t, name+".in.json"), options(t))
		for seed := range uint64(300) {
			random := rand.New(rand.NewPCG(seed, 1))
			pod := generic(t, whole).(map[string]any)
			var done []string
			for range 2 + random.IntN(3) {
				change := changes[random.IntN(len(changes))]
				if applies(change, pod) {
					done = append(done, change.Name)
				}
			}
			text, err := stdjson.Marshal(pod)
			testkit.Must(t, err)
			seen[holds(t, p, text)]++
			if t.Failed() {
				t.Fatalf("%s, seed %d: %q", name, seed, done)
			}
		}
	}
	for _, reason := range []policy.Reason{AlreadyInjected, PartlyInjected, MountConflict} {
		if seen[reason] == 0 {
			t.Errorf("no pod was %s: %v", reason, seen)
		}
	}
}

// applies makes a change. It reports whether the parts that it changes still exist after earlier
// changes.
func applies(change otherwebhooks.Change, pod map[string]any) (done bool) {
	defer func() { done = recover() == nil }()
	change.Do(pod)
	return true
}

// If the sidecar can be repaired, the patch writes nothing else.
func TestRepairIsSmall(t *testing.T) {
	o := options(t)
	whole := injected(t, readFile(t, "operator.in.json"), o)
	for _, change := range otherwebhooks.Changes() {
		want, repaired := map[string]string{
			"restartPolicy dropped by older types": "add /spec/initContainers/0/restartPolicy",
			"startup probe removed":                "add /spec/initContainers/0/startupProbe",
			"made root": "add /spec/initContainers/0/securityContext/runAsUser, " +
				"add /spec/initContainers/0/securityContext/runAsNonRoot",
			"security context removed":                "add /spec/initContainers/0/securityContext",
			"pod's name removed from the variables":   "add /spec/initContainers/0/env/-",
			"target mount removed":                    "add /spec/initContainers/0/volumeMounts/-",
			"all mounts removed":                      "add /spec/initContainers/0/volumeMounts",
			"a mount added and restartPolicy dropped": "add /spec/initContainers/0/restartPolicy",
		}[change.Name]
		if !repaired {
			continue
		}
		changed := generic(t, whole).(map[string]any)
		change.Do(changed)
		text, err := stdjson.Marshal(changed)
		testkit.Must(t, err)
		ops, _ := Inject(decode(t, text), granted(t, o.Policy, decode(t, whole).Metadata.Namespace), o)
		var got []string
		for _, op := range ops {
			got = append(got, op.Operation+" "+op.Path)
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%s: %q, want %q", change.Name, got, want)
		}
	}
}

// canonical returns a pod with its lists in a fixed order, without empty lists, and without
// readOnly of mounts if plain is set.
func canonical(t *testing.T, data []byte, plain bool) map[string]any {
	t.Helper()
	pod := generic(t, data).(map[string]any)
	spec := pod["spec"].(map[string]any)
	key := func(v any) string {
		m := v.(map[string]any)
		return fmt.Sprint(m["name"], m["mountPath"])
	}
	order := func(in map[string]any, member string) {
		items, _ := in[member].([]any)
		slices.SortFunc(items, func(a, b any) int { return strings.Compare(key(a), key(b)) })
		if len(items) == 0 {
			delete(in, member)
		}
	}
	order(spec, "volumes")
	for _, c := range containersOf(pod) {
		order(c, "env")
		order(c, "volumeMounts")
		if mounts, _ := c["volumeMounts"].([]any); plain {
			for _, m := range mounts {
				delete(m.(map[string]any), "readOnly")
			}
		}
	}
	if list, _ := spec["initContainers"].([]any); len(list) == 0 {
		delete(spec, "initContainers")
	}
	return pod
}

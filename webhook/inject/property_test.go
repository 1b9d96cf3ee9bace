package inject

import (
	stdjson "encoding/json"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"
	"gomodules.xyz/jsonpatch/v2"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// FuzzInject checks the properties of injection for any text that is a pod.
func FuzzInject(f *testing.F) {
	for _, name := range pods {
		f.Add(readFile(f, name+".in.json"))
	}
	f.Add(twiceIdentified(f))
	f.Add(withOwnFiles(f))
	p := testPolicy(f)
	f.Fuzz(func(t *testing.T, data []byte) { holds(t, p, data) })
}

// The same for almost correct pods: real pods with a few members removed, emptied, duplicated or
// exchanged.
func TestInjectDamagedPods(t *testing.T) {
	p := testPolicy(t)
	seen := map[policy.Reason]int{}
	inputs := map[string][]byte{
		"injected":              injected(t, readFile(t, "operator.in.json"), options(t)),
		"twice identified":      twiceIdentified(t),
		"with files of its own": withOwnFiles(t),
	}
	for _, name := range pods {
		inputs[name] = readFile(t, name+".in.json")
	}
	for name, data := range inputs {
		for seed := range uint64(700) {
			random := rand.New(rand.NewPCG(seed, 0))
			pod := generic(t, data)
			for range 1 + random.IntN(8) {
				damage(random, pod)
			}
			damaged, err := stdjson.Marshal(pod)
			testkit.Must(t, err)
			reason := holds(t, p, damaged)
			seen[reason]++
			if t.Failed() {
				t.Fatalf("%s, seed %d: %s", name, seed, damaged)
			}
		}
	}
	for _, reason := range []policy.Reason{policy.Granted, AlreadyInjected, ConfigurationInImage, ConfigurationVolume, MalformedPod} {
		if seen[reason] == 0 {
			t.Errorf("no pod was %s: the damage is not sufficient: %v", reason, seen)
		}
	}
}

// twiceIdentified returns an injected pod with the AWS variables in its Prometheus container, to
// which another webhook has since added an identity.
func twiceIdentified(t testing.TB) []byte {
	t.Helper()
	o := options(t)
	intoContainer(o.Policy)
	once := injected(t, readFile(t, "operator.in.json"), o)
	return apply(t, once, []jsonpatch.Operation{adding("/spec/containers/0/env/-", EnvVar{Name: "AWS_PROFILE", Value: "x"})})
}

// withOwnFiles returns an injected pod with sigv4 and the AWS variables, to which another webhook
// has since added a profile in the Prometheus container.
func withOwnFiles(t testing.TB) []byte {
	t.Helper()
	o := options(t)
	intoContainer(o.Policy)
	once := injected(t, readFile(t, "chart.in.json"), o)
	at := pointer("spec", "containers", 1, "env", "-")
	return apply(t, once, []jsonpatch.Operation{adding(at, EnvVar{Name: "AWS_PROFILE", Value: "x"})})
}

// known matches the paths that a patch may write to.
var known = regexp.MustCompile(`^/metadata/annotations(/ampbridge\.io~1injected)?$|` +
	`^/spec/(volumes/(\d+|-)|imagePullSecrets(/-)?|initContainers(/0)?)$|` +
	`^/spec/(initContainers|containers)/\d+/volumeMounts/\d+/readOnly$|` +
	`^/spec/containers/\d+/(env(/-)?|volumeMounts/-)$`)

// takenBack checks a pod after its injection was undone: no part of it is left, and the next call
// changes nothing, with the same reason.
func takenBack(t *testing.T, p *policy.Policy, data []byte, d policy.Decision) {
	t.Helper()
	pod := decode(t, data)
	if left := checkExisting(pod); left != nil {
		t.Errorf("parts are left: %s", left.Warning)
	}
	for c := range pod.all {
		for _, m := range c.VolumeMounts {
			if slices.Contains(ownVolumes, m.Name) {
				t.Errorf("%s still mounts %s", c.called(), m.Name)
			}
		}
	}
	again, next := Inject(pod, granted(t, p, "monitoring"), Options{Policy: p, Image: testImage})
	if len(again) > 0 || next.Inject || next.Reason != d.Reason {
		t.Errorf("the second time: %d operations, %s; the first time %s", len(again), next.Reason, d.Reason)
	}
}

// allOrNothing checks that a pod has a complete injection that can start: the sidecar before each
// init container that needs it, and every volume of the injection that a container mounts.
func allOrNothing(t *testing.T, pod *Pod) {
	t.Helper()
	index, _ := sidecarVariable(pod)
	if index < 0 {
		t.Error("there is no sidecar")
		return
	}
	c := &pod.Spec.InitContainers[index]
	target := c.volumeAt(sidecarconfig.TargetDir)
	if !startable(pod) || !repairable(pod, target) || len(c.LivenessProbe.Exec.Command) == 0 {
		t.Errorf("the sidecar cannot start, or is too late in the list")
	}
	for c := range pod.all {
		for _, m := range c.VolumeMounts {
			if (slices.Contains(ownVolumes, m.Name) || m.Name == target) && pod.volume(m.Name) < 0 {
				t.Errorf("%s mounts volume %s, which is missing", c.called(), m.Name)
			}
		}
	}
	for _, dir := range []string{sidecarconfig.SourceDir, sidecarconfig.TargetDir, sidecarconfig.CredentialsDir, apiTokenDir} {
		if !c.mounts(dir) {
			t.Errorf("the sidecar does not mount %s", dir)
		}
	}
}

// holds injects data if it is a pod, checks the properties, and returns the reason.
func holds(t *testing.T, p *policy.Policy, data []byte) policy.Reason {
	t.Helper()
	var pod Pod
	if json.Unmarshal(data, &pod) != nil {
		return "not a pod"
	}
	o := Options{Policy: p, Image: testImage}
	_, isPrometheus := Prometheus(&pod)
	ops, d := Inject(&pod, granted(t, p, "monitoring"), o)
	if !d.Inject {
		if len(ops) > 0 {
			takenBack(t, p, apply(t, data, ops), d)
		}
		if d.Warning == "" || len(d.Warning) > 256 || strings.ContainsAny(d.Warning, "\r\n") {
			t.Errorf("refused as %s with %d operations and the warning %q", d.Reason, len(ops), d.Warning)
		}
		return d.Reason
	}
	if d.Reason == AlreadyInjected {
		if len(ops) > 0 {
			allOrNothing(t, decode(t, apply(t, data, ops)))
			if more, d := Inject(
				decode(t, apply(t, data, ops)),
				granted(t, p, "monitoring"),
				o,
			); len(more) > 0 ||
				d.Reason != AlreadyInjected {
				t.Errorf("the second time: %d operations, %s", len(more), d.Reason)
			}
		}
		return d.Reason
	}
	if !isPrometheus {
		t.Error("injected, but not Prometheus")
	}
	for _, op := range ops {
		if !known.MatchString(op.Path) {
			t.Errorf("%s %s: a patch must not write to this path", op.Operation, op.Path)
		}
	}
	after := apply(t, data, ops)
	again := decode(t, after)
	mark, _ := Marked(ops)
	sigv4 := mark.Why == ""
	deliveryIs(t, data, ops, sigv4)
	for i, c := range again.Spec.Containers {
		if added := c.Env[len(pod.Spec.Containers[i].Env):]; len(added) > 0 && !sigv4 {
			t.Errorf("the relay's container %d has new variables: %v", i, added)
		}
	}
	if more, d := Inject(again, granted(t, p, "monitoring"), o); len(more) > 0 || d.Reason != AlreadyInjected {
		t.Errorf("the second time: %d operations, %s %s", len(more), d.Reason, d.Warning)
	}
	// Lists only grow: init containers at the beginning, others at the end. So all earlier members
	// still exist, except the interposed volume and readOnly.
	was, is := generic(t, data).(map[string]any)["spec"].(map[string]any), generic(t, after).(map[string]any)["spec"].(map[string]any)
	for member, value := range was {
		switch member {
		case "volumes", "imagePullSecrets", "initContainers", "containers":
		default:
			testkit.Equal(t, "spec."+member, value, is[member])
		}
	}
	replaced := 0
	volumes, _ := was["volumes"].([]any)
	for i, v := range volumes {
		if !cmp.Equal(v, is["volumes"].([]any)[i]) {
			replaced++
		}
	}
	if replaced != 1 {
		t.Errorf("%d volumes were replaced", replaced)
	}
	if before, after := containersOf(generic(t, data)), containersOf(generic(t, after))[1:]; len(before) != len(after) {
		t.Errorf("%d containers became %d", len(before), len(after))
	} else {
		for i := range before {
			unchangedBut(t, before[i], after[i], "env", "volumeMounts")
		}
	}
	return d.Reason
}

func unchangedBut(t *testing.T, before, after map[string]any, lists ...string) {
	t.Helper()
	for member, value := range before {
		if !slices.Contains(lists, member) {
			testkit.Equal(t, "a container's "+member, value, after[member])
		}
	}
}

// damage changes one member at a random place in v.
func damage(random *rand.Rand, v any) {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 {
			return
		}
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		name := names[random.IntN(len(names))]
		switch random.IntN(16) {
		case 0:
			delete(v, name)
		case 1:
			v[name] = nil
		case 2:
			v[name] = emptied(v[name])
		case 3:
			other := names[random.IntN(len(names))]
			v[name], v[other] = v[other], v[name]
		default:
			damage(random, v[name])
		}
	case []any:
		if len(v) == 0 {
			return
		}
		i, j := random.IntN(len(v)), random.IntN(len(v))
		switch random.IntN(12) {
		case 0:
			v[i] = nil
		case 1:
			v[i] = v[j]
		case 2:
			v[i], v[j] = v[j], v[i]
		case 3:
			v[i] = emptied(v[i])
		default:
			damage(random, v[i])
		}
	}
}

func emptied(v any) any {
	switch v.(type) {
	case map[string]any:
		return map[string]any{}
	case []any:
		return []any{}
	case string:
		return ""
	}
	return v
}

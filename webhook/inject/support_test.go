package inject

import (
	"bytes"
	stdjson "encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"gomodules.xyz/jsonpatch/v2"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/patchtest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const testImage = "registry.example.com/ampbridge/config-sidecar@sha256:1111"

func testPolicy(t testing.TB) *policy.Policy {
	t.Helper()
	p, err := policy.Parse(readFile(t, "policy.yaml"))
	testkit.Must(t, err)
	return p
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	testkit.Must(t, err)
	return data
}

func decode(t testing.TB, data []byte) *Pod {
	t.Helper()
	var pod Pod
	testkit.Must(t, json.Unmarshal(data, &pod))
	return &pod
}

// podOf returns a pod in monitoring as JSON, with the spec given in YAML.
func podOf(t testing.TB, spec string) []byte {
	t.Helper()
	return fromYAML(t, "metadata: {name: p, namespace: monitoring}\nspec:\n"+indent(spec))
}

// fromYAML returns YAML as JSON.
func fromYAML(t testing.TB, text string) []byte {
	t.Helper()
	data, err := yaml.YAMLToJSON([]byte(text))
	testkit.Must(t, err)
	return data
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
}

// granted returns the decision for a pod of the service account prometheus-x.
func granted(t testing.TB, p *policy.Policy, namespace string) policy.Decision {
	t.Helper()
	d := p.Decide(
		policy.Request{Namespace: namespace, Injection: policy.InjectionEnabled, ServiceAccount: "prometheus-x", Prometheus: true},
	)
	if !d.Inject {
		t.Fatalf("the test policy does not grant: %+v", d)
	}
	return d
}

func options(t testing.TB) Options { return Options{Policy: testPolicy(t), Image: testImage} }

// injected injects a pod that must be injected, and returns the result.
func injected(t testing.TB, data []byte, o Options) []byte {
	t.Helper()
	pod := decode(t, data)
	ops, d := Inject(pod, granted(t, o.Policy, pod.Metadata.Namespace), o)
	if !d.Inject || d.Reason != policy.Granted {
		t.Fatalf("not injected: %s: %s", d.Reason, d.Warning)
	}
	return apply(t, data, ops)
}

// refusal injects a pod that must be refused, and returns the decision.
func refusal(t testing.TB, data []byte, o Options) policy.Decision {
	t.Helper()
	pod := decode(t, data)
	ops, d := Inject(pod, granted(t, o.Policy, pod.Metadata.Namespace), o)
	if d.Inject || len(ops) > 0 {
		t.Fatalf("injected with %d operations (%s), want a refusal", len(ops), d.Reason)
	}
	if d.Warning == "" || len(d.Warning) > 256 || strings.ContainsAny(d.Warning, "\r\n") {
		t.Errorf("%s: warning %q: want one line of at most 256 bytes", d.Reason, d.Warning)
	}
	return d
}

// adding returns an operation that adds a value.
func adding(path string, value any) jsonpatch.Operation {
	text, err := stdjson.Marshal(value)
	if err != nil {
		panic(err) // the tests' own values always encode
	}
	return jsonpatch.Operation{Operation: "add", Path: path, Value: stdjson.RawMessage(text)}
}

// apply applies operations as the API server does. It also checks that [AppendPatch] writes the
// operations as they encode themselves.
func apply(t testing.TB, data []byte, ops []jsonpatch.Operation) []byte {
	t.Helper()
	if len(ops) == 0 {
		return data
	}
	text, err := AppendPatch(nil, ops)
	testkit.Must(t, err)
	other, err := stdjson.Marshal(ops)
	testkit.Must(t, err)
	testkit.Equal(t, "AppendPatch and encoding/json differ", generic(t, other), generic(t, text))
	return patchtest.Apply(t, data, text)
}

// generic decodes JSON and keeps the notation of numbers.
func generic(t testing.TB, data []byte) any {
	t.Helper()
	d := stdjson.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var v any
	testkit.Must(t, d.Decode(&v))
	return v
}

// asYAML returns operations in a readable form.
func asYAML(t testing.TB, ops []jsonpatch.Operation) []byte {
	t.Helper()
	text, err := AppendPatch(nil, ops)
	testkit.Must(t, err)
	out, err := yaml.JSONToYAML(text)
	testkit.Must(t, err)
	return out
}

// deliveryIs checks that mark, sidecar config and Prometheus container of an injected pod agree:
// all destinations have sigv4, or all have the relay.
func deliveryIs(t testing.TB, before []byte, ops []jsonpatch.Operation, sigv4 bool) {
	t.Helper()
	want, version := policy.DeliveryRelay, sidecarconfig.VersionRelay
	if sigv4 {
		want, version = policy.DeliverySigV4, sidecarconfig.VersionSigV4
	}
	was, is := decode(t, before), decode(t, apply(t, before, ops))
	a, err := sidecarconfig.Decode(encodedConfig(is))
	testkit.Must(t, err)
	mark, _ := Marked(ops)
	if mark.Version != version || a.Version != version || (mark.Why == "") != sigv4 || len(mark.Delivery) != len(a.Destinations) {
		t.Errorf("versions %d and %d, mark %+v; want %d, %s", mark.Version, a.Version, mark, version, want)
	}
	for _, d := range a.Destinations {
		if a.DeliveryOf(d) != want || mark.Delivery[d.Name] != want {
			t.Errorf("destination %s: %s, in the mark %s; want %s", d.Name, a.DeliveryOf(d), mark.Delivery[d.Name], want)
		}
	}
	index, refused := selectContainer(is)
	if refused != nil {
		t.Fatal(refused)
	}
	added := is.Spec.Containers[index].Env[len(was.Spec.Containers[index].Env):]
	if sigv4 != slices.Contains(added, EnvVar{Name: variableCredentialsFile, Value: credentialsFile}) {
		t.Errorf("the container's new variables: %v", added)
	}
	if !slices.Contains(is.Spec.Containers[index].VolumeMounts,
		VolumeMount{Name: sidecarconfig.VolumeCredentials, MountPath: sidecarconfig.CredentialsDir, ReadOnly: true}) {
		t.Errorf("the container does not see the credentials: %v", is.Spec.Containers[index].VolumeMounts)
	}
}

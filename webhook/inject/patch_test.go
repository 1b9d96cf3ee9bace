package inject

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	jsonv2 "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"gomodules.xyz/jsonpatch/v2"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
)

func TestPointer(t *testing.T) {
	for want, parts := range map[string][]any{
		"":                                      {},
		"/spec/containers/12/env":               {"spec", "containers", 12, "env"},
		"/metadata/annotations/example.com~1a":  {"metadata", "annotations", "example.com/a"},
		"/~0~1~01":                              {"~/~1"},
		"/spec/volumes/0/ampbridge.io~1a~0b/-/": {"spec", "volumes", 0, "ampbridge.io/a~b", "-", ""},
	} {
		if got := pointer(parts...); got != want {
			t.Errorf("%q: %s, want %s", parts, got, want)
		}
	}
}

func TestAppendTo(t *testing.T) {
	for _, c := range []struct {
		name string
		have []int
		want []jsonpatch.Operation
	}{
		{"no list: it is created", nil, []jsonpatch.Operation{adding("/l", []string{"a", "b"})}},
		{"an empty one", []int{}, []jsonpatch.Operation{adding("/l/-", "a"), adding("/l/-", "b")}},
		{"some", []int{1}, []jsonpatch.Operation{adding("/l/-", "a"), adding("/l/-", "b")}},
	} {
		var p patch
		appendTo(&p, "/l", c.have, "a", "b")
		testkit.Equal(t, c.name, c.want, p.operations)
	}
	var p patch
	if appendTo[string](&p, "/l", []int(nil)); len(p.operations) != 0 {
		t.Errorf("nothing to append, but %d operations", len(p.operations))
	}
}

// Values stay unchanged while more are added, JSON is used unchanged, and only what JSON requires
// is escaped.
func TestPatchValues(t *testing.T) {
	var p patch
	var want []string
	for i := range 200 {
		p.add("/a/b~1c", strings.Repeat("<&>", i))
		want = append(want, `{"op":"add","path":"/a/b~1c","value":"`+strings.Repeat("<&>", i)+`"}`)
	}
	p.replace("/raw", jsontext.Value(`{"n": 1.50}`))
	p.remove("/gone")
	want = append(want, `{"op":"replace","path":"/raw","value":{"n": 1.50}}`, `{"op":"remove","path":"/gone"}`)
	got, err := AppendPatch(nil, p.operations)
	if err != nil || p.err != nil {
		t.Fatal(err, p.err)
	}
	testkit.Equal(t, "the patch", "["+strings.Join(want, ",")+"]", string(got))
}

// A value that cannot be encoded results in an error and in no operation.
func TestPatchErrors(t *testing.T) {
	var p patch
	p.add("/first", math.Inf(1))
	p.add("/second", math.NaN())
	if p.err == nil || !strings.Contains(p.err.Error(), "/first") || len(p.operations) != 0 {
		t.Errorf("%v, %d operations", p.err, len(p.operations))
	}
	for _, o := range []jsonpatch.Operation{
		{Operation: "add", Path: "/a", Value: "text"}, {Operation: "add", Path: "/a", Value: jsontext.Value("1")},
		{Operation: "add", Path: "/\xff", Value: json.RawMessage("1")},
	} {
		if got, err := AppendPatch(nil, []jsonpatch.Operation{o}); err == nil {
			t.Errorf("%+v is written as %s", o, got)
		}
	}
}

func TestWarning(t *testing.T) {
	long := strings.Repeat("ä", 300)
	for _, c := range []struct{ name, got, want string }{
		{"short", warning("volume %q", "c"), `volume "c"`},
		{"one line", warning("volume %s", "a\r\nb"), "volume a  b"},
		{"the end of the sentence survives a long name", warning("volume %s: mount it elsewhere", long),
			"volume " + strings.Repeat("ä", 38) + "…: mount it elsewhere"},
		{"a long sentence is cut between runes", warning("%s%s%s%s", long, long, long, long),
			strings.Repeat(strings.Repeat("ä", 38)+"…", 3) + "…"},
	} {
		if c.got != c.want || len(c.got) > maxWarning || !utf8.ValidString(c.got) {
			t.Errorf("%s: %q (%d bytes), want %q", c.name, c.got, len(c.got), c.want)
		}
	}
}

// Added values append themselves as encoding/json encodes them, both with everything set and with
// all optional members absent.
func TestAppended(t *testing.T) {
	quantities := corev1.ResourceList{
		corev1.ResourceMemory: resource.MustParse("1Gi"), corev1.ResourceCPU: resource.MustParse("0.10"), "x": resource.MustParse("1e3"),
	}
	strange := "a\"b\\c<d>&\n\x01ä\u2028"
	mount := VolumeMount{strange, "/m", "s", "e", true}
	seccomp := Seccomp{"Localhost", strange}
	security := restrictedSecurity{true, capabilities{[]string{"ALL", "X"}}, true, true, new(int64(1)), new(int64(-2)), seccomp}
	probe := execProbe{Exec{[]string{"a", strange}}, 1, 2, 3, 4}
	env := EnvVar{"n", strange, &ValueFrom{FieldRef{"metadata.name"}}}
	token := tokenSource{serviceAccountToken{strange, 3600, "p"}}
	resources := Resources{quantities, quantities}
	for _, value := range []appender{
		&mount, &VolumeMount{}, &seccomp, &Seccomp{}, &security,
		&restrictedSecurity{Capabilities: capabilities{[]string{}}, RunAsUser: new(nobody)},
		&probe, &execProbe{Exec: Exec{[]string{}}}, &env, &EnvVar{}, &EnvVar{ValueFrom: &ValueFrom{}}, &Port{strange, 1}, &Port{}, &token,
		&resources, &Resources{}, &Resources{Requests: quantities}, &Resources{Limits: quantities}, &ValueFrom{},
		&addedVolume{}, &addedVolume{Name: strange, EmptyDir: emptyDir{"Memory", "1Gi"}}, &addedVolume{EmptyDir: emptyDir{Medium: "Memory"}},
		&addedVolume{Name: "a", Projected: &projected{[]tokenSource{token, token}}},
		&addedVolume{Name: "d", DownwardAPI: &downwardAPI{[]downwardItem{{strange, FieldRef{strange}}, {}}}},
		&container{
			strange, "i", []string{"c"}, []EnvVar{env, {}}, []Port{{"p", 1}}, resources, "Always", security, probe, probe,
			"File", []VolumeMount{mount, {}}, nil,
		},
		&container{
			Command: []string{}, Env: []EnvVar{}, VolumeMounts: []VolumeMount{}, StartupProbe: probe, LivenessProbe: probe,
			SecurityContext: security,
		},
	} {
		want, err := json.Marshal(value)
		testkit.Must(t, err)
		testkit.Equal(t, fmt.Sprintf("%T, encoding/json and appended", value), generic(t, want), generic(t, value.appendJSON(nil)))
	}
}

// The appended mark is the one that users and the auditor decode.
func TestMarkAppended(t *testing.T) {
	for _, destinations := range [][]sidecarconfig.Destination{
		nil, {{Name: "b", Delivery: policy.DeliveryRelay}, {Name: "a\"<", Delivery: policy.DeliverySigV4}},
	} {
		for _, why := range []string{"", `because of "x"`} {
			a := sidecarconfig.Config{Version: 2, Destinations: destinations, MetricsPort: int32(len(why))}
			want := Injected{
				Version: 2, Destinations: []string{}, Why: why, Policy: "ba7816bf8f01", Reload: ReloadNone, MetricsPort: a.MetricsPort,
				Delivery: map[string]policy.Delivery{},
			}
			for _, d := range destinations {
				want.Destinations = append(want.Destinations, d.Name)
				want.Delivery[d.Name] = d.Delivery
			}
			text, err := jsonv2.Marshal(want, jsonv2.Deterministic(true))
			testkit.Must(t, err)
			if got := mark(a, "abc", ReloadNone, why); got != string(text) {
				t.Errorf("got %s\nwant %s", got, text)
			}
		}
	}
}

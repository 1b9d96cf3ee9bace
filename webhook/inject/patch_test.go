package inject

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/google/go-cmp/cmp"
	"gomodules.xyz/jsonpatch/v2"
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
		{"no list: it is made", nil, []jsonpatch.Operation{adding("/l", []string{"a", "b"})}},
		{"an empty one", []int{}, []jsonpatch.Operation{adding("/l/-", "a"), adding("/l/-", "b")}},
		{"some", []int{1}, []jsonpatch.Operation{adding("/l/-", "a"), adding("/l/-", "b")}},
	} {
		var p patch
		appendTo(&p, "/l", c.have, "a", "b")
		if diff := cmp.Diff(c.want, p.operations); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	var p patch
	if appendTo[string](&p, "/l", []int(nil)); len(p.operations) != 0 {
		t.Errorf("nothing to append, but %d operations", len(p.operations))
	}
}

// Values stay what they were while more are added, JSON is taken as it is, and
// nothing is escaped that JSON does not ask for.
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
	if diff := cmp.Diff("["+strings.Join(want, ",")+"]", string(got)); diff != "" {
		t.Errorf("the patch (-want +got):\n%s", diff)
	}
}

// What cannot be encoded is an error, and no operation without its value.
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

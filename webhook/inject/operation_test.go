package inject

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
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
		want []Operation
	}{
		{"no list: it is made", nil, []Operation{{Op: "add", Path: "/l", Value: []string{"a", "b"}}}},
		{"an empty one", []int{}, []Operation{{Op: "add", Path: "/l/-", Value: "a"}, {Op: "add", Path: "/l/-", Value: "b"}}},
		{"some", []int{1}, []Operation{{Op: "add", Path: "/l/-", Value: "a"}, {Op: "add", Path: "/l/-", Value: "b"}}},
	} {
		var p patch
		appendTo(&p, "/l", c.have, "a", "b")
		if diff := cmp.Diff(c.want, []Operation(p)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	var p patch
	if appendTo[string](&p, "/l", []int(nil)); len(p) != 0 {
		t.Errorf("nothing to append, but %d operations", len(p))
	}
}

func TestWarning(t *testing.T) {
	long := strings.Repeat("ä", 300)
	for _, c := range []struct{ name, got, want string }{
		{"short", warning("volume %q", "c"), `volume "c"`},
		{"one line", warning("volume %s", "a\r\nb"), "volume a  b"},
		{"the end of the sentence survives a long name", warning("volume %s: mount it elsewhere", long), "volume " + strings.Repeat("ä", 38) + "…: mount it elsewhere"},
		{"a long sentence is cut between runes", warning("%s%s%s%s", long, long, long, long), strings.Repeat(strings.Repeat("ä", 38)+"…", 3) + "…"},
	} {
		if c.got != c.want || len(c.got) > maxWarning || !utf8.ValidString(c.got) {
			t.Errorf("%s: %q (%d bytes), want %q", c.name, c.got, len(c.got), c.want)
		}
	}
}

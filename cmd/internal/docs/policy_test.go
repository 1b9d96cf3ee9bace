package docs

import (
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
)

// paths returns the fields of a policy, such as destinations[].name: true for those that
// hold no further fields.
func paths(of reflect.Type, path string, found map[string]bool) {
	for of.Kind() == reflect.Pointer {
		of = of.Elem()
	}
	if of.Kind() == reflect.Slice {
		paths(of.Elem(), path+"[]", found)
		return
	}
	tagged := 0
	if of.Kind() == reflect.Struct {
		for field := range of.Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("yaml"), ",")
			if name == "" || name == "-" {
				continue
			}
			tagged++
			paths(field.Type, strings.TrimPrefix(path+"."+name, "."), found)
		}
	}
	found[strings.TrimSuffix(path, "[]")] = tagged == 0
}

// docs/reference/policy.md has each field of a policy, and no other. A field may be in
// the text of the one that holds it.
func TestPolicyFields(t *testing.T) {
	declared := map[string]bool{}
	paths(reflect.TypeFor[policy.Policy](), "", declared)
	if len(declared) < 60 {
		t.Fatalf("%d fields", len(declared))
	}
	list, _, _ := strings.Cut(read(t, "docs/reference/policy.md"), "\n## ")
	name := regexp.MustCompile("`([^`]+)`")
	items := map[string]string{}
	for _, item := range strings.Split("\n"+list, "\n- `")[1:] {
		head, text, _ := strings.Cut("`"+item, ": ")
		head, _, _ = strings.Cut(head, " (default")
		first := ""
		for _, found := range name.FindAllStringSubmatch(head, -1) {
			path := found[1]
			if suffix, isSuffix := strings.CutPrefix(path, "."); isSuffix {
				path = first[:strings.LastIndexByte(first, '.')+1] + suffix
			} else {
				first = path
			}
			items[path] = text
		}
	}
	if len(items) < 50 {
		t.Fatalf("the page has %d fields", len(items))
	}
	for path := range items {
		if _, known := declared[path]; !known {
			t.Errorf("docs/reference/policy.md has the field %s, which a policy does not", path)
		}
	}
	for path, leaf := range declared {
		if leaf && !documented(items, path) {
			t.Errorf("docs/reference/policy.md does not have the field %s", path)
		}
	}
}

func documented(items map[string]string, path string) bool {
	if _, own := items[path]; own {
		return true
	}
	last := path[strings.LastIndexByte(path, '.')+1:]
	for end := strings.LastIndexByte(path, '.'); end > 0; end = strings.LastIndexByte(path[:end], '.') {
		holder := strings.TrimSuffix(path[:end], "[]")
		if text, has := items[holder]; has {
			return strings.Contains(text, "`"+last+"`") || strings.HasPrefix(holder, "sidecar.")
		}
	}
	return false
}

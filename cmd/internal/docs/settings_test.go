package docs

import (
	"reflect"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
)

var setting = regexp.MustCompile("`([a-z][a-zA-Z]*(?:\\[\\])?(?:\\.[a-zA-Z]+(?:\\[\\])?)+)(?:: [^`]*)?`")

// Every setting that a page names, as `sync.roleArn` or `trust.roleScope`, is a value of
// the chart or a field of the policy.
func TestSettingsExist(t *testing.T) {
	fields := map[string]bool{}
	paths(reflect.TypeFor[policy.Policy](), "", fields)
	var chart map[string]any
	testkit.Must(t, yaml.Unmarshal([]byte(read(t, "charts/ampbridge/values.yaml")), &chart))
	count := 0
	for _, page := range pages(t) {
		if page == "CHANGELOG.md" || strings.HasPrefix(page, "docs/design/") {
			continue
		}
		for _, l := range lines(read(t, page)) {
			if l.code {
				continue
			}
			for _, found := range setting.FindAllStringSubmatch(l.text, -1) {
				path := strings.TrimPrefix(found[1], "policy.")
				first, _, _ := strings.Cut(path, ".")
				_, isField := fields[strings.TrimSuffix(first, "[]")]
				_, isValue := chart[first]
				if !isField && !isValue || path == "sts.amazonaws.com" || strings.HasPrefix(path, "cluster.apiServer.") {
					continue // a file, a host, a field of something else, such as Talos
				}
				count++
				_, isField = fields[strings.TrimSuffix(path, "[]")]
				if !isField && !has(chart, strings.Split(path, ".")) {
					t.Errorf("%s:%d: neither the policy nor the chart has %s", page, l.number, found[1])
				}
			}
		}
	}
	if count < 100 {
		t.Errorf("only %d settings", count)
	}
}

// has reports whether the chart has the value, or a mapping that is empty by default and
// may hold it.
func has(values map[string]any, path []string) bool {
	value, known := values[path[0]]
	if !known || len(path) == 1 {
		return known
	}
	inner, ok := value.(map[string]any)
	return ok && (len(inner) == 0 || has(inner, path[1:]))
}

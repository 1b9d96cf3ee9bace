package chart

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// The chart's README.md is its template with a list of values in it, made from
// the comments in values.yaml that begin with two dashes.
func TestReadme(t *testing.T) {
	before, after, found := strings.Cut(testkit.ReadFile(t, "testdata/README.md.template"), "{{values}}\n")
	if !found {
		t.Fatal("the template has no line {{values}}")
	}
	var b strings.Builder
	b.WriteString(before)
	for _, v := range documented(t) {
		b.WriteString(item(v))
	}
	b.WriteString(after)
	testkit.Golden(t, chartDir+"/README.md", b.String())
}

// item is a list item of lines of at most 118 columns.
func item(v value) string {
	text := "`" + v.path + "`"
	if v.standard != "" {
		text += " (default " + v.standard + ")"
	}
	if v.text != "" {
		text += ": " + v.text
	}
	var b strings.Builder
	line := "-"
	for word := range strings.FieldsSeq(text) {
		if utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > 118 {
			b.WriteString(line + "\n")
			line = " "
		}
		line += " " + word
	}
	return b.String() + line + "\n"
}

// What the README calls the least is enough.
func TestReadmesExample(t *testing.T) {
	_, rest, _ := strings.Cut(chartFile(t, "README.md"), "```yaml\n")
	example, _, found := strings.Cut(rest, "```")
	if !found {
		t.Fatal("the README has no example of values")
	}
	_, err := policy.Parse([]byte(renderedPolicy(t, "-f", valuesFile(t, example))))
	testkit.Must(t, err)
}

// Every value has its line, and the schema the same values.
func TestEveryValueIsDocumented(t *testing.T) {
	s := readSchema(t)
	var schema []string
	s.values(&jsonSchema{Type: "object", Properties: s.Properties}, "", &schema)
	described := map[string]bool{}
	for _, v := range documented(t) {
		described[v.path] = true
		if v.text == "" {
			t.Errorf("values.yaml: %s has no comment that begins with two dashes", v.path)
		}
	}
	for _, path := range schema {
		if !within(path, described) {
			t.Errorf("values.schema.json has %s, which values.yaml does not", path)
		}
	}
	for path := range described {
		if !slices.ContainsFunc(schema, func(known string) bool { return known == path || strings.HasPrefix(known, path+".") }) {
			t.Errorf("values.yaml has %s, which values.schema.json does not", path)
		}
	}
}

func within(path string, all map[string]bool) bool {
	for path != "" {
		if all[path] {
			return true
		}
		path = path[:max(strings.LastIndexByte(path, '.'), 0)]
	}
	return false
}

// values lists the paths of a schema's values, down to where maps and lists begin.
func (s *jsonSchema) values(of *jsonSchema, path string, all *[]string) {
	for _, name := range slices.Sorted(maps.Keys(of.Properties)) {
		at := strings.TrimPrefix(path+"."+name, ".")
		if property := of.Properties[name]; len(property.Properties) > 0 && name != "policy" {
			s.values(property, at, all)
		} else {
			*all = append(*all, at)
		}
	}
}

type value struct{ path, standard, text string }

// documented are the values of values.yaml, in its order: a value that has a
// comment of two dashes, or that is no mapping.
func documented(t *testing.T) []value {
	t.Helper()
	var document yaml.Node
	testkit.Must(t, yaml.Unmarshal([]byte(chartFile(t, "values.yaml")), &document))
	var all []value
	walk(t, document.Content[0], "", &all)
	return all
}

func walk(t *testing.T, mapping *yaml.Node, path string, all *[]value) {
	t.Helper()
	for i := 0; i < len(mapping.Content); i += 2 {
		key, content := mapping.Content[i], mapping.Content[i+1]
		at := strings.TrimPrefix(path+"."+key.Value, ".")
		comment := comment(key.HeadComment)
		if comment == "" && content.Kind == yaml.MappingNode && len(content.Content) > 0 {
			walk(t, content, at, all)
			continue
		}
		*all = append(*all, value{at, standard(t, content), comment})
	}
}

// comment is what follows the last two dashes.
func comment(head string) string {
	_, text, found := strings.Cut(head, "# -- ")
	if !found {
		return ""
	}
	return strings.ReplaceAll(text, "\n# ", " ")
}

func standard(t *testing.T, node *yaml.Node) string {
	t.Helper()
	var v any
	testkit.Must(t, node.Decode(&v))
	text, err := json.Marshal(v)
	testkit.Must(t, err)
	switch string(text) {
	case `""`, "{}", "[]":
		return ""
	}
	return "`" + strings.Trim(string(text), `"`) + "`"
}

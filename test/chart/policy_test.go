package chart

import (
	"encoding"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// The schema of the value policy has exactly the fields that package policy
// decodes, with their types.
func TestPolicySchemaHasThePolicysFields(t *testing.T) {
	var want []string
	goFields(reflect.TypeFor[policy.Policy](), "policy", &want)
	var got []string
	s := readSchema(t)
	s.fields(s.Properties["policy"], "policy", &got)
	slices.Sort(want)
	slices.Sort(got)
	testkit.Equal(t, "fields of values.schema.json, against package policy", want, got)
	if len(got) < 50 {
		t.Errorf("only %d fields: %v", len(got), got)
	}
}

// The chart marks the policy with the version of the program beside it.
func TestPolicyIsMarked(t *testing.T) {
	marked := render(t, "-f", minimal).get(t, "ConfigMap", "ampbridge-policy").GetAnnotations()[policy.AnnotationVersion]
	if marked != policy.SchemaVersion {
		t.Errorf("the policy is marked with version %q, want %q", marked, policy.SchemaVersion)
	}
}

// goFields lists the fields of a policy as package policy reads them.
func goFields(typ reflect.Type, path string, all *[]string) {
	if typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	text := reflect.PointerTo(typ).Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
	switch kind := typ.Kind(); {
	case text || kind == reflect.String:
		*all = append(*all, path+" string")
	case kind == reflect.Bool:
		*all = append(*all, path+" boolean")
	case kind == reflect.Int:
		*all = append(*all, path+" integer")
	case kind == reflect.Slice:
		goFields(typ.Elem(), path+"[]", all)
	case kind == reflect.Map:
		goFields(typ.Elem(), path+".*", all)
	case kind == reflect.Struct:
		for field := range typ.Fields() {
			goFields(field.Type, path+"."+field.Tag.Get("yaml"), all)
		}
	default:
		*all = append(*all, path+" of an unexpected kind: "+kind.String())
	}
}

// jsonSchema is as much of values.schema.json as the tests look at.
type jsonSchema struct {
	Type                 any                    `json:"type"`
	Ref                  string                 `json:"$ref"`
	Properties           map[string]*jsonSchema `json:"properties"`
	Items                *jsonSchema            `json:"items"`
	AdditionalProperties any                    `json:"additionalProperties"`
	Definitions          map[string]*jsonSchema `json:"definitions"`
}

func readSchema(t *testing.T) *jsonSchema {
	t.Helper()
	s := &jsonSchema{}
	testkit.DecodeJSON(t, chartFile(t, "values.schema.json"), s)
	return s
}

// fields lists those of a schema within s.
func (s *jsonSchema) fields(of *jsonSchema, path string, all *[]string) {
	if of.Ref != "" {
		of = s.Definitions[strings.TrimPrefix(of.Ref, "#/definitions/")]
	}
	switch of.Type {
	case "object":
		for _, name := range slices.Sorted(maps.Keys(of.Properties)) {
			s.fields(of.Properties[name], path+"."+name, all)
		}
		switch any := of.AdditionalProperties.(type) {
		case bool:
			if any {
				*all = append(*all, path+" takes any field")
			}
		case map[string]any: // names of the user's own, of one type
			*all = append(*all, fmt.Sprintf("%s.* %v", path, any["type"]))
		default:
			*all = append(*all, path+" takes any field")
		}
	case "array":
		s.fields(of.Items, path+"[]", all)
	default:
		*all = append(*all, path+" "+reflect.ValueOf(of.Type).String())
	}
}

// What package policy accepts, the chart takes, and hands on as it was: Helm
// reads YAML by other rules than the webhook.
func TestPolicyArrivesAsItWas(t *testing.T) {
	everythingPolicy, err := yaml.Marshal(readValues(t, everything)["policy"])
	testkit.Must(t, err)
	example := testkit.ReadFile(t, "../../docs/examples/policy.yaml")
	for name, text := range map[string][]byte{"everything": everythingPolicy, "example": []byte(example)} {
		t.Run(name, func(t *testing.T) {
			want := policytest.Parse(t, string(text))
			var value map[string]any
			testkit.Must(t, yaml.Unmarshal(text, &value))
			values, err := yaml.Marshal(map[string]any{"policy": value})
			testkit.Must(t, err)
			got := policytest.Parse(t, renderedPolicy(t, "-f", valuesFile(t, string(values))))
			testkit.Equal(t, "policy as rendered", want, got)
		})
	}
}

// The head of the file may be left out: in values it says nothing.
func TestPolicyHead(t *testing.T) {
	p := policytest.Parse(t, renderedPolicy(t, "-f", minimal, "--set", "policy.paused=true"))
	if !p.Paused || p.APIVersion != policy.APIVersion || p.Kind != policy.Kind {
		t.Errorf("%+v", p)
	}
}

// everything-values.yaml leaves nothing of the policy out, so that what is said
// of it holds for all fields.
func TestEverythingHasAllOfThePolicy(t *testing.T) {
	var known []string
	goFields(reflect.TypeFor[policy.Policy](), "policy", &known)
	set := map[string]bool{}
	valueFields(readValues(t, everything)["policy"], "policy", set)
	for _, field := range known {
		if path, _, _ := strings.Cut(field, " "); !set[path] {
			t.Errorf("%s does not set %s", everything, path)
		}
	}
}

func valueFields(value any, path string, all map[string]bool) {
	switch v := value.(type) {
	case map[string]any:
		for name, field := range v {
			valueFields(field, path+"."+name, all)
			if _, nested := field.(string); nested {
				all[path+".*"] = true // for a field whose names are the user's own
			}
		}
	case []any:
		for _, item := range v {
			valueFields(item, path+"[]", all)
		}
	default:
		all[path] = true
	}
}

func readValues(t *testing.T, path string) map[string]any {
	t.Helper()
	var values map[string]any
	testkit.Must(t, yaml.UnmarshalStrict([]byte(testkit.ReadFile(t, path)), &values))
	return values
}

// minimalPolicy returns a file with the policy of the least values.
func minimalPolicy(t *testing.T) string {
	t.Helper()
	return testkit.TempFile(t, "policy.yaml", renderedPolicy(t, "-f", minimal))
}

func renderedPolicy(t *testing.T, args ...string) string {
	t.Helper()
	var configMap corev1.ConfigMap
	into(t, render(t, args...).get(t, "ConfigMap", "ampbridge-policy"), &configMap)
	return configMap.Data["policy.yaml"]
}

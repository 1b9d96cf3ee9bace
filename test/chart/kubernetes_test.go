package chart

import (
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kube-openapi/pkg/validation/strfmt"
	"k8s.io/kube-openapi/pkg/validation/validate"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// The releases of Kubernetes that the chart is for, and the operators whose
// objects it makes.
var (
	kubernetesVersions = []string{"v1.30.14", "v1.31.14", "v1.32.13", "v1.33.13", "v1.34.4", "v1.35.4", "v1.36.3"}
	operators          = map[string]struct{ module, crds string }{
		"monitoring.coreos.com": {"github.com/prometheus-operator/prometheus-operator@v0.85.0", "example/prometheus-operator-crd"},
		"cert-manager.io":       {"github.com/cert-manager/cert-manager@v1.21.2", "deploy/crds"},
	}
)

// Every release of Kubernetes knows every field that the chart sets, by its own
// published schema.
func TestKubernetesSchemas(t *testing.T) {
	custom := customResources(t)
	for _, version := range kubernetesVersions {
		t.Run(version, func(t *testing.T) {
			known := kubernetesSchemas(t, version)
			maps.Copy(known, custom)
			for name, args := range forms {
				all := render(t, append(slices.Clone(args), "--kube-version", version)...)
				if len(all) < 10 {
					t.Errorf("%s: only %d objects", name, len(all))
				}
				for _, object := range all {
					s, found := known[object.GroupVersionKind()]
					if !found {
						t.Errorf("%s: %s does not know %s", name, version, object.GroupVersionKind())
						continue
					}
					if err := conforms(object, s); err != nil {
						t.Errorf("%s: %s %s: %v", name, object.GetKind(), object.GetName(), err)
					}
				}
			}
		})
	}
}

// The check itself: what is wrong is found.
func TestSchemasRefuse(t *testing.T) {
	known := kubernetesSchemas(t, kubernetesVersions[0])
	deployment := known[schema.GroupVersionKind{Group: "apps", Version: "v1", Kind: "Deployment"}]
	for name, edit := range map[string]func(container map[string]any){
		"an unknown field": func(c map[string]any) { c["imagePullPolici"] = "Always" },
		"a wrong type":     func(c map[string]any) { c["args"] = "webhook" },
		"a missing name":   func(c map[string]any) { delete(c, "name") },
		"a field of 1.34": func(c map[string]any) {
			c["env"] = []any{map[string]any{"name": "A", "valueFrom": map[string]any{"fileKeyRef": map[string]any{}}}}
		},
	} {
		object := render(t, "-f", minimal).get(t, "Deployment", "ampbridge-webhook")
		testkit.Must(t, conforms(object, deployment))
		containers, _, err := unstructured.NestedSlice(object.Object, "spec", "template", "spec", "containers")
		testkit.Must(t, err)
		edit(containers[0].(map[string]any))
		testkit.Must(t, unstructured.SetNestedSlice(object.Object, containers, "spec", "template", "spec", "containers"))
		if conforms(object, deployment) == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

func conforms(object *unstructured.Unstructured, s *spec.Schema) error {
	return errors.Join(validate.NewSchemaValidator(s, nil, "", strfmt.Default).Validate(object.Object).Errors...)
}

// kubernetesSchemas are those that the release publishes, closed: a field that
// they do not name is an error.
func kubernetesSchemas(t *testing.T, version string) map[schema.GroupVersionKind]*spec.Schema {
	t.Helper()
	text := testkit.ReadFile(t, filepath.Join(module(t, "k8s.io/kubernetes@"+version), "api", "openapi-spec", "swagger.json"))
	var document struct {
		Definitions map[string]*spec.Schema `json:"definitions"`
	}
	testkit.DecodeJSON(t, text, &document)
	known := map[schema.GroupVersionKind]*spec.Schema{}
	for _, s := range document.Definitions {
		var gvks []schema.GroupVersionKind
		if s.Extensions.GetObject("x-kubernetes-group-version-kind", &gvks) != nil || len(gvks) != 1 {
			continue // parts of objects, and what is the same in all groups
		}
		known[gvks[0]] = closed(s, document.Definitions, nil)
	}
	return known
}

// crdDirs are where the definitions of an API group are.
func crdDirs(t *testing.T) map[string]string {
	t.Helper()
	dirs := map[string]string{}
	for group, o := range operators {
		dirs[group] = filepath.Join(module(t, o.module), o.crds)
	}
	return dirs
}

func customResources(t *testing.T) map[schema.GroupVersionKind]*spec.Schema {
	t.Helper()
	known := map[schema.GroupVersionKind]*spec.Schema{}
	for _, dir := range crdDirs(t) {
		files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
		testkit.Must(t, err)
		for _, file := range files {
			var crd struct {
				Spec struct {
					Group    string
					Names    struct{ Kind string }
					Versions []struct {
						Name   string
						Schema struct{ OpenAPIV3Schema *spec.Schema }
					}
				}
			}
			testkit.Must(t, yaml.Unmarshal([]byte(testkit.ReadFile(t, file)), &crd))
			if crd.Spec.Names.Kind == "" {
				t.Fatalf("%s defines no kind", file)
			}
			for _, v := range crd.Spec.Versions {
				known[schema.GroupVersionKind{Group: crd.Spec.Group, Version: v.Name, Kind: crd.Spec.Names.Kind}] = closed(
					v.Schema.OpenAPIV3Schema,
					nil,
					nil,
				)
			}
		}
	}
	return known
}

// closed puts what a schema refers to in place of the reference, and forbids
// fields beside those that it names. above are the references on the way here: a
// schema of schemas is cut where it comes round again.
func closed(s *spec.Schema, definitions map[string]*spec.Schema, above []string) *spec.Schema {
	if s == nil {
		return nil
	}
	if ref := strings.TrimPrefix(s.Ref.String(), "#/definitions/"); ref != "" {
		if slices.Contains(above, ref) {
			return &spec.Schema{}
		}
		switch ref {
		case "io.k8s.apimachinery.pkg.api.resource.Quantity", "io.k8s.apimachinery.pkg.util.intstr.IntOrString":
			return &spec.Schema{SchemaProps: spec.SchemaProps{Type: spec.StringOrArray{"string", "number"}}}
		}
		return closed(definitions[ref], definitions, append(above, ref))
	}
	c := *s
	// Formats are Go's number types here, and "int-or-string".
	c.Format = ""
	if len(s.Properties) > 0 {
		c.Properties = map[string]spec.Schema{}
		for name, p := range s.Properties {
			c.Properties[name] = *closed(&p, definitions, above)
		}
		if open, _ := s.Extensions.GetBool("x-kubernetes-preserve-unknown-fields"); s.AdditionalProperties == nil && !open {
			c.AdditionalProperties = &spec.SchemaOrBool{Allows: false}
		}
	}
	if s.AdditionalProperties != nil {
		c.AdditionalProperties = &spec.SchemaOrBool{Allows: true, Schema: closed(s.AdditionalProperties.Schema, definitions, above)}
	}
	if s.Items != nil {
		c.Items = &spec.SchemaOrArray{Schema: closed(s.Items.Schema, definitions, above)}
	}
	return &c
}

// module is the directory of a module, which the go command downloads where it
// has to. Nothing of it is built.
func module(t *testing.T, name string) string {
	t.Helper()
	var answer struct{ Dir string }
	// It runs outside of this module, whose go.sum stays as it is.
	testkit.DecodeJSON(t, testkit.Exec(t, "go", "-C", t.TempDir(), "mod", "download", "-json", name), &answer)
	return answer.Dir
}

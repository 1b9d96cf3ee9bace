package chart

import (
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// snippets are what `ampbridge config -o` prints: the goldens of its test.
const snippets = "../../cmd/internal/preview/testdata/snippets/"

// The operator's own definitions take the spec that the snippets have a part of: each field, with its enumerations and
// patterns. kube-prometheus-stack copies prometheusSpec's remoteWrite and podMetadata into the Prometheus.
func TestOperatorSchemasTakeSnippets(t *testing.T) {
	custom := customResources(t)
	for pattern, path := range map[string][]string{
		"prometheus-operator.*.txt":   {"spec"},
		"kube-prometheus-stack.*.txt": {"prometheus", "prometheusSpec"},
	} {
		files, err := filepath.Glob(snippets + pattern)
		testkit.Must(t, err)
		if len(files) < 2 {
			t.Fatalf("%s: %d files, want two or more", pattern, len(files))
		}
		for _, file := range files {
			values := readValues(t, file)
			for _, kind := range []schema.GroupVersionKind{
				{Group: "monitoring.coreos.com", Version: "v1", Kind: "Prometheus"},
				{Group: "monitoring.coreos.com", Version: "v1alpha1", Kind: "PrometheusAgent"},
			} {
				part, _, err := unstructured.NestedMap(values, path...)
				testkit.Must(t, err)
				object := &unstructured.Unstructured{Object: map[string]any{
					"metadata": map[string]any{"name": "snippet"}, "spec": part,
				}}
				object.SetGroupVersionKind(kind)
				if err := conforms(object, custom[kind]); err != nil {
					t.Errorf("%s as %s: %v", file, kind.Kind, err)
				}
				for name, edit := range map[string]func(write map[string]any){
					"an unknown field": func(w map[string]any) { w["sigV4"] = map[string]any{"region": "eu-west-1"} },
					"a wrong type":     func(w map[string]any) { w["queueConfig"] = map[string]any{"capacity": "2500"} },
					"no duration":      func(w map[string]any) { w["remoteTimeout"] = "30" },
					"an unknown action": func(w map[string]any) {
						w["writeRelabelConfigs"] = []any{map[string]any{"action": "dropp"}}
					},
				} {
					wrong := object.DeepCopy()
					writes, _, err := unstructured.NestedSlice(wrong.Object, "spec", "remoteWrite")
					testkit.Must(t, err)
					if len(writes) != 1 {
						t.Fatalf("%s: %d remoteWrite, want 1", file, len(writes))
					}
					edit(writes[0].(map[string]any))
					testkit.Must(t, unstructured.SetNestedSlice(wrong.Object, writes, "spec", "remoteWrite"))
					if conforms(wrong, custom[kind]) == nil {
						t.Errorf("%s as %s: %s is accepted", file, kind.Kind, name)
					}
				}
			}
		}
	}
}

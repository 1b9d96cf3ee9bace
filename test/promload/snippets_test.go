package promload

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	"github.com/prometheus/prometheus/config"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// snippets are what `ampbridge config -o` prints: the goldens of its test.
const snippets = "../../cmd/internal/preview/testdata/snippets/"

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	testkit.Must(t, err)
	return text
}

// Prometheus itself loads the remoteWrite of the chart's values.
func TestPrometheusLoadsTheChartsValues(t *testing.T) {
	for _, file := range goldens(t, "prometheus-chart.*.txt") {
		var values struct {
			Server struct {
				PodAnnotations map[string]string `json:"podAnnotations"`
				RemoteWrite    []any             `json:"remoteWrite"`
			} `json:"server"`
		}
		if err := yaml.UnmarshalStrict(read(t, file), &values); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		text, err := yaml.Marshal(map[string]any{"remote_write": values.Server.RemoteWrite})
		testkit.Must(t, err)
		loaded, err := config.Load(string(text), slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatalf("%s: %v\n%s", file, err, text)
		}
		w := loaded.RemoteWriteConfigs
		if len(w) != 1 || w[0].SigV4Config == nil || w[0].SigV4Config.Region == "" || w[0].SigV4Config.Profile != "" ||
			values.Server.PodAnnotations["ampbridge.io/container"] != "prometheus-server" {
			t.Errorf("%s: %+v", file, w)
		}
	}
}

// The operator's own types take what is for it, and know each field.
func TestOperatorKnowsItsSnippets(t *testing.T) {
	check := func(file string, text []byte, into any, write *[]monitoringv1.RemoteWriteSpec, metadata **monitoringv1.EmbeddedObjectMetadata) {
		t.Helper()
		if err := yaml.UnmarshalStrict(text, into); err != nil {
			t.Errorf("%s: %v", file, err)
			return
		}
		if w := *write; len(w) != 1 || w[0].Sigv4 == nil || w[0].Sigv4.Region == "" || w[0].QueueConfig == nil ||
			*metadata == nil || (*metadata).Annotations["ampbridge.io/container"] != "prometheus" {
			t.Errorf("%s: %+v", file, w)
		}
	}
	for _, file := range goldens(t, "prometheus-operator.*.txt") {
		var p monitoringv1.Prometheus
		check(file, read(t, file), &p, &p.Spec.RemoteWrite, &p.Spec.PodMetadata)
	}
	for _, file := range goldens(t, "kube-prometheus-stack.*.txt") {
		var values struct {
			Prometheus struct {
				PrometheusSpec monitoringv1.PrometheusSpec `json:"prometheusSpec"`
			} `json:"prometheus"`
		}
		spec := &values.Prometheus.PrometheusSpec
		check(file, read(t, file), &values, &spec.RemoteWrite, &spec.PodMetadata)
	}
}

func goldens(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(snippets + pattern)
	if err != nil || len(files) < 2 {
		t.Fatalf("%s: %d files, want two or more (%v)", pattern, len(files), err)
	}
	return files
}

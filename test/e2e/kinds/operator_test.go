package kinds_test

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

// startOperator runs prometheus-operator with its CRDs until the test ends.
func (f *fixture) startOperator(t *testing.T) {
	t.Helper()
	source, err := tools.Source(t.Context(), "prometheus-operator", "github.com/prometheus-operator/prometheus-operator")
	testkit.Must(t, err)
	files, err := filepath.Glob(source + "/example/prometheus-operator-crd/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no CRDs", err)
	}
	for _, file := range files {
		for _, crd := range objects(t, testkit.ReadFile(t, file)) {
			testkit.Must(t, f.client.Create(t.Context(), crd))
			f.eventuallyServed(t, crd)
		}
	}

	cmd := exec.Command(
		tools.Path(t, "prometheus-operator"),
		"--namespaces="+env.Namespace,
		"--feature-gates=PrometheusAgentDaemonSet=true",
		"--web.listen-address="+testkit.FreeAddr(t),
	)
	cmd.Env = []string{"KUBECONFIG=" + f.Cluster.Kubeconfig()}
	testkit.StartProgram(t, cmd)
}

// eventuallyServed waits until the API server serves the kind that a CRD describes.
func (f *fixture) eventuallyServed(t *testing.T, crd *unstructured.Unstructured) {
	t.Helper()
	for {
		testkit.Must(t, f.client.Get(t.Context(), client.ObjectKeyFromObject(crd), crd))
		// null at first, which is no slice
		conditions, _, _ := unstructured.NestedFieldNoCopy(crd.Object, "status", "conditions")
		list, _ := conditions.([]any)
		for _, c := range list {
			if c, ok := c.(map[string]any); ok && c["type"] == "Established" && c["status"] == "True" {
				return
			}
		}
	}
}

// operators returns a function that lets the operator create the pod of a custom resource in testdata. The
// format pod gives the pod's name or its beginning.
func operators(file, pod string) func(*fixture, asked) (made, error) {
	return func(f *fixture, a asked) (made, error) {
		if strings.Contains(file, "daemonset") {
			if err := f.node(a, a.name); err != nil {
				return made{}, err
			}
		}
		// The user writes this Secret. The operator copies its content to its own Secret.
		const key = "scrape-configs.yaml"
		additional := a.name + "-scrape-configs"
		if err := f.create(a, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: additional, Namespace: env.Namespace},
			Data:       map[string][]byte{key: []byte(jobs(a.config))},
		}); err != nil {
			return made{}, err
		}
		text := strings.NewReplacer("NAME", a.name, "VERSION", a.tag).Replace(testkit.ReadFile(a, "testdata/"+file))
		for _, resource := range objects(a, text) {
			if err := f.create(a, resource); err != nil {
				return made{}, err
			}
		}
		found, err := f.podOf(a.Context(), fmt.Sprintf(pod, a.name), a.name)
		if err != nil {
			return made{}, err
		}
		return made{pod: found, set: func(ctx context.Context, config string) error {
			return f.setSecret(ctx, additional, key, []byte(jobs(config)))
		}}, nil
	}
}

// jobs returns the scrape jobs of a configuration.
func jobs(config string) string {
	_, list, _ := strings.Cut(config, "scrape_configs:\n")
	return list
}

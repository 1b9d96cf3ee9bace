package kinds_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
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
	files, err := filepath.Glob(filepath.Join(operatorModule(t), "example", "prometheus-operator-crd", "*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no CRDs", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		testkit.Must(t, err)
		crds, err := objects(text)
		testkit.Must(t, err)
		for _, crd := range crds {
			testkit.Must(t, f.client.Create(t.Context(), crd))
			f.eventuallyServed(t, crd)
		}
	}

	port := testkit.FreePort(t)
	log, err := os.Create(filepath.Join(t.TempDir(), "operator.log"))
	testkit.Must(t, err)
	cmd := exec.Command(
		tools.Path(t, "prometheus-operator"),
		"--namespaces="+env.Namespace,
		"--feature-gates=PrometheusAgentDaemonSet=true",
		fmt.Sprintf("--web.listen-address=127.0.0.1:%d", port),
	)
	cmd.Env = []string{"KUBECONFIG=" + f.Cluster.Kubeconfig()}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	testkit.Must(t, cmd.Start())
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
		if text, err := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("prometheus-operator (%v):\n%s", err, text)
		}
	})
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

// operatorModule returns the source of the operator from which the tools are built.
func operatorModule(t *testing.T) string {
	t.Helper()
	root, err := tools.Root(t.Context())
	testkit.Must(t, err)
	dir := filepath.Join(root, "test", "tools", "prometheus-operator")
	const module = "github.com/prometheus-operator/prometheus-operator"
	list := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Version}}", module)
	list.Dir = dir
	version, err := list.Output()
	testkit.Must(t, err)
	download := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", module+"@"+strings.TrimSpace(string(version)))
	download.Dir = dir
	out, err := download.Output()
	testkit.Must(t, err)
	var answer struct{ Dir string }
	testkit.Must(t, json.Unmarshal(out, &answer))
	return answer.Dir
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
		text, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			return made{}, err
		}
		replaced := strings.NewReplacer("NAME", a.name, "VERSION", a.tag).Replace(string(text))
		resources, err := objects([]byte(replaced))
		if err != nil {
			return made{}, err
		}
		for _, resource := range resources {
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

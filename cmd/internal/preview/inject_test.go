package preview_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"
)

func TestObjectsAndDecisions(t *testing.T) {
	stdout, stderr, err := injection(t, "", "-f", "testdata/inject/stack.in.yaml")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "inject/stack.want.yaml", stdout)
	golden(t, "inject/stack.want.stderr", stderr)

	again, _, err := injection(t, stdout, "-f", "-")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(stdout, again); diff != "" {
		t.Errorf("twice is not once (-once +twice):\n%s", diff)
	}
}

const pod = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "future": 12345678901234567890, "spec": {
 "serviceAccountName": "prometheus", "containers": [{"name": "prometheus", "image": "prom/prometheus:v3.15.0",
 "args": ["--config.file=/c/p.yml", "--enable-feature=auto-reload-config"], "volumeMounts": [{"name": "c", "mountPath": "/c"}]}],
  "volumes": [{"name": "c", "configMap": {"name": "c"}}]}}`

// The line about a pod tells how its samples are delivered, and why.
func TestDeliveryIsTold(t *testing.T) {
	for arg, want := range map[string]string{
		"--enable-feature=auto-reload-config": "Inject: Granted (central, backup): delivery sigv4: Prometheus watches its configuration\n",
		"--web.enable-lifecycle":              "Inject: Granted (central, backup): delivery relay: nothing in the pod reloads Prometheus\n",
	} {
		_, stderr, err := injection(t, strings.Replace(pod, "--enable-feature=auto-reload-config", arg, 1), "-f", "-", "-n", "monitoring")
		if err != nil || !strings.Contains(stderr, want) {
			t.Errorf("%s: %q, %v; want %q", arg, stderr, err, want)
		}
	}
}

func TestPatchIsTheDifference(t *testing.T) {
	patch, _, err := injection(t, pod, "-f", "-", "-n", "monitoring", "-o", "patch")
	if err != nil {
		t.Fatal(err)
	}
	whole, _, err := injection(t, pod, "-f", "-", "-n", "monitoring", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	operations, patchErr := jsonpatch.DecodePatch([]byte(patch))
	if patchErr != nil || len(operations) == 0 {
		t.Fatalf("patch %s: %v", patch, patchErr)
	}
	patched, patchErr := operations.Apply([]byte(pod))
	if patchErr != nil {
		t.Fatal(patchErr)
	}
	if !jsonpatch.Equal(patched, []byte(whole)) {
		t.Errorf("the patch makes\n%s\nand -o json prints\n%s", patched, whole)
	}
	if !strings.Contains(whole, `"future": 12345678901234567890`) {
		t.Errorf("a field of the future was changed:\n%s", whole)
	}
}

func TestList(t *testing.T) {
	list := `{"apiVersion": "v1", "kind": "List", "items": [` + strings.ReplaceAll(
		pod,
		`"p"`,
		`"p", "namespace": "monitoring"`,
	) + `, {"apiVersion": "apps/v1", "kind": "Deployment"}]}`
	out, stderr, err := injection(t, list, "-f", "-", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Items []struct {
			Kind string
			Spec struct{ InitContainers []struct{ Name string } }
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatal(err)
	}
	if len(got.Items) != 2 || got.Items[1].Kind != "Deployment" || len(got.Items[0].Spec.InitContainers) != 1 ||
		got.Items[0].Spec.InitContainers[0].Name != "ampbridge-config" {
		t.Errorf("%s\n%s", stderr, out)
	}
}

func TestDecisions(t *testing.T) {
	account := func(annotations string) string {
		path := filepath.Join(t.TempDir(), "sa.yaml")
		text := "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: prometheus, namespace: monitoring, annotations: {" + annotations + "}}\n"
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	annotated := strings.Replace(pod, `"name": "p"`, `"name": "p", "annotations": {"ampbridge.io/inject": "true"}`, 1)
	for _, c := range []struct {
		name, in string
		args     []string
		want     string
	}{
		{"enabled", pod, nil, "Inject: Granted (central, backup)"},
		{"annotated, not asked", pod, []string{"--namespace-label", "annotated"}, "Skip: NotAsked"},
		{"annotated, the pod asks", annotated, []string{"--namespace-label", "annotated"}, "Inject: Granted (central, backup)"},
		{"annotated, the service account asks", pod,
			[]string{"--namespace-label", "annotated", "--service-account-file", account(`ampbridge.io/inject: "true"`)},
			"Inject: Granted (central, backup)"},
		{"no label", pod, []string{"--namespace-label", ""}, "Skip: NotLabelled: "},
		{"the service account opts out", pod, []string{"--service-account-file", account(`ampbridge.io/inject: "false"`)}, "Skip: OptedOut"},
		{"the service account narrows", pod, []string{"--service-account-file", account("ampbridge.io/destinations: backup")},
			"Inject: Granted (backup)"},
		{"another namespace", strings.Replace(pod, `"p"`, `"p", "namespace": "other"`, 1), nil, "Skip: NotGranted: "},
		{"no Prometheus", strings.ReplaceAll(pod, "prometheus:v3", "nginx:v3"), nil, "Pod of system:serviceaccount:monitoring:prometheus: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			stdout, stderr, err := injection(t, c.in, append([]string{"-f", "-", "-n", "monitoring", "-o", "patch"}, c.args...)...)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(stderr, c.want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("decision %q, want one with %q", stderr, c.want)
			}
			if skipped := strings.Contains(stderr, "Skip"); skipped != (stdout == "[]\n") {
				t.Errorf("%s: patch %s", stderr, stdout)
			}
		})
	}
}

// TestNamespacesLabelOnPod: the label belongs on the namespace, so inject names it on a pod.
func TestNamespacesLabelOnPod(t *testing.T) {
	for metadata, want := range map[string]bool{
		`"labels":{"ampbridge.io/injection":"enabled"}`:      true,
		`"annotations":{"ampbridge.io/injection":"enabled"}`: true,
		`"labels":{"ampbridge.io/injection":""}`:             true,
		`"annotations":{"ampbridge.io/inject":"true"}`:       false,
	} {
		text := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p",` + metadata + `},"spec":{"containers":[{"name":"a"}]}}`
		_, stderr, err := injection(t, text, "-f", "-")
		if got := strings.Count(stderr, "ampbridge.io/injection on a pod has no effect"); err != nil || (got == 1) != want {
			t.Errorf("%s: %v, stderr %q", metadata, err, stderr)
		}
	}
}

func TestInjectErrors(t *testing.T) {
	for _, c := range []struct {
		name, in string
		args     []string
		want     string
		usage    bool
	}{
		{"no file", "", nil, "-f", true},
		{"output", pod, []string{"-f", "-", "-o", "xml"}, `--output "xml" is unknown`, true},
		{"namespace label", pod, []string{"-f", "-", "--namespace-label", "on"}, `--namespace-label "on" is unknown`, true},
		{"two objects, one patch", `{"apiVersion":"v1","kind":"List","items":[` + pod + "," + pod + "]}", []string{"-f", "-", "-o", "patch"},
			"-o patch is for one object", true},
		{"two from standard input", pod, []string{"-f", "-", "--service-account-file", "-"}, "only one of", true},
		{"not YAML", "{", []string{"-f", "-"}, "yaml", false},
		{"no object", "[]", []string{"-f", "-"}, "not a Kubernetes object", false},
		{"nothing to do", `{"apiVersion":"apps/v1","kind":"Deployment"}`, []string{"-f", "-"}, "neither a Pod nor a ServiceAccount", false},
		{"no pod's shape", `{"apiVersion":"v1","kind":"Pod","spec":[]}`, []string{"-f", "-"}, "not a Pod: ", false},
		{"another service account", pod, []string{"-f", "-", "-n", "other", "--service-account-file", "testdata/inject/stack.in.yaml"},
			"which is not the service account of", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			stdout, _, err := injection(t, c.in, c.args...)
			if err == nil || !strings.Contains(err.Error(), c.want) || err.usage() != c.usage || stdout != "" {
				t.Errorf("error %v (usage %t), output %q; want an error with %q", err, err.usage(), stdout, c.want)
			}
		})
	}
}

package preview_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	jsonpatch "github.com/evanphx/json-patch/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/test/testkit"
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

// noServer is the pod with another program.
var noServer = strings.NewReplacer("prom/prometheus", "nginx", "--config.file", "--conf").Replace(pod)

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
		{"no Prometheus", noServer, nil, "Skip: NotPrometheus: "},
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
		{"nothing", "", []string{"-f", "-"}, "-: it is empty: write a Pod; from a cluster: kubectl get pod", false},
		{"comments alone", "# a\n---\n", []string{"-f", "-"}, "-: it is empty", false},
		{"other kinds", "apiVersion: batch/v1\nkind: CronJob\n---\napiVersion: v1\nkind: Service\n", []string{"-f", "-"},
			"nor a ReplicaSet, but CronJob, Service; from a cluster: kubectl get pod -n NAMESPACE NAME -o yaml | ", false},
		{"a Prometheus of the operator", "apiVersion: monitoring.coreos.com/v1\nkind: Prometheus\n", []string{"-f", "-"},
			"it has a Prometheus, and prometheus-operator makes the pods: give one of those; from a cluster: kubectl get pod", false},
		{"the policy", "", []string{"-f", "testdata/inject/policy.yaml"}, "it is a policy: name it with --policy", false},
		{"a configuration", "global: {}\n", []string{"-f", "-"}, "for a prometheus.yml use ampbridge config", false},
		{"no workload's shape", `{"apiVersion":"apps/v1","kind":"DaemonSet","spec":[]}`, []string{"-f", "-"}, "not a DaemonSet: ", false},
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

// A skipped object is explained: by its file, and by the policy, which the person has.
func TestExplanations(t *testing.T) {
	text := testkit.ReadFile(t, "testdata/inject/policy.yaml")
	grants := testkit.TempFile(t, "policy.yaml", strings.Replace(text, "grants:\n", `grants:
- {namespaces: [monitoring], serviceAccounts: [ruler], destinations: [central], mode: relay}
- {namespaces: [monitoring], serviceAccounts: [otel], destinations: [central], mode: identity}
- {namespaces: [observabilty], serviceAccounts: [prometheus], destinations: [central]}
`, 1))
	object := func(kind, metadata, spec string) string {
		return `{"apiVersion":"v1","kind":"` + kind + `","metadata":{"name":"p",` + metadata + `},"spec":{` + spec + `}}`
	}
	const (
		monitoring = `"namespace":"monitoring"`
		other      = `"containers":[{"name":"a","image":"a:1"},{"name":"b","image":"b:1"}]`
		server     = `"containers":[{"name":"prometheus","image":"prom/prometheus:v3.15.0"}]`
		name       = " the annotation ampbridge.io/container (the pod has a, b)\n"
	)
	for _, c := range []struct {
		name, in string
		args     string
		want     string
	}{
		{"relay", object("Pod", monitoring, `"serviceAccountName":"ruler",`+other), "",
			"Skip: NotPrometheus: no container looks like Prometheus, and the grant has mode relay: name the program's container with" + name},
		{"identity", object("Pod", monitoring, `"serviceAccountName":"otel",`+other), "",
			"Skip: NotPrometheus: no container looks like Prometheus, and the grant has mode identity: name the program's container with" + name},
		{"prometheus", object("Pod", monitoring, `"serviceAccountName":"prometheus",`+other), "",
			"Skip: NotPrometheus: no container looks like Prometheus: if one is, name it with" + name},
		{"no containers", object("Pod", monitoring, `"serviceAccountName":"prometheus"`), "", "Skip: NotPrometheus: the pod has no containers\n"},
		{"containers misspelt", object("Pod", monitoring, `"container":[]`), "",
			`Skip: NotPrometheus: the pod has no containers; unknown field "spec.container": check its spelling` + "\n"},
		{"no namespace", object("Pod", `"labels":{}`, `"serviceAccountName":"prometheus",`+server), "",
			"cluster admin adds one under grants; the file names no namespace, and inject takes default: name another with -n\n"},
		{"service account misspelt", object("Pod", monitoring, `"serviceAcountName":"prometheus",`+server), "",
			`adds one under grants; the pod names no service account (serviceAccountName), so it gets default; ` +
				`unknown field "spec.serviceAcountName": check its spelling` + "\n"},
		{"a grant's namespace misspelt", object("Pod", `"namespace":"observability"`, `"serviceAccountName":"prometheus",`+server), "",
			"adds one under grants; grants[2] names the namespace observabilty\n"},
		{"a grant's account misspelt", object("Pod", monitoring, `"serviceAccountName":"promethus-k8s",`+server), "",
			"adds one under grants; grants[3] names the service account prometheus*\n"},
		{"a service account", `{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"otels"}}`, "-n monitoring",
			"ServiceAccount monitoring/otels: Skip: NotGranted: no grant of the policy covers it; grants[1] names the service account otel; " +
				"the file names no namespace, and inject takes monitoring: name another with -n\n"},
		{"not asked", object("Pod", monitoring, `"serviceAccountName":"prometheus",`+server), "--namespace-label annotated",
			`Skip: NotAsked: in a namespace with the label annotated, a pod asks with the annotation ampbridge.io/inject: "true"` + "\n"},
		{"opted out", object("Pod", monitoring+`,"annotations":{"ampbridge.io/inject":"false"}`, server), "",
			`Skip: OptedOut: the annotation ampbridge.io/inject of the pod or its service account is "false"` + "\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"inject", "-f", "-", "--policy", grants}, strings.Fields(c.args)...)
			if _, stderr, err := command(t, c.in, args...); err != nil || !strings.HasSuffix(stderr, c.want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("%v, stderr %q, want %q", err, stderr, c.want)
			}
		})
	}
}

// The pod template of a workload gets what its pods get.
func TestWorkloads(t *testing.T) {
	spec := func(whole string) string {
		var o struct{ Spec json.RawMessage }
		if err := json.Unmarshal([]byte(whole), &o); err != nil {
			t.Fatal(err)
		}
		return string(o.Spec)
	}
	injected, _, err := injection(t, pod, "-f", "-", "-n", "monitoring", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"} {
		in := `{"apiVersion":"apps/v1","kind":"` + kind + `","metadata":{"name":"prometheus","namespace":"monitoring"},"spec":{"replicas":2,` +
			`"volumeClaimTemplates":[{"metadata":{"name":"data"}}],"template":{"metadata":{"labels":{"app":"p"}},"spec":` + spec(pod) + `}}}`
		out, stderr, err := injection(t, in, "-f", "-", "-o", "json")
		if err != nil || !strings.HasPrefix(stderr, kind+" prometheus of system:serviceaccount:monitoring:prometheus: Inject: "+
			"Granted (central, backup): delivery sigv4: ") {
			t.Fatalf("%v %q", err, stderr)
		}
		var got struct {
			Spec struct {
				Replicas int
				Template json.RawMessage
			}
		}
		if err := json.Unmarshal([]byte(out), &got); err != nil {
			t.Fatal(err)
		}
		if got.Spec.Replicas != 2 || !jsonpatch.Equal([]byte(spec(string(got.Spec.Template))), []byte(spec(injected))) {
			t.Errorf("%s: the template is\n%s\nand a pod gets\n%s", kind, got.Spec.Template, injected)
		}
		again, stderr, err := injection(t, out, "-f", "-", "-o", "patch")
		if err != nil || again != "[]\n" || !strings.Contains(stderr, "AlreadyInjected") {
			t.Errorf("%s: twice is not once: %v %q %s", kind, err, stderr, again)
		}
	}
}

// The published image is named where nothing names an image.
func TestPublishedImageIsNamed(t *testing.T) {
	text := testkit.ReadFile(t, "testdata/inject/policy.yaml")
	unnamed := testkit.TempFile(t, "policy.yaml", strings.Replace(text, `sidecar: {image: "registry.example.com/ampbridge:1"}`+"\n", "", 1))
	for _, c := range []struct {
		policy, in, image string
		want              bool
	}{
		{unnamed, pod, "", true}, {unnamed, pod, "registry.example.com/mine:2", false}, {unnamed, noServer, "", false},
		{"testdata/inject/policy.yaml", pod, "", false},
	} {
		args := []string{"inject", "-f", "-", "--policy", c.policy, "-n", "monitoring"}
		if c.image != "" {
			args = append(args, "--image", c.image)
		}
		_, stderr, err := command(t, c.in, args...)
		named := strings.Contains(stderr, "latest, the default of --image: before you apply this, name your own with --image;")
		if err != nil || named != c.want {
			t.Errorf("%v, stderr %q, named %t", err, stderr, c.want)
		}
	}
}

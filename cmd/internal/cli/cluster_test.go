package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/cmd/internal/versions"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

// kubectl runs the test's own program as the plugin: it is ampbridge under that name.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == plugin {
		os.Exit(Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// What commands do with a cluster besides their own task: kubectl's flags, completion, the
// versions, and the plugin.
func TestCluster(t *testing.T) {
	f := clusterFixture{cluster.Start(t, cluster.Options{})}
	f.fill(t)
	t.Run("completion", f.completes)
	t.Run("flags of kubectl", f.connects)
	t.Run("status of a namespace", f.reportsANamespace)
	t.Run("versions", f.reportsVersions)
	t.Run("plugin", f.runsAsPlugin)
}

type clusterFixture struct{ *cluster.Cluster }

func (f clusterFixture) fill(t *testing.T) {
	t.Helper()
	for name, labels := range map[string]map[string]string{
		"monitoring": {"ampbridge.io/injection": "enabled"}, "team-a": {"ampbridge.io/injection": "enabled"}, systemNamespace: nil,
	} {
		if err := f.Namespace(t.Context(), name, labels); err != nil {
			t.Fatal(err)
		}
	}
	for _, account := range [][2]string{
		{"monitoring", "prometheus"}, {"monitoring", "grafana"}, {"team-a", "prometheus-a"},
	} {
		_, err := f.Client().CoreV1().ServiceAccounts(account[0]).Create(t.Context(),
			&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account[1]}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	// A second context, of the same cluster and user.
	config, err := clientcmd.LoadFromFile(f.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	config.Contexts["second"] = config.Contexts[config.CurrentContext].DeepCopy()
	wrong := config.Clusters[config.Contexts["second"].Cluster].DeepCopy()
	wrong.Server = "https://127.0.0.1:1"
	config.Clusters["wrong"] = wrong
	config.Contexts["wrong"] = config.Contexts["second"].DeepCopy()
	config.Contexts["wrong"].Cluster = "wrong"
	if err := clientcmd.WriteToFile(*config, f.contexts()); err != nil {
		t.Fatal(err)
	}
}

// contexts is a kubeconfig file with several contexts.
func (f clusterFixture) contexts() string { return filepath.Join(f.Dir, "contexts") }

// grantedPolicy names service accounts that the cluster does not have.
const grantedPolicy = `apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev}
destinations:
- {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0001"}
- {name: backup, workspace: "arn:aws:aps:eu-west-1:444455556666:workspace/ws-0002"}
grants:
- {namespaces: [later], serviceAccounts: [prometheus-b], destinations: [central]}
- {namespaces: [team-a], serviceAccounts: [prometheus-a], destinations: [central]}
- {namespaces: [monitoring], serviceAccounts: ["prom*"], destinations: [central, backup]}
trust: {manage: none}
`

func (f clusterFixture) completes(t *testing.T) {
	policyFile := testkit.TempFile(t, "policy.yaml", grantedPolicy)
	namespaces := []string{
		systemNamespace, "default", "kube-node-lease", "kube-public", "kube-system", "monitoring", "team-a",
	}
	for _, c := range []struct {
		name, args string
		want       []string
	}{
		{"namespaces", "doctor --namespace ", namespaces},
		{"shorthand", "discover -n mon", []string{"monitoring"}},
		{"of ampbridge", "status --system-namespace amp", []string{systemNamespace}},
		{"namespaces of grants too", "config --policy POLICY -n l", []string{"later"}},
		{"service accounts of the namespace", "doctor -n monitoring --service-account ",
			[]string{"default", "grafana", "prometheus"}},
		{"service accounts that begin so", "doctor -n team-a --service-account prom", []string{"prometheus-a"}},
		{"service accounts of grants", "config --policy POLICY -n later --service-account ", []string{"prometheus-b"}},
		{"subjects", "plan --policy POLICY --subject ", []string{"later/prometheus-b", "monitoring/prometheus", "team-a/prometheus-a"}},
		{"destinations", "config --policy POLICY --destination ", []string{"backup", "central"}},
		{"aliases", "bootstrap --policy POLICY --alias c", []string{"central="}},
		{"accounts", "plan --policy POLICY --account ", []string{"111122223333", "444455556666"}},
		{"a policy that is not there", "config --policy missing.yaml --destination ", nil},
		{"contexts", "status --context s", []string{"second"}},
		{"clusters", "version --cluster w", []string{"wrong"}},
		{"by another context", "doctor --context second --namespace team", []string{"team-a"}},
		{"formats", "doctor --output ", []string{"html", "json", "text", "yaml"}},
		{"formats of a shorthand", "plan -o t", []string{"terraform", "text"}},
		{"levels", "webhook --log-level ", []string{"debug", "error", "info", "warn"}},
		{"commands", "s", []string{"status", "sync"}},
		{"commands of a command", "bootstrap ", []string{"policy"}},
		{"topics of help", "help iss", []string{"issuer"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := strings.Split(strings.ReplaceAll(c.args, "POLICY", policyFile), " ")
			args = slices.Insert(args, 0, "__complete")
			if len(args) > 3 && args[1] != "config" { // config reads no cluster
				args = slices.Insert(args, 2, "--kubeconfig", f.contexts())
			}
			status, stdout, stderr := run(t, "", args...)
			var got []string
			for line := range strings.Lines(stdout) {
				if word, _, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t"); !strings.HasPrefix(word, ":") {
					got = append(got, word)
				}
			}
			if diff := cmp.Diff(c.want, got); diff != "" || status != OK {
				t.Errorf("status %d (-want +got):\n%s%s", status, diff, stderr)
			}
			if !strings.Contains(stdout, "\n:4") && !strings.HasPrefix(stdout, ":4") && !strings.Contains(stdout, "\n:6") {
				t.Errorf("files are completed too: %s", stdout)
			}
		})
	}
	t.Run("cluster away", func(t *testing.T) {
		args := []string{"__complete", "doctor", "--kubeconfig", f.contexts(), "--context", "wrong", "-n", ""}
		if _, stdout, _ := run(t, "", args...); stdout != ":4\n" {
			t.Errorf("%q", stdout)
		}
	})
}

func (f clusterFixture) connects(t *testing.T) {
	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"context", []string{"--context", "wrong"}, "127.0.0.1:1"},
		{"cluster", []string{"--cluster", "wrong"}, "127.0.0.1:1"},
		{"server", []string{"-s", "https://127.0.0.1:2"}, "127.0.0.1:2"},
		{"user to act as", []string{"--as", "system:serviceaccount:team-a:prometheus-a"},
			`User "system:serviceaccount:team-a:prometheus-a"`},
		{"user", []string{"--user", "stranger"}, `"stranger" does not exist`},
		{"authority", []string{"--certificate-authority", "missing.crt"}, "missing.crt"},
	} {
		t.Run(c.name, func(t *testing.T) {
			args := append([]string{"discover", "--kubeconfig", f.contexts()}, c.args...)
			if status, stdout, stderr := run(t, "", args...); status != Failed || !strings.Contains(stderr, c.want) {
				t.Errorf("status %d: %s%s, want %q", status, stdout, stderr, c.want)
			}
		})
	}
	args := []string{"discover", "--kubeconfig", f.contexts(), "--context", "second"}
	if status, stdout, stderr := run(t, "", args...); status != OK {
		t.Errorf("status %d: %s%s", status, stdout, stderr)
	}
}

func (f clusterFixture) reportsANamespace(t *testing.T) {
	policyFile := testkit.TempFile(t, "policy.yaml", grantedPolicy)
	for namespace, want := range map[string][]string{
		"": {"monitoring/prometheus", "team-a/prometheus-a"}, "team-a": {"team-a/prometheus-a"}, "elsewhere": {},
	} {
		status, stdout, stderr := run(t, "", "status", "--no-aws", "-o", "yaml",
			"--kubeconfig", f.contexts(), "--policy", policyFile, "-n", namespace)
		var r struct {
			Subjects []struct{ Namespace, ServiceAccount string }
		}
		if err := yaml.Unmarshal([]byte(stdout), &r); err != nil || status != OK || stderr != "" {
			t.Fatalf("status %d, %v: %s%s", status, err, stdout, stderr)
		}
		got := []string{}
		for _, s := range r.Subjects {
			got = append(got, s.Namespace+"/"+s.ServiceAccount)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("namespace %q (-want +got):\n%s", namespace, diff)
		}
	}
}

func (f clusterFixture) version(t *testing.T, args ...string) (r versions.Report) {
	t.Helper()
	args = append([]string{"version", "-o", "json", "--kubeconfig", f.contexts()}, args...)
	status, stdout, stderr := run(t, "", args...)
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || status != OK || stderr != "" {
		t.Fatalf("status %d, %v: %s%s", status, err, stdout, stderr)
	}
	return r
}

func (f clusterFixture) reportsVersions(t *testing.T) {
	defer func(was string) { release = was }(release)
	release = "v0.2.1"
	const image, earlier = "ghcr.io/ampbridge/ampbridge:v0.2.0", "ghcr.io/ampbridge/ampbridge:v0.1.0"

	r := f.version(t)
	if r.Cluster == nil || !strings.HasPrefix(r.Cluster.Kubernetes, "v1.") || r.Cluster.Chart != "" || len(r.Warnings) > 0 {
		t.Errorf("without an installation: %+v, %+v", r, r.Cluster)
	}
	if r := f.version(t, "--client"); r.Cluster != nil || r.Client.Version != "v0.2.1" {
		t.Errorf("the program alone: %+v", r)
	}
	r = f.version(t, "--context", "wrong")
	if r.Cluster != nil || len(r.Unavailable) != 1 || !strings.Contains(r.Unavailable[0], "127.0.0.1:1") {
		t.Errorf("cluster away: %+v", r)
	}
	f.deploy(t, "webhook", image, "v0.2.0")
	f.deploy(t, "sync", image, "v0.2.0")
	f.inject(t, "new", image)
	want := &versions.Cluster{
		Kubernetes: f.version(t).Cluster.Kubernetes, Namespace: systemNamespace, Chart: "ampbridge-0.2.0", Version: "v0.2.0",
		Webhook: image, Sync: image, Sidecar: image, Sidecars: []versions.Sidecars{{Image: image, Pods: 1}},
	}
	r = f.version(t)
	if diff := cmp.Diff(want, r.Cluster); diff != "" || len(r.Warnings)+len(r.Unavailable) > 0 {
		t.Errorf("(-want +got):\n%s%v %v", diff, r.Warnings, r.Unavailable)
	}

	release = "v0.3.0"
	f.deploy(t, "sync", earlier, "v0.2.0")
	f.inject(t, "old-0", earlier)
	f.inject(t, "old-1", earlier)
	r = f.version(t)
	for i, part := range []string{
		"this program is v0.3.0 and the installation is v0.2.0", "webhook and sync have different images",
		"2 pods run the sidecar " + earlier + ", and the webhook injects " + image,
	} {
		if len(r.Warnings) != 3 || !strings.Contains(r.Warnings[i], part) {
			t.Fatalf("warnings %q, want %q", r.Warnings, part)
		}
	}
	_, text, _ := run(t, "", "version", "--kubeconfig", f.contexts())
	for _, part := range []string{
		"ampbridge   v0.3.0 (go", "\nchart       ampbridge-0.2.0\n", "\nsync        " + earlier + "\n",
		"\nrunning     " + earlier + " in 2 pods\n", "\nwarning     this program is v0.3.0",
	} {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in:\n%s", part, text)
		}
	}
	// Without the right to read them.
	r = f.version(t, "--as", "system:serviceaccount:team-a:prometheus-a", "--as-group", "system:authenticated")
	if r.Cluster == nil || len(r.Unavailable) != 3 || !strings.Contains(r.Unavailable[0], "forbidden") {
		t.Errorf("without rights: %+v", r)
	}
}

// deploy is what the chart deploys, as far as its versions are concerned.
func (f clusterFixture) deploy(t *testing.T, component, image, version string) {
	t.Helper()
	labels := map[string]string{"ampbridge.io/chart": "ampbridge", "app.kubernetes.io/component": component}
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: component, Labels: map[string]string{
			"ampbridge.io/chart": "ampbridge", "app.kubernetes.io/component": component,
			"helm.sh/chart": "ampbridge-" + version[1:], "app.kubernetes.io/version": version,
		}},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: labels}, Spec: corev1.PodSpec{
				Containers: []corev1.Container{{Name: component, Image: image, Args: []string{component, "--image=" + image}}},
			}},
		},
	}
	api := f.Client().AppsV1().Deployments(systemNamespace)
	_ = api.Delete(t.Context(), component, metav1.DeleteOptions{}) // of an earlier version, if any
	if _, err := api.Create(t.Context(), d, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// inject creates a pod with a sidecar.
func (f clusterFixture) inject(t *testing.T, name, image string) {
	t.Helper()
	always := corev1.ContainerRestartPolicyAlways
	_, err := f.Client().CoreV1().Pods("monitoring").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{{Name: sidecarconfig.ContainerName, Image: image, RestartPolicy: &always}},
			Containers:     []corev1.Container{{Name: "prometheus", Image: "quay.io/prometheus/prometheus:v3.15.0"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func (f clusterFixture) runsAsPlugin(t *testing.T) {
	kubectl, dir := tools.Path(t, "kubectl"), t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, filepath.Join(dir, plugin)); err != nil {
		t.Fatal(err)
	}
	completion := filepath.Join(dir, "kubectl_complete-ampbridge")
	if err := os.WriteFile(completion, []byte(kubectlCompletion), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args   []string
		status int
		want   string
	}{
		{[]string{"ampbridge", "version", "--client"}, OK, "ampbridge   "},
		{[]string{"ampbridge", "status", "--help"}, OK, "\n  kubectl ampbridge status --watch\n"},
		{[]string{"ampbridge", "--context", "second", "discover"}, OK, "pod/new"},
		{[]string{"ampbridge", "discover", "--context", "second"}, OK, "pod/new"},
		{[]string{"--context", "second", "ampbridge", "discover"}, Failed, "flags cannot be placed before plugin name"},
		{[]string{"ampbridge", "stats"}, Usage, `unknown command "stats" for "kubectl ampbridge": did you mean status?`},
		{[]string{"__complete", "ampbridge", "doctor", "-n", "team"}, OK, "team-a\n:4\n"},
	} {
		cmd := exec.CommandContext(t.Context(), kubectl, c.args...)
		cmd.Env = []string{"PATH=" + dir + ":" + os.Getenv("PATH"), "KUBECONFIG=" + f.contexts(), "HOME=" + dir}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); cmd.ProcessState.ExitCode() != c.status || !strings.Contains(out.String(), c.want) {
			t.Errorf("kubectl %q: %v, want status %d with %q:\n%s", c.args, err, c.status, c.want, out.String())
		}
	}
}

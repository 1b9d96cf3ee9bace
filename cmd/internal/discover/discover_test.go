package discover_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/cmd/internal/cli"
	"github.com/ampbridge/ampbridge/cmd/internal/cli/clitest"
	"github.com/ampbridge/ampbridge/cmd/internal/discover"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// pod is a Prometheus, as change leaves it.
func pod(name, serviceAccount string, change func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			ServiceAccountName: serviceAccount,
			Containers: []corev1.Container{{
				Name: "prometheus", Image: "quay.io/prometheus/prometheus:v3.15.0", Args: []string{"--config.file=/etc/config/prometheus.yml"},
				VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/etc/config"}},
			}},
			Volumes: []corev1.Volume{{Name: "config", VolumeSource: corev1.VolumeSource{
				ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "config"}},
			}}},
		},
	}
	if change != nil {
		change(p)
	}
	return p
}

// program is a pod with another program than Prometheus.
func program(name, annotations string, change func(*corev1.Pod)) *corev1.Pod {
	return pod(name, "ruler", func(p *corev1.Pod) {
		if err := json.Unmarshal([]byte(annotations), &p.Annotations); err != nil {
			panic(err)
		}
		p.Spec.Volumes = nil
		p.Spec.Containers = []corev1.Container{{Name: "thanos", Image: "quay.io/thanos/thanos:v0.42.0", Args: []string{"rule"}}}
		if change != nil {
			change(p)
		}
	})
}

// A cluster without ampbridge: pods that can be served, pods that cannot, and others.
func TestDiscover(t *testing.T) {
	c := cluster.Start(t, cluster.Options{})
	client := c.Client()
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) (string, string, int) {
		status, out, errs := clitest.Run(t.Context(), "", append([]string{"discover"}, args...)...)
		return out, errs, status
	}
	admin := []string{"--kubeconfig", c.Kubeconfig()}
	if out, _, status := run(admin...); status != cli.OK || !strings.Contains(out, "no Prometheus was found") {
		t.Errorf("an empty cluster: status %d: %s", status, out)
	}

	must(nil, c.Namespace(t.Context(), "monitoring", map[string]string{policy.LabelInjection: string(policy.InjectionEnabled)}))
	must(nil, c.Namespace(t.Context(), "team-a", nil))
	must(nil, c.Namespace(t.Context(), "obs", map[string]string{policy.LabelInjection: "true"}))
	for _, account := range [][2]string{{"monitoring", "k8s"}, {"team-a", "own"}, {"team-a", "b"}, {"obs", "ruler"}} {
		must(client.CoreV1().ServiceAccounts(account[0]).Create(t.Context(),
			&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account[1]}}, metav1.CreateOptions{}))
	}
	for _, p := range []struct {
		namespace string
		pod       *corev1.Pod
	}{
		{"team-a", pod("plain", "own", nil)},
		{"team-a", pod("other", "", nil)},
		// The relay needs 2.8.
		{"team-a", pod("ancient", "b", func(p *corev1.Pod) { p.Spec.Containers[0].Image = "prom/prometheus:v2.7.1" })},
		// Nothing can be added to a configuration that is in the image.
		{"team-a", pod("baked", "b", func(p *corev1.Pod) { p.Spec.Containers[0].VolumeMounts = nil })},
		{"team-a", pod("shell", "b", func(p *corev1.Pod) { p.Spec.Containers[0].Image, p.Spec.Containers[0].Args = "busybox:1", nil })},
		// Other programs, which only the annotation names.
		{"obs", program("ruler", `{"ampbridge.io/container":"thanos"}`, nil)},
		{"obs", program("otel", `{"ampbridge.io/container":"thanos","ampbridge.io/mode":"identity"}`, nil)},
		{"obs", program("node", `{"ampbridge.io/container":"thanos"}`, func(p *corev1.Pod) { p.Spec.HostNetwork = true })},
		{"obs", pod("signs", "ruler", func(p *corev1.Pod) {
			p.Annotations = map[string]string{policy.AnnotationContainer: "prometheus", policy.AnnotationMode: "identity"}
		})},
		{"obs", program("misspelt", `{"ampbridge.io/container":"thaons"}`, nil)},
		// An unusual Prometheus, with a known configuration.
		{"obs", program("fork", `{"ampbridge.io/container":"prometheus"}`, func(p *corev1.Pod) {
			p.Spec.Containers = pod("", "", nil).Spec.Containers
			p.Spec.Containers[0].Image, p.Spec.Containers[0].Args[0] = "fork:1", "--config.file=/etc/config/fork.yml"
			p.Spec.Volumes = pod("", "", nil).Spec.Volumes
		})},
	} {
		must(client.CoreV1().Pods(p.namespace).Create(t.Context(), p.pod, metav1.CreateOptions{}))
	}

	replicas := pod("", "k8s", func(p *corev1.Pod) { p.Labels = map[string]string{"app": "k8s"} })
	must(client.AppsV1().StatefulSets("monitoring").Create(t.Context(), &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Name: "k8s"},
		Spec: appsv1.StatefulSetSpec{
			Replicas: new(int32(2)), PodManagementPolicy: appsv1.ParallelPodManagement,
			Selector: &metav1.LabelSelector{MatchLabels: replicas.Labels},
			Template: corev1.PodTemplateSpec{ObjectMeta: replicas.ObjectMeta, Spec: replicas.Spec},
		},
	}, metav1.CreateOptions{}))
	testkit.Within(t, time.Minute, "the StatefulSet has its pods", func() bool {
		list, err := client.CoreV1().Pods("monitoring").List(t.Context(), metav1.ListOptions{})
		return err == nil && len(list.Items) == 2
	})

	out, errs, status := run(append(admin, "-o", "json", "--destination", "main")...)
	if status != cli.OK {
		t.Fatal(errs)
	}
	var r discover.Report
	must(nil, json.Unmarshal([]byte(out), &r))
	type row struct {
		Name, Account string
		Pods          int
		Mode          policy.Mode
		Delivery      policy.Delivery
		Reason        policy.Reason
	}
	var rows []row
	for _, w := range r.Workloads {
		rows = append(rows, row{w.Namespace + "/" + w.Name, w.ServiceAccount, w.Pods, w.Mode, w.Delivery, w.Reason})
		if w.Text == "" {
			t.Errorf("%s has no reason in words", w.Name)
		}
	}
	if diff := cmp.Diff([]row{
		{"monitoring/statefulset/k8s", "k8s", 2, "", "relay", "Granted"},
		{"obs/pod/fork", "ruler", 1, "", "relay", "Granted"},
		{"obs/pod/misspelt", "ruler", 1, "", "", "NoSuchContainer"},
		{"obs/pod/node", "ruler", 1, "identity", "", "Granted"},
		{"obs/pod/otel", "ruler", 1, "identity", "", "Granted"},
		{"obs/pod/ruler", "ruler", 1, "relay", "", "Granted"},
		{"obs/pod/signs", "ruler", 1, "identity", "", "Granted"},
		{"team-a/pod/ancient", "b", 1, "", "", "OldPrometheus"},
		{"team-a/pod/baked", "b", 1, "", "", "ConfigurationInImage"},
		{"team-a/pod/other", "default", 1, "", "relay", "Granted"},
		{"team-a/pod/plain", "own", 1, "", "relay", "Granted"},
	}, rows); diff != "" {
		t.Errorf("workloads (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]discover.Grant{
		{[]string{"monitoring"}, []string{"k8s"}, []string{"main"}, ""},
		{[]string{"obs"}, []string{"ruler"}, []string{"main"}, ""},
		{[]string{"obs"}, []string{"ruler"}, []string{"main"}, "identity"},
		{[]string{"obs"}, []string{"ruler"}, []string{"main"}, "relay"},
		{[]string{"team-a"}, []string{"default", "own"}, []string{"main"}, ""},
	}, r.Grants); diff != "" {
		t.Errorf("grants (-want +got):\n%s", diff)
	}
	if !cmp.Equal(r.Unlabelled, []string{"obs", "team-a"}) {
		t.Errorf("unlabelled: %v", r.Unlabelled)
	}

	text, _, _ := run(admin...)
	_, grants, _ := strings.Cut(text, "name central:\n\n")
	grants, _, _ = strings.Cut(grants, "\nThen")
	p, err := policy.Parse([]byte(`apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev}
destinations: [{name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-1"}]
trust: {permissionsBoundary: "arn:aws:iam::111122223333:policy/boundary"}
` + grants))
	if err != nil {
		t.Fatalf("the grants do not fit into a policy: %v\n%s", err, text)
	}
	if _, granted := p.Entitled(policy.Subject{Namespace: "team-a", ServiceAccount: "own"}); !granted {
		t.Errorf("the pasted grants do not cover team-a/own:\n%s", text)
	}
	for _, want := range []string{"kubectl label namespace team-a ampbridge.io/injection=enabled", "none: OldPrometheus",
		"# default of namespace team-a",
		"# the label of obs is \"true\"\n  kubectl label --overwrite namespace obs ampbridge.io/injection=enabled",
		"mode relay ", "named by ampbridge.io/container, and does not look like Prometheus",
		"the annotation ampbridge.io/mode asks for it", "# mode relay: for programs that write."} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q:\n%s", want, text)
		}
	}

	for _, wrong := range []struct {
		args, want string
		status     int
	}{
		{"-n team-b", `the cluster has no namespace "team-b": did you mean -n team-a?`, cli.Failed},
		{"-n nowhere-near", `the cluster has no namespace "nowhere-near"` + "\n", cli.Failed},
		{"--destination arn:aws:aps:eu-west-1:111122223333:workspace/ws-1", "is an ARN: write the name of a destination", cli.Usage},
		{"--destination Central", `--destination "Central" is not a DNS label: write the name of a destination`, cli.Usage},
		{"--destination a,b", `--destination "a,b" is not a DNS label`, cli.Usage},
	} {
		if out, errs, status := run(append(admin, strings.Fields(wrong.args)...)...); status != wrong.status || out != "" ||
			!strings.Contains(errs, wrong.want) {
			t.Errorf("%s: status %d: %s%s, want %q", wrong.args, status, out, errs, wrong.want)
		}
	}

	// Somebody who may read one namespace alone.
	must(client.RbacV1().Roles("team-a").Create(t.Context(),
		&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "read"}, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"pods"}, Verbs: []string{"list"}},
		}}, metav1.CreateOptions{}))
	must(client.RbacV1().RoleBindings("team-a").Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "read"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "read"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: "team-a", Name: "own"}},
	}, metav1.CreateOptions{}))
	tenant, err := c.KubeconfigFor(t.Context(), "team-a", "own")
	must(nil, err)
	if _, errs, status := run("--kubeconfig", tenant); status != cli.Failed || !strings.Contains(errs, "--namespace") {
		t.Errorf("all namespaces, as a tenant: status %d: %s", status, errs)
	}
	if out, errs, status := run("--kubeconfig", tenant, "-n", "team-a"); status != cli.OK || !strings.Contains(out, "pod/plain") {
		t.Errorf("a namespace, as a tenant: status %d: %s%s", status, out, errs)
	}
}

package doctor

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// policyOf returns a policy with two destinations and these grants.
func policyOf(t *testing.T, grants string) *policy.Policy {
	t.Helper()
	return policytest.Parse(t, `
apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev}
destinations:
- {name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0123abcd"}
- {name: reader, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0123abcd", access: [query]}
grants: [`+grants+`]
trust: {manage: none}
`)
}

// namespaces are the namespaces of a cluster with their labels, as the API server returns
// them; those with the label injection are also the labelled ones.
func namespaces(labels map[string]string) map[string]any {
	objects := map[string]any{}
	var list corev1.NamespaceList
	for name, label := range labels {
		ns := corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if label != "" {
			ns.Labels = map[string]string{policy.LabelInjection: label}
		}
		objects["/api/v1/namespaces/"+name] = ns
		list.Items = append(list.Items, ns)
	}
	objects["/api/v1/namespaces"] = list
	return objects
}

// If there is no service account to check, the finding names the cause: the missing grant, the
// missing label, or the namespace of the flag.
func TestNoSubjects(t *testing.T) {
	const grant = "{namespaces: [team], serviceAccounts: [prometheus], destinations: [central]}"
	for _, c := range []struct {
		name, grants, flag string
		labels             map[string]string
		id                 check.ID
		want               string
	}{
		{"no grants and no label", "", "", nil, check.Namespace, "is in a namespace with the label"},
		{"no grants", "", "", map[string]string{"monitoring": "enabled"}, check.Grant, "the policy has no grants"},
		{"grants for others", grant, "", map[string]string{"monitoring": "enabled"}, check.Grant,
			"no grant covers a service account of the labelled namespaces: monitoring"},
		{"no label", grant, "", nil, check.Namespace, "is in a namespace with the label"},
		{"a mistyped namespace", grant, "monitorng", map[string]string{"monitoring": "enabled"}, check.Namespace,
			"namespace monitorng does not exist: did you mean monitoring?"},
		{"a namespace without the label", grant, "other", map[string]string{"other": ""}, check.Namespace, "other does not carry the label"},
		{"a namespace without a grant", grant, "other", map[string]string{"other": "enabled"}, check.Grant,
			"no grant covers a service account of namespace other"},
		{"a namespace that is always excluded", grant, "kube-system", map[string]string{"kube-system": "enabled"}, check.Namespace,
			"never called for pods in namespace kube-system"},
	} {
		t.Run(c.name, func(t *testing.T) {
			x := runnerOn(t, namespaces(c.labels))
			x.policy, x.Namespace = policyOf(t, c.grants), c.flag
			var r check.Runner
			r.Add(x.noSubjects(t.Context())...)
			report := r.Report()
			if failed := report.Failed(); len(failed) != 1 {
				t.Fatalf("failed: %v", failed)
			}
			f := report.Of(report.Failed()[0])[0]
			if f.ID != c.id || f.Status != check.Fail || !strings.Contains(f.Message, c.want) || f.Fix == nil {
				t.Errorf("%s %s: %s", f.Status, f.ID, f.Message)
			}
			for _, command := range f.Fix.Commands {
				if slices.Contains(command, "create") && strings.Contains(c.name, "mistyped") {
					t.Errorf("the fix makes the mistyped namespace: %s", command)
				}
			}
		})
	}
}

// A grant that names two namespaces is checked in both, if the service account exists.
func TestChosenSubjectsWithoutALabel(t *testing.T) {
	objects := namespaces(map[string]string{"monitoring": "enabled", "staging": "", "empty": ""})
	account := corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "prometheus"}}
	objects["/api/v1/namespaces/staging/serviceaccounts/prometheus"] = account
	objects["/api/v1/namespaces/monitoring/serviceaccounts"] = corev1.ServiceAccountList{Items: []corev1.ServiceAccount{account}}
	for _, empty := range []string{"staging", "empty"} {
		objects["/api/v1/namespaces/"+empty+"/serviceaccounts"] = corev1.ServiceAccountList{}
	}
	x := runnerOn(t, objects)
	x.policy = policyOf(t, "{namespaces: [monitoring, staging, empty, gone], serviceAccounts: [prometheus], destinations: [central]}")
	got, err := x.chosenSubjects(t.Context())
	testkit.Must(t, err)
	var names []string
	for _, s := range got {
		names = append(names, s.Namespace)
	}
	if !slices.Contains(names, "staging") || !slices.Contains(names, "monitoring") || slices.Contains(names, "gone") || len(names) != 2 {
		t.Errorf("%v", names)
	}
}

// A pod lacks a destination only if a grant of its own mode has it.
func TestMissing(t *testing.T) {
	x := &runner{policy: policyOf(t, "{namespaces: [m], serviceAccounts: [p], destinations: [central]},"+
		"{namespaces: [m], serviceAccounts: [p], destinations: [reader], mode: identity}")}
	s := &subject{Subject: policy.Subject{Namespace: "m", ServiceAccount: "p"}, destinations: x.policy.Destinations}
	for _, c := range []struct {
		mark inject.Injected
		want int
	}{
		{inject.Injected{Destinations: []string{"central"}}, 0},
		{inject.Injected{Destinations: []string{}}, 1},
		{inject.Injected{Mode: policy.ModeIdentity, Destinations: []string{"reader"}}, 0},
	} {
		if got := x.missing(s, c.mark); len(got) != c.want {
			t.Errorf("%+v: %v", c.mark, got)
		}
	}
	s.destinations = nil // opted out of all
	if got := x.missing(s, inject.Injected{}); len(got) != 0 {
		t.Errorf("after an opt-out: %v", got)
	}
}

// If the granted service account has no pod, a Prometheus pod of another one is named.
func TestOtherPrometheus(t *testing.T) {
	pod := func(account string) *corev1.Pod {
		p := samplePod(policy.Subject{Namespace: "m", ServiceAccount: account}, "")
		p.Name = account + "-0"
		return p
	}
	out := pod("out")
	out.Annotations[policy.AnnotationInject] = "false"
	other := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", Namespace: "m"}, Spec: corev1.PodSpec{ServiceAccountName: "web",
		Containers: []corev1.Container{{Name: "web", Image: "nginx"}}}}
	for want, pods := range map[string][]*corev1.Pod{
		"":                 {pod("granted"), out, other},
		"prometheus-k8s-0": {other, pod("granted"), pod("prometheus-k8s")},
	} {
		var list corev1.PodList
		for _, p := range pods {
			list.Items = append(list.Items, *p)
		}
		x := runnerOn(t, map[string]any{"/api/v1/namespaces/m/pods": list})
		x.policy = policyOf(t, "{namespaces: [m], serviceAccounts: [granted], destinations: [central]}")
		got := ""
		if found := x.otherPrometheus(t.Context(), &subject{Subject: policy.Subject{Namespace: "m", ServiceAccount: "granted"}}); found != nil {
			got = found.Name
		}
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

// Sync changes only roles that it created for this cluster.
func TestForeignRole(t *testing.T) {
	x := &runner{policy: policyOf(t, ""), issuer: "https://issuer.example.com/dev"}
	own := policy.Owner("dev", x.issuer)
	for _, c := range []struct {
		tags    map[string]string
		issuer  policy.Issuer
		foreign bool
		want    string
	}{
		{map[string]string{plan.TagOwner: own}, x.issuer, false, ""},
		{nil, x.issuer, true, "was not created by sync: it has no tag ampbridge.io/owner"},
		{map[string]string{plan.TagOwner: policy.Owner("dev", "https://issuer.example.com/other"), plan.TagCluster: "dev"}, x.issuer, true,
			"belongs to another cluster of the name dev"},
		{nil, "", false, ""},
	} {
		x.issuer = c.issuer
		f, foreign := x.foreignRole(&plan.Role{Tags: c.tags})
		if foreign != c.foreign || !strings.Contains(f.Message, c.want) || foreign && f.Fix == nil {
			t.Errorf("tags %v: %v %s", c.tags, foreign, f.Message)
		}
	}
}

// The webhook follows the annotations of a pod, and doctor predicts what it will do.
func TestCandidate(t *testing.T) {
	x := &runner{policy: policytest.Parse(t, policytest.Granting("prometheus", "monitoring"))}
	for name, c := range map[string]struct {
		label, inject, destinations string
		want                        check.Status
		says                        string
	}{
		"enabled":                   {"enabled", "", "", check.Pass, "it would be injected"},
		"opted out":                 {"enabled", "false", "", check.Skip, "opted out"},
		"a wrong value":             {"enabled", "yes", "", check.Fail, `write "true" or "false"`},
		"an unknown destination":    {"enabled", "", "nope", check.Fail, "nope"},
		"annotated, and asked":      {"annotated", "true", "", check.Pass, "it would be injected"},
		"annotated, and not asked":  {"annotated", "", "", check.Fail, "neither the pod nor its service account asks"},
		"annotated, and opted out":  {"annotated", "false", "", check.Skip, "opted out"},
		"a label of another value":  {"true", "", "", check.Fail, "does not carry the label"},
		"a namespace without label": {"", "true", "", check.Fail, "does not carry the label"},
	} {
		s := &subject{Subject: policy.Subject{Namespace: "monitoring", ServiceAccount: "prometheus"},
			labels: map[string]string{policy.LabelInjection: c.label}}
		pod := samplePod(s.Subject, "")
		pod.Annotations = nil
		for annotation, value := range map[string]string{policy.AnnotationInject: c.inject, policy.AnnotationDestinations: c.destinations} {
			if value != "" {
				metav1.SetMetaDataAnnotation(&pod.ObjectMeta, annotation, value)
			}
		}
		if f := x.candidate(s, pod); f.Status != c.want || !strings.Contains(f.Message, c.says) {
			t.Errorf("%s: %s: %s", name, f.Status, f.Message)
		}
	}
}

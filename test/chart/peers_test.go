package chart

import (
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// renderValues renders the least, and these values.
func renderValues(t *testing.T, values string) objects {
	t.Helper()
	return render(t, "-f", minimal, "-f", valuesFile(t, values))
}

// deployments are the chart's two, by the name of their container.
func deployments(t *testing.T, all objects) map[string]appsv1.Deployment {
	t.Helper()
	found := map[string]appsv1.Deployment{}
	for _, object := range all {
		if object.GetKind() == "Deployment" {
			var d appsv1.Deployment
			into(t, object, &d)
			found[d.Spec.Template.Spec.Containers[0].Name] = d
		}
	}
	if len(found) != 2 {
		t.Fatalf("%d Deployments", len(found))
	}
	return found
}

func TestImageRegistry(t *testing.T) {
	const values = "global: {imageRegistry: mirror.example.com:5000/eu, other: true}\nimage: {repository: %q, tag: x}"
	for repository, want := range map[string]string{
		"ghcr.io/ampbridge/ampbridge":         "mirror.example.com:5000/eu/ampbridge/ampbridge",
		"registry.example.com:443/a/b":        "mirror.example.com:5000/eu/a/b",
		"localhost/ampbridge":                 "mirror.example.com:5000/eu/ampbridge",
		"ampbridge/ampbridge":                 "mirror.example.com:5000/eu/ampbridge/ampbridge",
		"ampbridge":                           "mirror.example.com:5000/eu/ampbridge",
		"registry.example.com/ampbridge.io/x": "mirror.example.com:5000/eu/ampbridge.io/x",
	} {
		all := renderValues(t, fmt.Sprintf(values, repository))
		images := map[string]bool{}
		for _, object := range all {
			for _, c := range podOf(t, object).Containers {
				images[c.Image] = true
				for _, argument := range c.Args {
					if image, found := strings.CutPrefix(argument, "--image="); found {
						images[image] = true
					}
				}
			}
		}
		if got := slices.Collect(maps.Keys(images)); !slices.Equal(got, []string{want + ":x"}) {
			t.Errorf("%s: images %q, want %s:x", repository, got, want)
		}
	}
}

// Without RBAC or service accounts of the chart, the user's own are used everywhere.
func TestServiceAccountsAndRBAC(t *testing.T) {
	const own = `
webhook: {serviceAccount: {create: false, name: hook}}
sync: {serviceAccount: {create: false, name: keeper}}
certificates: {mode: selfManaged}
`
	for _, c := range []struct {
		name, values      string
		accounts, rbac    int
		webhook, sync     string
		ofWebhook, ofSync string
	}{
		{"default", "{}", 2, 8, "ampbridge-webhook", "ampbridge-sync", "ampbridge-webhook", "ampbridge-sync"},
		{"the user's names", "{webhook: {serviceAccount: {name: hook}}, sync: {serviceAccount: {name: keeper}}}", 2, 8, "hook", "keeper",
			"ampbridge-webhook", "ampbridge-sync"},
		{"the user's accounts", own, 0, 8, "hook", "keeper", "ampbridge-webhook", "ampbridge-sync"},
		{"the user's rights", own + "rbac: {create: false}", 0, 0, "hook", "keeper", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := renderValues(t, c.values)
			var accounts []string
			rbac := 0
			for _, object := range all {
				switch object.GetKind() {
				case "ServiceAccount":
					accounts = append(accounts, object.GetName())
				case "Role", "ClusterRole":
					rbac++
				case "RoleBinding", "ClusterRoleBinding":
					rbac++
					var binding rbacv1.RoleBinding
					into(t, object, &binding)
					want := map[string]string{"ampbridge-webhook": c.webhook, "ampbridge-sync": c.sync}[binding.Name]
					if binding.Subjects[0].Name != want || binding.Subjects[0].Namespace != namespace {
						t.Errorf("%s %s binds %+v, want %s", object.GetKind(), binding.Name, binding.Subjects, want)
					}
				case "ValidatingAdmissionPolicy":
					want := map[string]string{"ampbridge-webhook": c.webhook, "ampbridge-sync": c.sync}[object.GetName()]
					text, err := yaml.Marshal(object.Object)
					testkit.Must(t, err)
					if !strings.Contains(string(text), "'system:serviceaccount:"+namespace+":"+want+"'") {
						t.Errorf("the policy %s is not about %s:\n%s", object.GetName(), want, text)
					}
				}
			}
			if len(accounts) != c.accounts || rbac != c.rbac {
				t.Errorf("service accounts %q and %d objects of RBAC, want %d and %d", accounts, rbac, c.accounts, c.rbac)
			}
			if c.accounts > 0 {
				slices.Sort(accounts)
				if want := []string{c.webhook, c.sync}; !slices.Equal(accounts, slices.Sorted(slices.Values(want))) {
					t.Errorf("service accounts %q, want %q", accounts, want)
				}
			}
			pods := deployments(t, all)
			for component, want := range map[string]string{"webhook": c.webhook, "sync": c.sync} {
				if got := pods[component].Spec.Template.Spec.ServiceAccountName; got != want {
					t.Errorf("%s runs as %s, want %s", component, got, want)
				}
			}
		})
	}
}

// Every object has the annotations, and none loses one of its own.
func TestCommonAnnotations(t *testing.T) {
	for name, args := range forms {
		before := named(render(t, args...))
		after := render(t, append(slices.Clone(args), "--set", "commonAnnotations.example\\.com/everywhere=yes")...)
		for _, object := range after {
			if strings.HasSuffix(object.GetName(), "more") { // of extraObjects
				continue
			}
			want := maps.Clone(before[object.GetKind()+" "+object.GetName()].GetAnnotations())
			if want == nil {
				want = map[string]string{}
			}
			want["example.com/everywhere"] = "yes"
			if diff := cmp.Diff(want, object.GetAnnotations()); diff != "" {
				t.Errorf("%s: %s %s: -want +got:\n%s", name, object.GetKind(), object.GetName(), diff)
			}
			if !reflect.DeepEqual(podOf(t, object), podOf(t, before[object.GetKind()+" "+object.GetName()])) {
				t.Errorf("%s: the pods of %s change", name, object.GetName())
			}
		}
	}
}

func TestExtraObjects(t *testing.T) {
	all := renderValues(t, `
extraObjects:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {text: "{{ $value }}"}}
- |
  apiVersion: v1
  kind: ConfigMap
  metadata: {name: "{{ .Release.Name }}-b"}
  ---
  apiVersion: v1
  kind: ConfigMap
  metadata: {name: {{ include "ampbridge.fullname" . }}-c}
`)
	var a corev1.ConfigMap
	into(t, all.get(t, "ConfigMap", "a"), &a)
	if a.Data["text"] != "{{ $value }}" {
		t.Errorf("a mapping is rendered: %q", a.Data)
	}
	all.get(t, "ConfigMap", "ampbridge-b")
	all.get(t, "ConfigMap", "ampbridge-c")
}

// Nothing is in the release's namespace, or speaks of it.
func TestNamespaceOverride(t *testing.T) {
	for name, args := range forms {
		args := append(slices.Clone(args), "--set", "namespaceOverride=elsewhere")
		out := mustHelm(t, append([]string{"template", release, chartDir, "--namespace", "of-the-release"}, args...)...)
		if strings.Contains(out, "of-the-release") {
			t.Errorf("%s: the release's namespace is there", name)
		}
		namespaced := 0
		for _, object := range parse(t, out) {
			switch object.GetNamespace() {
			case "elsewhere":
				namespaced++
			case "":
				if strings.HasPrefix(object.GetKind(), "Cluster") || strings.Contains(object.GetKind(), "Configuration") ||
					strings.HasPrefix(object.GetKind(), "ValidatingAdmission") || strings.HasSuffix(object.GetName(), "more") {
					continue
				}
				fallthrough
			default:
				t.Errorf("%s: %s %s is in namespace %q", name, object.GetKind(), object.GetName(), object.GetNamespace())
			}
		}
		if namespaced < 8 {
			t.Errorf("%s: only %d objects are in the namespace", name, namespaced)
		}
	}
}

// What both workloads have is what the values say.
func TestWorkloads(t *testing.T) {
	const settings = `
  dnsPolicy: None
  dnsConfig: {nameservers: [10.0.0.10], searches: [example.com], options: [{name: ndots, value: "2"}]}
  podSecurityContext: {fsGroup: 2000, seccompProfile: null}
  securityContext: {runAsUser: 1000}
  readinessProbe: {periodSeconds: 7, timeoutSeconds: 3}
  livenessProbe: {initialDelaySeconds: 30}
  revisionHistoryLimit: 0
  strategy: {type: Recreate}
  logLevel: warn
  logFormat: text
  extraVolumes: [{name: ca, configMap: {name: ca}}]
  extraVolumeMounts: [{name: ca, mountPath: /etc/ca}]
`
	for component, d := range deployments(t, renderValues(t, "webhook:"+settings+"sync:"+settings)) {
		pod := d.Spec.Template.Spec
		container := pod.Containers[0]
		probe := func(path string, edit func(*corev1.Probe)) *corev1.Probe {
			p := &corev1.Probe{}
			p.HTTPGet = &corev1.HTTPGetAction{Path: path}
			p.HTTPGet.Port.Type, p.HTTPGet.Port.StrVal = 1, "health"
			edit(p)
			return p
		}
		for _, c := range []struct {
			what      string
			got, want any
		}{
			{"dnsPolicy", pod.DNSPolicy, corev1.DNSNone},
			{"dnsConfig", pod.DNSConfig, &corev1.PodDNSConfig{
				Nameservers: []string{"10.0.0.10"}, Searches: []string{"example.com"},
				Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: new("2")}},
			}},
			{"podSecurityContext", pod.SecurityContext, &corev1.PodSecurityContext{RunAsNonRoot: new(true), FSGroup: new(int64(2000))}},
			{"securityContext", container.SecurityContext, &corev1.SecurityContext{
				RunAsUser: new(int64(1000)), AllowPrivilegeEscalation: new(false), ReadOnlyRootFilesystem: new(true),
				Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			}},
			{"readinessProbe", container.ReadinessProbe, probe("/readyz", func(p *corev1.Probe) { p.PeriodSeconds, p.TimeoutSeconds = 7, 3 })},
			{"livenessProbe", container.LivenessProbe, probe("/healthz", func(p *corev1.Probe) {
				p.InitialDelaySeconds, p.FailureThreshold = 30, 6
			})},
			{"revisionHistoryLimit", d.Spec.RevisionHistoryLimit, new(int32(0))},
			{"strategy", d.Spec.Strategy, appsv1.DeploymentStrategy{Type: appsv1.RecreateDeploymentStrategyType}},
		} {
			if diff := cmp.Diff(c.want, c.got); diff != "" {
				t.Errorf("%s.%s: -want +got:\n%s", component, c.what, diff)
			}
		}
		for _, argument := range []string{"--log-level=warn", "--log-format=text"} {
			if !slices.Contains(container.Args, argument) {
				t.Errorf("%s has no argument %s: %q", component, argument, container.Args)
			}
		}
		mounted := slices.ContainsFunc(container.VolumeMounts, func(m corev1.VolumeMount) bool {
			return m.Name == "ca" && m.MountPath == "/etc/ca"
		})
		if !mounted || !slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == "ca" && v.ConfigMap.Name == "ca" }) {
			t.Errorf("%s does not mount the volume: %+v", component, container.VolumeMounts)
		}
	}
}

// The defaults of the same values.
func TestWorkloadsDefaults(t *testing.T) {
	for component, d := range deployments(t, render(t, "-f", minimal)) {
		pod := d.Spec.Template.Spec
		profile := &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
		want := &corev1.PodSecurityContext{RunAsNonRoot: new(true), SeccompProfile: profile}
		if diff := cmp.Diff(want, pod.SecurityContext); diff != "" {
			t.Errorf("%s: -want +got:\n%s", component, diff)
		}
		if *d.Spec.RevisionHistoryLimit != 3 || pod.DNSPolicy != "" || pod.DNSConfig != nil || len(pod.Volumes) != 1 {
			t.Errorf("%s: %+v", component, d.Spec)
		}
	}
}

func TestPodDisruptionBudgets(t *testing.T) {
	const ofSync = "webhook: {podDisruptionBudget: {enabled: false}}\nsync: {replicas: 2, podDisruptionBudget: {enabled: true}}"
	for _, c := range []struct{ values, want string }{
		{"{}", "ampbridge-webhook"},
		{ofSync, "ampbridge-sync"},
		{"sync: {mode: cronJob, podDisruptionBudget: {enabled: true}}", "ampbridge-webhook"},
		{"policy: {trust: {manage: none}}\nsync: {enabled: false, podDisruptionBudget: {enabled: true}}", "ampbridge-webhook"},
	} {
		all := renderValues(t, c.values)
		for _, name := range []string{"ampbridge-webhook", "ampbridge-sync"} {
			object := all.find("PodDisruptionBudget", name)
			if (object != nil) != (name == c.want) {
				t.Errorf("%s: %s has a budget: %t", c.values, name, object != nil)
			}
			if object == nil {
				continue
			}
			var budget policyv1.PodDisruptionBudget
			into(t, object, &budget)
			var workload appsv1.Deployment
			into(t, all.get(t, "Deployment", name), &workload)
			if budget.Spec.MaxUnavailable.IntValue() != 1 || !reflect.DeepEqual(budget.Spec.Selector, workload.Spec.Selector) {
				t.Errorf("%s: %+v", name, budget.Spec)
			}
		}
	}
}

func TestClientCA(t *testing.T) {
	values := fmt.Sprintf("webhook: {clientCA: {caBundle: %q, commonNames: [kube-apiserver, 'a,b']}}", caBundle)
	all := renderValues(t, values)
	var bundle corev1.ConfigMap
	into(t, all.get(t, "ConfigMap", "ampbridge-webhook-client-ca"), &bundle)
	if strings.TrimSpace(bundle.Data["ca.crt"]) != strings.TrimSpace(caBundle) {
		t.Errorf("%q", bundle.Data)
	}
	pod := deployments(t, all)["webhook"].Spec.Template.Spec
	mount := slices.IndexFunc(pod.Containers[0].VolumeMounts, func(m corev1.VolumeMount) bool { return m.Name == "client-ca" })
	volume := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.ConfigMap != nil && v.ConfigMap.Name == bundle.Name })
	if mount < 0 || volume < 0 || pod.Volumes[volume].Name != "client-ca" {
		t.Fatalf("the bundle is not mounted: %+v", pod)
	}
	path := pod.Containers[0].VolumeMounts[mount].MountPath + "/ca.crt"
	for _, argument := range []string{"--client-ca=" + path, "--client-name=kube-apiserver"} {
		if !slices.Contains(pod.Containers[0].Args, argument) {
			t.Errorf("no argument %s: %q", argument, pod.Containers[0].Args)
		}
	}
	for _, object := range render(t, "-f", minimal) {
		text, err := yaml.Marshal(object.Object)
		testkit.Must(t, err)
		if strings.Contains(string(text), "client-ca") {
			t.Errorf("by default %s %s speaks of a CA of clients", object.GetKind(), object.GetName())
		}
	}
}

func TestWebhookFrom(t *testing.T) {
	for _, c := range []struct {
		values string
		want   []networkingv1.NetworkPolicyPeer
	}{
		{"networkPolicy: {enabled: true}", nil},
		{"networkPolicy: {enabled: true, webhookFrom: [{ipBlock: {cidr: 10.0.0.0/28}}]}",
			[]networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0.0/28"}}}},
	} {
		var n networkingv1.NetworkPolicy
		into(t, renderValues(t, c.values).get(t, "NetworkPolicy", "ampbridge-webhook"), &n)
		if rule := n.Spec.Ingress[0]; rule.Ports[0].Port.StrVal != "webhook" || !reflect.DeepEqual(rule.From, c.want) {
			t.Errorf("%s: %+v", c.values, n.Spec.Ingress)
		}
	}
}

// The user's own ConfigMap is in the place of the chart's.
func TestExistingPolicy(t *testing.T) {
	args := []string{"--set", "policyConfigMap.existing=own", "--set", "sync.region=eu-west-1"}
	all := render(t, args...)
	if all.find("ConfigMap", "ampbridge-policy") != nil || all.find("ConfigMap", "own") != nil {
		t.Error("the chart makes a policy")
	}
	for _, object := range all {
		if pod := podOf(t, object); len(pod.Containers) > 0 && pod.Volumes[0].ConfigMap.Name != "own" {
			t.Errorf("%s mounts %+v", object.GetName(), pod.Volumes[0])
		}
	}
	expression, _, err := unstructured.NestedSlice(all.get(t, "ValidatingWebhookConfiguration", "ampbridge").Object, "webhooks")
	testkit.Must(t, err)
	if text := fmt.Sprint(expression); !strings.Contains(text, "object.metadata.name == 'own'") {
		t.Errorf("the policy's registration is not about it: %s", text)
	}
	notes := mustRunHelm(t, helm4, slices.Concat(onChart("install", "--dry-run=client"), args,
		[]string{"--set", "policy=null"})...)
	names(t, notes, "The policy is in ConfigMap own")
	// With the breaker off, it takes evictions for sync to have the right.
	for repair, want := range map[string]bool{"none": false, "evict": true} {
		all := render(t, slices.Concat(args, []string{"--set", "sync.auditor.breaker=false,policyConfigMap.auditRepair=" + repair})...)
		text, err := yaml.Marshal(all.get(t, "ClusterRole", "ampbridge-sync").Object)
		testkit.Must(t, err)
		if got := strings.Contains(string(text), "pods/eviction"); got != want {
			t.Errorf("auditRepair %s: sync may evict: %t", repair, got)
		}
	}
}

// Whatever the names are, every object has the label by which commands find the chart.
func TestFoundByItsLabel(t *testing.T) {
	for name, args := range forms {
		for _, object := range render(t, args...) {
			if strings.HasSuffix(object.GetName(), "more") {
				continue
			}
			if object.GetLabels()["ampbridge.io/chart"] != "ampbridge" {
				t.Errorf("%s: %s %s has labels %v", name, object.GetKind(), object.GetName(), object.GetLabels())
			}
			selector, _, err := unstructured.NestedMap(object.Object, "spec", "selector", "matchLabels")
			testkit.Must(t, err)
			if _, selects := selector["ampbridge.io/chart"]; selects {
				t.Errorf("%s: %s %s selects by a label that older releases lack", name, object.GetKind(), object.GetName())
			}
		}
	}
}

// The package shows what it is, and which image it runs.
func TestChartYAML(t *testing.T) {
	var chart struct {
		AppVersion, Icon, Home string
		Maintainers            []map[string]string
		Annotations            map[string]string
	}
	testkit.Must(t, yaml.Unmarshal([]byte(chartFile(t, "Chart.yaml")), &chart))
	repository := strings.TrimPrefix(chart.Home, "https://github.com/")
	icon, found := strings.CutPrefix(chart.Icon, "https://raw.githubusercontent.com/"+repository+"/main/")
	if !found {
		t.Errorf("icon %q", chart.Icon)
	}
	testkit.ReadFile(t, filepath.Join("../..", icon)) // it exists
	if len(chart.Maintainers) == 0 || chart.Maintainers[0]["name"] == "" {
		t.Errorf("maintainers %v", chart.Maintainers)
	}
	var images []struct {
		Name, Image string
		Platforms   []string
	}
	testkit.Must(t, yaml.UnmarshalStrict([]byte(chart.Annotations["artifacthub.io/images"]), &images))
	rendered := podOf(t, render(t, "-f", minimal).get(t, "Deployment", "ampbridge-webhook")).Containers[0].Image
	if len(images) != 1 || images[0].Image != rendered || !slices.Equal(images[0].Platforms, []string{"linux/amd64", "linux/arm64"}) {
		t.Errorf("artifacthub.io/images is %+v, and the chart runs %s", images, rendered)
	}
}

// `make manifests` is what Helm makes, without the hook.
func TestMakeManifests(t *testing.T) {
	path, err := filepath.Abs(minimal)
	testkit.Must(t, err)
	made := testkit.Exec(t, "make", "-s", "-C", "../..", "manifests", "VALUES="+path, "NAMESPACE=elsewhere")
	want := parse(t, mustHelm(t, "template", "ampbridge", chartDir, "--namespace", "elsewhere", "-f", minimal))
	want = slices.DeleteFunc(want, func(o *unstructured.Unstructured) bool { return o.GetAnnotations()["helm.sh/hook"] != "" })
	if diff := cmp.Diff(named(want), named(parse(t, made))); diff != "" {
		t.Errorf("-Helm +make manifests:\n%s", diff)
	}
	if _, stderr, err := execute(t, nil, "make", "-s", "-C", "../..", "manifests"); err == nil ||
		!strings.Contains(stderr, "make manifests VALUES=values.yaml") {
		t.Errorf("without values: %v\n%s", err, stderr)
	}
}

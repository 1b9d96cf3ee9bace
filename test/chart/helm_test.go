package chart

import (
	"fmt"
	"math/bits"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// Helm 3 and Helm 4 make the same objects, in every form.
func TestHelm4RendersTheSame(t *testing.T) {
	for name, args := range forms {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(named(renderBy(t, helm3, args...)), named(renderBy(t, helm4, args...))); diff != "" {
				t.Errorf("-Helm 3 +Helm 4:\n%s", diff)
			}
		})
	}
}

func named(all objects) map[string]*unstructured.Unstructured {
	byName := map[string]*unstructured.Unstructured{}
	for _, object := range all {
		byName[object.GetKind()+" "+object.GetName()] = object
	}
	return byName
}

// Nothing is rendered twice: no key of a mapping, which [parse] refuses, no object,
// and no item of a list whose items have a name.
func TestNothingTwice(t *testing.T) {
	for name, args := range forms {
		t.Run(name, func(t *testing.T) { nothingTwice(t, args) })
	}
}

func nothingTwice(t *testing.T, args []string) {
	t.Helper()
	all := render(t, args...)
	if len(named(all)) != len(all) {
		t.Errorf("%q: %d objects have %d names", args, len(all), len(named(all)))
	}
	for _, object := range all {
		for _, complaint := range append(twice(podOf(t, object)), namedTwice(object.Object, "")...) {
			t.Errorf("%q: %s %s: %s", args, object.GetKind(), object.GetName(), complaint)
		}
	}
}

// The same for combinations of what can be turned on: every pair of two switches is in
// one of them, set and not set.
func TestNothingTwiceInAnyCombination(t *testing.T) {
	switches := [][]string{
		{"-f", filepath.Join("testdata", "own-keys-values.yaml")},
		{"--set", "certificates.mode=certManager"},
		{"--set", "certificates.mode=provided,certificates.provided.secretName=own,certificates.provided.caBundle=-----BEGIN CERTIFICATE-----"},
		{"--set", "sync.mode=cronJob"},
		{"--set", "sync.enabled=false,policy.trust.manage=none"},
		{"--set", "webhook.hostNetwork=true,webhook.metricsPort=0,webhook.healthPort=0"},
		{"--set", "rbac.create=false"},
		{"--set", "webhook.serviceAccount.name=hook,webhook.serviceAccount.create=false"},
		{"--set", "sync.serviceAccount.name=keeper,sync.serviceAccount.create=false"},
		{"--set", "nameOverride=collector"},
		{"--set", "namespaceOverride=other-system"},
		// Without these policies nothing may repair.
		{"--set", "admissionPolicies.enabled=false,sync.auditor.enabled=false"},
		{"--set", "networkPolicy.enabled=false"},
		{"--set-json", "policy={}", "--set", "policyConfigMap.existing=own"},
		{"--set", "webhook.clientCA.caBundle=,webhook.clientCA.commonNames=null"},
		{"--set", "sync.auditor.enabled=false"},
	}
	// Of what excludes each other, the later is left out.
	excludes := map[int]int{2: 1, 13: 4}
	// The rows of a Hadamard matrix and their complements have every pair in all four forms.
	for row := range 2 * len(switches) {
		args := slices.Clone(forms["everything"])
		on := func(i int) bool { return (bits.OnesCount(uint(row%len(switches)&i))+row/len(switches))%2 == 1 }
		for i, s := range switches {
			if earlier, exclusive := excludes[i]; on(i) && (!exclusive || !on(earlier)) {
				args = append(args, s...)
			}
		}
		nothingTwice(t, args)
	}
}

// namedTwice finds items of a list that have the same name.
func namedTwice(value any, path string) (found []string) {
	switch v := value.(type) {
	case map[string]any:
		for key, field := range v {
			found = append(found, namedTwice(field, path+"."+key)...)
		}
	case []any:
		seen := map[any]bool{}
		for i, item := range v {
			if fields, isMap := item.(map[string]any); isMap && fields["name"] != nil {
				if seen[fields["name"]] {
					found = append(found, fmt.Sprintf("%s: %v", path, fields["name"]))
				}
				seen[fields["name"]] = true
			}
			found = append(found, namedTwice(item, fmt.Sprintf("%s[%d]", path, i))...)
		}
	}
	return found
}

// The check itself: what stands twice is found.
func TestTwiceIsFound(t *testing.T) {
	var content map[string]any
	if err := yaml.UnmarshalStrict([]byte("nodeSelector:\n  kubernetes.io/os: linux\n  kubernetes.io/os: linux\n"), &content); err == nil {
		t.Error("a key that stands twice is accepted")
	}
	got := twice(corev1.PodSpec{
		Volumes:          []corev1.Volume{{Name: "a"}, {Name: "a"}},
		ImagePullSecrets: []corev1.LocalObjectReference{{Name: "a"}, {Name: "b"}},
		Containers: []corev1.Container{{
			Env:          []corev1.EnvVar{{Name: "A"}, {Name: "A"}},
			Ports:        []corev1.ContainerPort{{ContainerPort: 1}, {ContainerPort: 1}},
			VolumeMounts: []corev1.VolumeMount{{MountPath: "/a"}, {MountPath: "/a"}},
			Args:         []string{"--a=1", "--a=2"},
		}},
	})
	if want := []string{"volume a", "variable A", "port 1", "mount /a", "argument --a"}; !slices.Equal(got, want) {
		t.Errorf("found %q, want %q", got, want)
	}
	list := []any{map[string]any{"name": "a"}, map[string]any{"name": "b"}, map[string]any{"name": "a"}}
	if got := namedTwice(map[string]any{"spec": map[string]any{"ports": list}}, ""); !slices.Equal(got, []string{".spec.ports: a"}) {
		t.Errorf("found %q", got)
	}
}

func twice(pod corev1.PodSpec) (found []string) {
	seen := map[string]bool{}
	add := func(format string, args ...any) {
		text := fmt.Sprintf(format, args...)
		if seen[text] {
			found = append(found, text)
		}
		seen[text] = true
	}
	for _, v := range pod.Volumes {
		add("volume %s", v.Name)
	}
	for _, s := range pod.ImagePullSecrets {
		add("Secret %s", s.Name)
	}
	for _, c := range pod.Containers {
		for _, e := range c.Env {
			add("variable %s", e.Name)
		}
		for _, p := range c.Ports {
			add("port %d", p.ContainerPort)
		}
		for _, m := range c.VolumeMounts {
			add("mount %s", m.MountPath)
		}
		for _, a := range c.Args {
			name, _, _ := strings.Cut(a, "=")
			add("argument %s", name)
		}
	}
	return found
}

// What the user sets takes the place of what the chart sets.
func TestTheUsersKeyCounts(t *testing.T) {
	all := render(t, append(slices.Clone(forms["the chart's own keys"]), "--set", `webhook.nodeSelector.kubernetes\.io/os=other`)...)
	webhook := podOf(t, all.get(t, "Deployment", "ampbridge-webhook"))
	if got := webhook.NodeSelector["kubernetes.io/os"]; got != "other" {
		t.Errorf("the node selector is %q", got)
	}
	for _, e := range podOf(t, all.get(t, "Deployment", "ampbridge-sync")).Containers[0].Env {
		if e.Name == "AWS_REGION" && e.Value != "eu-west-1" { // sync.region says eu-central-1
			t.Errorf("AWS_REGION is %q", e.Value)
		}
	}
	if got := all.get(t, "ServiceMonitor", "ampbridge").GetLabels()["app.kubernetes.io/version"]; got != "2" {
		t.Errorf("the ServiceMonitor's version is %q", got)
	}
	if got := all.get(t, "ServiceAccount", "ampbridge-sync").GetLabels()["helm.sh/chart"]; got != "mine" {
		t.Errorf("the service account's chart is %q", got)
	}
}

// helm upgrade --reuse-values knows no value that is new in this chart.
func TestValuesOfAnOlderChart(t *testing.T) {
	missing := []string{
		"enabled",
		"webhook.port",
		"webhook.hostNetwork",
		"webhook.metricsPort",
		"webhook.healthPort",
		"webhook.registration",
		"admissionPolicies",
		"global",
		"namespaceOverride",
		"commonAnnotations",
		"extraObjects",
		"rbac",
		"policyConfigMap",
		"webhook.clientCA",
		"networkPolicy.webhookFrom",
	}
	for _, value := range []string{"logFormat", "extraVolumes", "extraVolumeMounts", "podSecurityContext", "securityContext", "readinessProbe",
		"livenessProbe", "revisionHistoryLimit", "strategy", "dnsPolicy", "dnsConfig", "serviceAccount.create", "serviceAccount.name"} {
		missing = append(missing, "webhook."+value, "sync."+value)
	}
	missing = append(missing, "sync.logLevel", "sync.podDisruptionBudget")
	missing = slices.DeleteFunc(missing, func(path string) bool { return strings.HasPrefix(path, "sync.extraVolume") })
	args := []string{"-f", minimal, "--set", strings.Join(missing, "=null,") + "=null"}
	for _, program := range []string{helm3, helm4} {
		if diff := cmp.Diff(named(render(t, "-f", minimal)), named(renderBy(t, program, args...))); diff != "" {
			t.Errorf("%s: -with all values +without the new ones:\n%s", program, diff)
		}
	}
}

// A parent chart turns ampbridge on and off.
func TestSubchart(t *testing.T) {
	parent := t.TempDir()
	testkit.WriteFile(t, filepath.Join(parent, "Chart.yaml"), `apiVersion: v2
name: platform
version: 1.0.0
dependencies:
- {name: ampbridge, version: 0.x, condition: ampbridge.enabled}
`)
	testkit.Must(t, os.CopyFS(filepath.Join(parent, "charts", "ampbridge"), os.DirFS(chartDir)))
	values, err := yaml.Marshal(map[string]any{"global": map[string]any{"domain": "example.com"}, "ampbridge": readValues(t, minimal)})
	testkit.Must(t, err)
	for _, program := range []string{helm3, helm4} {
		for enabled, want := range map[string]bool{"": true, "true": true, "false": false} {
			args := []string{"template", "platform", parent, "--namespace", namespace, "-f", valuesFile(t, string(values))}
			if enabled != "" {
				args = append(args, "--set", "ampbridge.enabled="+enabled)
			}
			all := parse(t, mustRunHelm(t, program, args...))
			if got := all.find("Deployment", "platform-ampbridge-webhook") != nil; got != want || !want && len(all) > 0 {
				t.Errorf("%s: enabled %q: %d objects, the webhook is there: %t", program, enabled, len(all), got)
			}
		}
		_, stderr, err := runHelm(
			t,
			program,
			"template",
			"platform",
			parent,
			"-f",
			valuesFile(t, string(values)),
			"--set",
			"ampbridge.enabled=perhaps",
		)
		if err == nil {
			t.Errorf("%s: enabled is text, and accepted", program)
		}
		names(t, stderr, "/enabled", "boolean")
	}
}

// On the host's network pods share ports: no two may want one of a node's, and an
// update must not wait for a place for a pod more.
func TestHostNetwork(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		// want are the ports for webhook, metrics and health.
		want [3]int32
		host bool
	}{
		{"default", nil, [3]int32{9443, 8080, 8081}, false},
		{"another port", []string{"--set", "webhook.port=10250"}, [3]int32{10250, 8080, 8081}, false},
		{"host", []string{"--set", "webhook.hostNetwork=true"}, [3]int32{9443, 9444, 9445}, true},
		{"all ports", []string{"--set", "webhook.hostNetwork=true,webhook.port=10260,webhook.metricsPort=9100,webhook.healthPort=9101"},
			[3]int32{10260, 9100, 9101}, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			all := render(t, append([]string{"-f", minimal, "--set", "networkPolicy.enabled=true"}, test.args...)...)
			deployment := all.get(t, "Deployment", "ampbridge-webhook")
			pod := podOf(t, deployment)
			container := pod.Containers[0]
			for i, name := range []string{"webhook", "metrics", "health"} {
				flag := map[string]string{"webhook": "--addr=:", "metrics": "--metrics-addr=:", "health": "--health-addr=:"}[name]
				want := corev1.ContainerPort{Name: name, ContainerPort: test.want[i]}
				if test.host {
					want.HostPort = test.want[i]
				}
				if container.Ports[i] != want {
					t.Errorf("port %+v, want %+v", container.Ports[i], want)
				}
				if argument := flag + fmt.Sprint(test.want[i]); !slices.Contains(container.Args, argument) {
					t.Errorf("arguments %q lack %s", container.Args, argument)
				}
			}
			surge, _, err := unstructured.NestedFloat64(deployment.Object, "spec", "strategy", "rollingUpdate", "maxSurge")
			testkit.Must(t, err)
			unavailable, _, err := unstructured.NestedFloat64(deployment.Object, "spec", "strategy", "rollingUpdate", "maxUnavailable")
			testkit.Must(t, err)
			want := map[bool][2]float64{false: {1, 0}, true: {0, 1}}[test.host]
			if got := [2]float64{surge, unavailable}; got != want {
				t.Errorf("maxSurge and maxUnavailable are %v, want %v", got, want)
			}
			if pod.HostNetwork != test.host || (pod.DNSPolicy == corev1.DNSClusterFirstWithHostNet) != test.host {
				t.Errorf("hostNetwork %t, dnsPolicy %q", pod.HostNetwork, pod.DNSPolicy)
			}
			// A NetworkPolicy would promise what it cannot keep.
			if got := all.find("NetworkPolicy", "ampbridge-webhook") == nil; got != test.host {
				t.Errorf("the webhook has no NetworkPolicy: %t", got)
			}
			all.get(t, "NetworkPolicy", "ampbridge-sync")
		})
	}
}

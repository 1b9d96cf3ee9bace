package chart

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// The programs know every argument that the chart gives them, in each mode.
func TestArguments(t *testing.T) {
	program := binary(t)
	for name, args := range map[string][]string{
		"minimal":      {"-f", minimal},
		"everything":   {"-f", everything, "--set", "sync.auditor.breaker=false"},
		"a CronJob":    {"-f", minimal, "--set", "sync.mode=cronJob"},
		"cert-manager": {"-f", minimal, "--set", "certificates.mode=certManager"},
		"host network": {"-f", minimal, "--set", "webhook.hostNetwork=true"},
	} {
		t.Run(name, func(t *testing.T) {
			ran := 0
			for _, object := range render(t, args...) {
				for _, container := range podOf(t, object).Containers {
					// --help comes last, so whatever stands before it is read.
					out, stderr, err := execute(t, nil, program, append(container.Args, "--help")...)
					if err != nil || !strings.Contains(out, "\nUsage:\n  ampbridge "+container.Args[0]+" ") {
						t.Errorf("ampbridge %s: %v\n%s%s", strings.Join(container.Args, " "), err, out, stderr)
					}
					ran++
				}
			}
			if ran != 3 {
				t.Errorf("%d containers, want the webhook's, sync's and the test's", ran)
			}
		})
	}
}

// render is what the chart makes of the values, hooks included.
func render(t *testing.T, args ...string) objects {
	t.Helper()
	return renderBy(t, helm3, args...)
}

func renderBy(t *testing.T, program string, args ...string) objects {
	t.Helper()
	return parse(t, mustRunHelm(t, program, onChart("template", args...)...))
}

// objects are what a chart makes, in its order.
type objects []*unstructured.Unstructured

func parse(t *testing.T, text string) objects {
	t.Helper()
	var all objects
	for document := range strings.SplitSeq(text, "\n---\n") {
		var content map[string]any
		testkit.Must(t, yaml.UnmarshalStrict([]byte(strings.TrimPrefix(document, "---\n")), &content))
		if len(content) > 0 {
			all = append(all, &unstructured.Unstructured{Object: content})
		}
	}
	return all
}

func (o objects) find(kind, name string) *unstructured.Unstructured {
	for _, object := range o {
		if object.GetKind() == kind && object.GetName() == name {
			return object
		}
	}
	return nil
}

func (o objects) get(t *testing.T, kind, name string) *unstructured.Unstructured {
	t.Helper()
	object := o.find(kind, name)
	if object == nil {
		t.Fatalf("the chart makes no %s %s", kind, name)
	}
	return object
}

// withoutLeasesAndHooks is what GitOps tools take for the manifests.
func (o objects) withoutLeasesAndHooks() objects {
	return slices.DeleteFunc(o, func(object *unstructured.Unstructured) bool {
		return object.GetKind() == "Lease" || object.GetAnnotations()["helm.sh/hook"] != ""
	})
}

// into decodes strictly: a field that the type does not know is an error.
func into(t *testing.T, object *unstructured.Unstructured, v any) {
	t.Helper()
	text, err := yaml.Marshal(object.Object)
	testkit.Must(t, err)
	testkit.Must(t, yaml.UnmarshalStrict(text, v))
}

// podOf is the pod that an object makes; others make an empty one.
func podOf(t *testing.T, object interface {
	GetKind() string
	MarshalJSON() ([]byte, error)
}) corev1.PodSpec {
	t.Helper()
	text, err := object.MarshalJSON()
	testkit.Must(t, err)
	switch object.GetKind() {
	case "Deployment":
		var d appsv1.Deployment
		testkit.DecodeJSON(t, text, &d)
		return d.Spec.Template.Spec
	case "CronJob":
		var c batchv1.CronJob
		testkit.DecodeJSON(t, text, &c)
		return c.Spec.JobTemplate.Spec.Template.Spec
	case "Pod":
		var p corev1.Pod
		testkit.DecodeJSON(t, text, &p)
		return p.Spec
	}
	return corev1.PodSpec{}
}

// The webhook has no AWS identity; sync's token is its own, for AWS alone.
func TestIdentities(t *testing.T) {
	for _, mode := range []string{"deployment", "cronJob"} {
		t.Run(mode, func(t *testing.T) {
			all := render(
				t,
				"-f",
				minimal,
				"--set",
				"sync.roleArn=arn:aws:iam::111122223333:role/ampbridge-sync",
				"--set",
				"sync.mode="+mode,
			)
			kind := map[string]string{"deployment": "Deployment", "cronJob": "CronJob"}[mode]
			webhook, sync := podOf(t, all.get(t, "Deployment", "ampbridge-webhook")), podOf(t, all.get(t, kind, "ampbridge-sync"))
			if text, err := json.Marshal(webhook); err != nil || strings.Contains(strings.ToLower(string(text)), "aws") {
				t.Errorf("the webhook's pod speaks of AWS: %s", text)
			}
			if webhook.ServiceAccountName == sync.ServiceAccountName {
				t.Errorf("both have the service account %s", sync.ServiceAccountName)
			}
			environment := map[string]string{}
			for _, e := range sync.Containers[0].Env {
				environment[e.Name] = e.Value
			}
			want := map[string]string{
				"AWS_REGION": "eu-west-1", "AWS_ROLE_ARN": "arn:aws:iam::111122223333:role/ampbridge-sync",
				"AWS_WEB_IDENTITY_TOKEN_FILE": "/var/run/secrets/ampbridge.io/sync/token",
			}
			if diff := cmp.Diff(want, environment); diff != "" {
				t.Errorf("sync's environment, -want +got:\n%s", diff)
			}
			i := slices.IndexFunc(sync.Volumes, func(v corev1.Volume) bool { return v.Projected != nil })
			if i < 0 || sync.Volumes[i].Projected.Sources[0].ServiceAccountToken.Audience != "sts.amazonaws.com" {
				t.Errorf("sync's volumes have no token for AWS: %+v", sync.Volumes)
			}
		})
	}
	// Without a role, sync's identity comes from elsewhere.
	sync := podOf(t, render(t, "-f", minimal).get(t, "Deployment", "ampbridge-sync"))
	if slices.ContainsFunc(sync.Volumes, func(v corev1.Volume) bool { return v.Projected != nil }) {
		t.Errorf("a token for nothing: %+v", sync.Volumes)
	}
}

// A digest wins over a tag, and the sidecar is what the chart runs.
func TestImage(t *testing.T) {
	const digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for want, args := range map[string][]string{
		"ghcr.io/ampbridge/ampbridge:v0.1.0":    nil,
		"registry.example.com:5000/ampbridge:x": {"--set", "image.repository=registry.example.com:5000/ampbridge", "--set", "image.tag=x"},
		"ghcr.io/ampbridge/ampbridge@" + digest: {"--set", "image.tag=x", "--set", "image.digest=" + digest},
	} {
		all := render(t, append([]string{"-f", minimal}, args...)...)
		for _, name := range []string{"ampbridge-webhook", "ampbridge-sync"} {
			c := podOf(t, all.get(t, "Deployment", name)).Containers[0]
			if c.Image != want || !slices.Contains(c.Args, "--image="+want) {
				t.Errorf("%s runs %s with %v, want %s", name, c.Image, c.Args, want)
			}
		}
	}
}

// Names are what other rooms rely on, whatever the release is called.
func TestNames(t *testing.T) {
	for releaseName, want := range map[string]string{"ampbridge": "ampbridge", "my-ampbridge": "my-ampbridge",
		"metrics": "metrics-ampbridge"} {
		all := parse(t, mustHelm(t, "template", releaseName, chartDir, "--namespace", namespace, "-f", minimal))
		for kind, suffix := range map[string]string{"Deployment": "-webhook", "ClusterRole": "-sync", "Service": "-webhook",
			"Secret": "-webhook-tls", "ConfigMap": "-policy"} {
			all.get(t, kind, want+suffix)
		}
		all.get(t, "MutatingWebhookConfiguration", "ampbridge")
	}
}

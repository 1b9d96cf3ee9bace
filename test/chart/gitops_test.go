package chart

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/jsonmergepatch"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const (
	lastApplied = "kubectl.kubernetes.io/last-applied-configuration"
	trackingID  = "argocd.argoproj.io/tracking-id"
)

// What GitOps tools do with the chart, while the webhook and sync run: two syncs, and
// after each a comparison of live and desired, as the tool makes it. It finds nothing,
// and the second sync writes nothing.
func TestGitOps(t *testing.T) {
	f := newFixture(t, cluster.Options{})
	f.defineCustomResources(t)
	before := f.settled(t)
	values := []string{"-f", minimal, "-f", valuesFile(t, `
serviceMonitor: {enabled: true}
prometheusRule: {enabled: true}
grafanaDashboard: {enabled: true}
networkPolicy: {enabled: true}
webhook: {resources: {requests: {cpu: 0.1, memory: 65536Ki}}}
sync: {podDisruptionBudget: {enabled: true}, roleArn: "arn:aws:iam::111122223333:role/ampbridge-sync"}
commonAnnotations: {example.com/owner: platform}
`)}
	for _, tool := range []*gitopsTool{
		{fixture: f, name: "Argo CD, client-side apply", apply: f.applyClientSide, compare: f.threeWay},
		{
			fixture: f, name: "Argo CD, server-side apply",
			apply: f.applyServerSide("argocd-controller"), compare: f.serverSide("argocd-controller"),
		},
		{fixture: f, name: "Flux", helm: true, compare: f.serverSide("helm-controller")},
	} {
		t.Run(tool.name, func(t *testing.T) {
			tool.test(t, values)
			f.eventually(t, before)
		})
	}
}

type gitopsTool struct {
	*fixture
	name string
	// helm: Helm applies, and not apply.
	helm    bool
	apply   func(t *testing.T, object *unstructured.Unstructured)
	compare func(t *testing.T, object *unstructured.Unstructured) string
}

// desired is what the tool takes for the manifests: no hooks, and no Leases.
func (g *gitopsTool) desired(t *testing.T, values []string) objects {
	t.Helper()
	all := render(t, values...).withoutLeasesAndHooks()
	if g.helm {
		return all
	}
	for _, object := range all {
		annotations := object.GetAnnotations()
		group := object.GroupVersionKind().Group
		annotations[trackingID] = fmt.Sprintf("ampbridge:%s/%s:%s/%s", group, object.GetKind(), namespace, object.GetName())
		object.SetAnnotations(annotations)
	}
	return all
}

func (g *gitopsTool) sync(t *testing.T, all objects, verb string, values []string) {
	t.Helper()
	if g.helm {
		g.fixture.helm(t, append([]string{verb, release, chartDir, "--namespace", namespace}, values...)...)
		return
	}
	for _, object := range all {
		g.apply(t, object)
	}
}

func (g *gitopsTool) test(t *testing.T, values []string) {
	all := g.desired(t, values)
	g.sync(t, all, "install", values)
	policy := valuesFile(t, renderedPolicy(t, values...))
	var processes []*process
	for _, component := range []string{"webhook", "sync"} {
		name := "ampbridge-" + component
		processes = append(processes, g.startDeployment(t, name, all, policy))
	}
	webhook, sync := processes[0], processes[1]
	webhook.ready(t)
	webhook.shows(t, "\nampbridge_certificate_trusted 1\n")
	sync.ready(t)
	sync.shows(t, "\nampbridge_sync_leader 1\n")
	g.written(t)
	g.inSync(t, all, "after the first sync")

	versions := g.versions(t, all)
	g.sync(t, all, "upgrade", values)
	g.inSync(t, all, "after the second sync")
	if diff := cmp.Diff(versions, g.versions(t, all)); diff != "" {
		t.Errorf("the second sync wrote:\n%s", diff)
	}
	g.written(t)
	for _, p := range processes {
		if text := p.log.String(); strings.Contains(text, "forbidden") || strings.Contains(text, `"level":"ERROR"`) {
			t.Error(text)
		}
	}

	// The comparison finds what a person changes.
	for kind, patch := range map[string]string{
		"MutatingWebhookConfiguration ampbridge": `[{"op":"replace","path":"/webhooks/0/timeoutSeconds","value":29}]`,
		"Deployment ampbridge-webhook":           `[{"op":"replace","path":"/spec/replicas","value":7}]`,
		"ConfigMap ampbridge-policy":             `[{"op":"replace","path":"/data/policy.yaml","value":"paused: true"}]`,
		"PrometheusRule ampbridge":               `[{"op":"remove","path":"/spec/groups/0/rules/0"}]`,
	} {
		kind, name, _ := strings.Cut(kind, " ")
		object := all.get(t, kind, name)
		person := metav1.PatchOptions{FieldManager: "kubectl-edit"}
		_, err := g.client(t, object).Patch(t.Context(), name, types.JSONPatchType, []byte(patch), person)
		testkit.Must(t, err)
		if g.compare(t, object) == "" {
			t.Errorf("the comparison does not see a change of %s %s", kind, name)
		}
	}
	for _, p := range processes {
		p.stop()
	}
	if g.helm {
		g.fixture.helm(t, "uninstall", release, "--namespace", namespace)
		return
	}
	for _, object := range slices.Backward(all) {
		g.delete(t, object)
	}
}

// written: the processes have written what they write, so that there is something that
// could differ.
func (g *gitopsTool) written(t *testing.T) {
	t.Helper()
	testkit.EventuallyEmpty(t, func() string {
		registrations := g.Client().AdmissionregistrationV1().MutatingWebhookConfigurations()
		registered, err := registrations.Get(t.Context(), "ampbridge", metav1.GetOptions{})
		testkit.Must(t, err)
		secret, err := g.Client().CoreV1().Secrets(namespace).Get(t.Context(), "ampbridge-webhook-tls", metav1.GetOptions{})
		testkit.Must(t, err)
		accepted, err := g.Client().CoreV1().ConfigMaps(namespace).Get(t.Context(), "ampbridge-policy-accepted", metav1.GetOptions{})
		testkit.Must(t, err)
		if len(registered.Webhooks[0].ClientConfig.CABundle) == 0 || len(secret.Data) == 0 || len(accepted.Data) == 0 {
			return fmt.Sprintf("CA bundle of %d bytes, Secret with %d keys, accepted policy with %d",
				len(registered.Webhooks[0].ClientConfig.CABundle), len(secret.Data), len(accepted.Data))
		}
		return ""
	})
}

// inSync compares all objects. Nothing is ignored.
func (g *gitopsTool) inSync(t *testing.T, all objects, when string) {
	t.Helper()
	for _, object := range all {
		if difference := g.compare(t, object); difference != "" {
			t.Errorf("%s %s differs %s:\n%s", object.GetKind(), object.GetName(), when, difference)
		}
	}
}

func (g *gitopsTool) versions(t *testing.T, all objects) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, object := range all {
		live := g.live(t, object)
		if slices.Contains([]string{"Deployment", "PodDisruptionBudget", "ResourceQuota", "ValidatingAdmissionPolicy"}, live.GetKind()) {
			// The controllers write their status.
			found[object.GetKind()+" "+object.GetName()] = fmt.Sprint(live.GetGeneration())
			continue
		}
		if slices.Contains([]string{"ampbridge-sync", "ampbridge-breaker", "ampbridge-webhook-tls"}, live.GetName()) &&
			(live.GetKind() == "ConfigMap" || live.GetKind() == "Secret") {
			continue // the processes write these at any time
		}
		found[object.GetKind()+" "+object.GetName()] = live.GetResourceVersion()
	}
	return found
}

func (f *fixture) live(t *testing.T, object *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	live, err := f.client(t, object).Get(t.Context(), object.GetName(), metav1.GetOptions{})
	testkit.Must(t, err)
	return live
}

// applyClientSide does what kubectl apply does: it creates the object with its own text
// in an annotation, or patches it by the difference of three.
func (f *fixture) applyClientSide(t *testing.T, object *unstructured.Unstructured) {
	t.Helper()
	text, err := object.MarshalJSON()
	testkit.Must(t, err)
	object = object.DeepCopy()
	annotations := object.GetAnnotations()
	annotations[lastApplied] = string(text)
	object.SetAnnotations(annotations)
	client := f.client(t, object)
	live, err := client.Get(t.Context(), object.GetName(), metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = client.Create(t.Context(), object, metav1.CreateOptions{FieldManager: "argocd-controller"})
		testkit.Must(t, err)
		return
	}
	testkit.Must(t, err)
	patch, kind := threeWayPatch(t, object, live)
	if string(patch) == "{}" {
		return
	}
	_, err = client.Patch(t.Context(), object.GetName(), kind, patch, metav1.PatchOptions{FieldManager: "argocd-controller"})
	testkit.Must(t, err)
}

// threeWayPatch is what changes live into desired, and leaves alone what was in neither
// desired nor the manifest that was last applied.
func threeWayPatch(t *testing.T, desired, live *unstructured.Unstructured) (patch []byte, kind types.PatchType) {
	t.Helper()
	original := []byte(live.GetAnnotations()[lastApplied])
	want, err := desired.MarshalJSON()
	testkit.Must(t, err)
	have, err := live.MarshalJSON()
	testkit.Must(t, err)
	typed, err := scheme.Scheme.New(desired.GroupVersionKind())
	if err != nil { // of an operator
		patch, err = jsonmergepatch.CreateThreeWayJSONMergePatch(original, want, have)
		testkit.Must(t, err)
		return patch, types.MergePatchType
	}
	meta, err := strategicpatch.NewPatchMetaFromStruct(typed)
	testkit.Must(t, err)
	patch, err = strategicpatch.CreateThreeWayMergePatch(original, want, have, meta, true)
	testkit.Must(t, err)
	return patch, types.StrategicMergePatchType
}

// threeWay compares as Argo CD does by default: live, and live after the patch of three.
func (f *fixture) threeWay(t *testing.T, object *unstructured.Unstructured) string {
	t.Helper()
	live := f.live(t, object)
	desired := object.DeepCopy()
	annotations := desired.GetAnnotations()
	annotations[lastApplied] = live.GetAnnotations()[lastApplied]
	desired.SetAnnotations(annotations)
	patch, kind := threeWayPatch(t, canonical(t, desired), live)
	dryRun := metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}}
	predicted, err := f.client(t, object).Patch(t.Context(), object.GetName(), kind, patch, dryRun)
	testkit.Must(t, err)
	return cmp.Diff(compared(t, predicted), compared(t, live))
}

// serverSide compares as Flux does, and Argo CD with ServerSideDiff: live, and what a
// server-side apply would make of it, which is a dry run.
func (f *fixture) serverSide(manager string) func(*testing.T, *unstructured.Unstructured) string {
	return func(t *testing.T, object *unstructured.Unstructured) string {
		t.Helper()
		predicted, err := f.client(t, object).Apply(t.Context(), object.GetName(), object,
			metav1.ApplyOptions{FieldManager: manager, Force: true, DryRun: []string{metav1.DryRunAll}})
		testkit.Must(t, err)
		return cmp.Diff(compared(t, predicted), compared(t, f.live(t, object)))
	}
}

func (f *fixture) applyServerSide(manager string) func(*testing.T, *unstructured.Unstructured) {
	return func(t *testing.T, object *unstructured.Unstructured) {
		t.Helper()
		_, err := f.client(t, object).Apply(t.Context(), object.GetName(), object, metav1.ApplyOptions{FieldManager: manager, Force: true})
		testkit.Must(t, err)
	}
}

// canonical has quantities and the like as the API server writes them.
func canonical(t *testing.T, object *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	typed, err := scheme.Scheme.New(object.GroupVersionKind())
	if err != nil {
		return object
	}
	testkit.Must(t, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, typed))
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
	testkit.Must(t, err)
	unstructured.RemoveNestedField(fields, "status")
	unstructured.RemoveNestedField(fields, "metadata", "creationTimestamp")
	unstructured.RemoveNestedField(fields, "spec", "template", "metadata", "creationTimestamp")
	return &unstructured.Unstructured{Object: fields}
}

// compared is an object without what the API server and controllers write for each.
func compared(t *testing.T, object *unstructured.Unstructured) map[string]any {
	t.Helper()
	object = canonical(t, object.DeepCopy())
	object.SetManagedFields(nil)
	object.SetResourceVersion("")
	object.SetGeneration(0)
	unstructured.RemoveNestedField(object.Object, "status")
	text, err := json.Marshal(object.Object)
	testkit.Must(t, err)
	var fields map[string]any
	testkit.DecodeJSON(t, text, &fields)
	return fields
}

// The page's snippets are values of this chart, and ignore the CA bundle of objects that it
// makes, and nothing more.
func TestGitOpsPage(t *testing.T) {
	text := testkit.ReadFile(t, "../../docs/guides/gitops.md")
	found := map[string]*unstructured.Unstructured{}
	for i, block := range strings.Split(text, "```") {
		if block, isYAML := strings.CutPrefix(block, "yaml\n"); isYAML && i%2 == 1 {
			for _, object := range parse(t, block) {
				found[object.GetKind()] = object
			}
		}
	}
	for kind, path := range map[string][]string{
		"Application": {"spec", "source", "helm", "valuesObject"},
		"HelmRelease": {"spec", "values"},
	} {
		values, there, err := unstructured.NestedMap(found[kind].Object, path...)
		if err != nil || !there {
			t.Fatalf("%s has no values: %v", kind, err)
		}
		text, err := yaml.Marshal(values)
		testkit.Must(t, err)
		all := render(t, "-f", valuesFile(t, string(text)))
		if kind != "Application" {
			continue
		}
		ignored, _, err := unstructured.NestedSlice(found[kind].Object, "spec", "ignoreDifferences")
		testkit.Must(t, err)
		for _, entry := range ignored {
			fields := entry.(map[string]any)
			all.get(t, fields["kind"].(string), fields["name"].(string))
			if fields["group"] != "admissionregistration.k8s.io" ||
				!cmp.Equal(fields["jqPathExpressions"], []any{".webhooks[]?.clientConfig.caBundle"}) {
				t.Errorf("the page ignores %v", fields)
			}
		}
		if len(ignored) != 2 {
			t.Errorf("the page ignores %v", ignored)
		}
	}
}

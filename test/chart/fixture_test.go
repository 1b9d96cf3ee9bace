package chart

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

// fixture is a cluster, and the Helm that the tests use on it.
type fixture struct {
	*cluster.Cluster
	// program is the Helm that installs and upgrades.
	program string
	// mapper is made once, because it asks for all that the API server serves.
	mapper meta.RESTMapper
}

// newFixture starts a cluster with ampbridge's namespace, and with a tenant's that is labelled for injection.
func newFixture(t *testing.T, options cluster.Options) *fixture {
	t.Helper()
	f := &fixture{Cluster: cluster.Start(t, options), program: helm4}
	testkit.Must(t, f.Namespace(t.Context(), namespace, nil))
	f.labelledNamespace(t)
	return f
}

// labelledNamespace creates a tenant's namespace with the label for injection.
func (f *fixture) labelledNamespace(t *testing.T) {
	t.Helper()
	testkit.Must(t, f.Namespace(t.Context(), "monitoring", map[string]string{policy.LabelInjection: string(policy.InjectionEnabled)}))
}

func (f *fixture) helm(t *testing.T, args ...string) string {
	t.Helper()
	return mustRunHelm(t, f.program, append(args, "--kubeconfig", f.Kubeconfig())...)
}

// install installs the chart.
func (f *fixture) install(t *testing.T, args ...string) {
	t.Helper()
	f.helm(t, onChart("install", args...)...)
}

// upgrade upgrades to the chart with these values.
func (f *fixture) upgrade(t *testing.T, args ...string) {
	t.Helper()
	f.helm(t, onChart("upgrade", args...)...)
}

// refusedUpgrade returns what Helm prints as it refuses an upgrade.
func (f *fixture) refusedUpgrade(t *testing.T, args ...string) string {
	t.Helper()
	_, stderr, err := runHelm(t, f.program, append(onChart("upgrade", args...), "--kubeconfig", f.Kubeconfig())...)
	if err == nil {
		t.Errorf("Helm does not refuse the upgrade with %q", args)
	}
	return stderr
}

// onChart returns the arguments of a command of Helm for the chart.
func onChart(command string, args ...string) []string {
	return append([]string{command, release, chartDir, "--namespace", namespace}, args...)
}

// defineCustomResources has the API server know the objects of the operators,
// whose controllers are not here.
func (f *fixture) defineCustomResources(t *testing.T) {
	t.Helper()
	crds := f.dynamic(t).Resource(
		schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"},
	)
	for _, name := range []string{"monitoring.coreos.com_servicemonitors", "monitoring.coreos.com_podmonitors",
		"monitoring.coreos.com_prometheusrules",
		"cert-manager.io_certificates", "cert-manager.io_issuers"} {
		crd := &unstructured.Unstructured{}
		text := testkit.ReadFile(t, filepath.Join(crdDirs(t)[strings.Split(name, "_")[0]], name+".yaml"))
		testkit.Must(t, yaml.Unmarshal([]byte(text), &crd.Object))
		crd, err := crds.Create(t.Context(), crd, metav1.CreateOptions{})
		testkit.Must(t, err)
		testkit.EventuallyEmpty(t, func() string {
			crd, err = crds.Get(t.Context(), crd.GetName(), metav1.GetOptions{})
			testkit.Must(t, err)
			// There are none at first, which is an error to it.
			conditions, _, _ := unstructured.NestedSlice(crd.Object, "status", "conditions")
			for _, condition := range conditions {
				if c := condition.(map[string]any); c["type"] == "Established" && c["status"] == "True" {
					return ""
				}
			}
			return fmt.Sprint(crd.GetName(), " is not established: ", conditions)
		})
	}
}

// everything in the cluster, of all kinds that can be listed: what it is, and
// which one. Events pass by themselves; Leases are renewed by who lives.
func (f *fixture) everything(t *testing.T) map[string]string {
	t.Helper()
	lists, err := discovery.ServerPreferredResources(f.Client().Discovery())
	testkit.Must(t, err)
	client := f.dynamic(t)
	all := map[string]string{}
	for _, list := range discovery.FilteredBy(discovery.SupportsAllVerbs{Verbs: []string{"list"}}, lists) {
		gv := groupVersion(t, list.GroupVersion)
		for _, kind := range list.APIResources {
			if kind.Kind == "Event" {
				continue
			}
			found, err := client.Resource(gv.WithResource(kind.Name)).List(t.Context(), metav1.ListOptions{})
			testkit.Must(t, err)
			for _, object := range found.Items {
				all[kind.Kind+"."+gv.Group+" "+object.GetNamespace()+"/"+object.GetName()] = content(&object, kind.Kind)
			}
		}
	}
	if len(all) < 100 {
		t.Fatalf("only %d objects: %v", len(all), slices.Sorted(maps.Keys(all)))
	}
	return all
}

// content is what makes the object the one that it is.
func content(object *unstructured.Unstructured, kind string) string {
	if kind == "Lease" {
		return ""
	}
	object = object.DeepCopy()
	object.SetManagedFields(nil)
	object.SetResourceVersion("")
	unstructured.RemoveNestedField(object.Object, "status")
	text, err := object.MarshalJSON()
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// as is a client with the token of a service account of the chart.
func (f *fixture) as(t *testing.T, account string) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(f.config(t, namespace, account))
	testkit.Must(t, err)
	return client
}

func (f *fixture) config(t *testing.T, namespace, account string) *rest.Config {
	t.Helper()
	token, err := f.Token(t.Context(), namespace, account, "", 3600)
	testkit.Must(t, err)
	config := f.Config()
	config.BearerToken = token
	return config
}

func groupVersion(t *testing.T, text string) schema.GroupVersion {
	t.Helper()
	gv, err := schema.ParseGroupVersion(text)
	testkit.Must(t, err)
	return gv
}

// apply does what kubectl apply --server-side does.
func (f *fixture) apply(t *testing.T, object *unstructured.Unstructured) {
	t.Helper()
	_, err := f.client(t, object).Apply(t.Context(), object.GetName(), object, metav1.ApplyOptions{FieldManager: "kubectl"})
	testkit.Must(t, err)
}

func (f *fixture) delete(t *testing.T, object *unstructured.Unstructured) {
	t.Helper()
	background := metav1.DeletePropagationBackground
	testkit.Must(t, f.client(t, object).Delete(t.Context(), object.GetName(), metav1.DeleteOptions{PropagationPolicy: &background}))
}

// dynamic is a client for all kinds, those that are deprecated too.
func (f *fixture) dynamic(t *testing.T) dynamic.Interface {
	t.Helper()
	config := f.Config()
	config.WarningHandler = rest.NoWarnings{}
	client, err := dynamic.NewForConfig(config)
	testkit.Must(t, err)
	return client
}

func (f *fixture) client(t *testing.T, object *unstructured.Unstructured) dynamic.ResourceInterface {
	t.Helper()
	gvk := object.GroupVersionKind()
	if f.mapper == nil {
		f.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(f.Client().Discovery()))
	}
	mapping, err := f.mapper.RESTMapping(gvk.GroupKind(), gvk.Version)
	testkit.Must(t, err)
	client := f.dynamic(t).Resource(mapping.Resource)
	if object.GetNamespace() == "" {
		return client
	}
	return client.Namespace(object.GetNamespace())
}

// registration is the webhook's MutatingWebhookConfiguration.
func (f *fixture) registration(t *testing.T) *admissionv1.MutatingWebhookConfiguration {
	t.Helper()
	client := f.Client().AdmissionregistrationV1().MutatingWebhookConfigurations()
	object, err := client.Get(t.Context(), registration.DefaultName, metav1.GetOptions{})
	testkit.Must(t, err)
	return object
}

func (f *fixture) webhook(t *testing.T) *appsv1.Deployment {
	t.Helper()
	deployment, err := f.Client().AppsV1().Deployments(namespace).Get(t.Context(), "ampbridge-webhook", metav1.GetOptions{})
	testkit.Must(t, err)
	return deployment
}

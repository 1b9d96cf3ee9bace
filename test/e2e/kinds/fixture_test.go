package kinds_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"github.com/go-logr/logr"

	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/kubelet"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

// fixture is an environment with the roles in place, the images of a node, and a client for objects of every
// kind.
type fixture struct {
	*env.Env
	client client.Client
}

// serviceAccounts are the accounts of the rows' pods. The chart has its own.
var serviceAccounts = []string{env.ServiceAccount, "prometheus-server"}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	log.SetLogger(logr.Discard()) // the client logs much otherwise
	ctx := t.Context()
	e := env.Start(t, env.Options{})
	for tool, tag := range map[string]string{"prometheus-3.1": sdkV1, "prometheus-2.42": "v2.42.0", "prometheus-2.22": old} {
		testkit.Must(t, e.AddPrometheus(ctx, tool, tag))
	}
	e.AddImage(kubelet.Image{Match: "busybox/prometheus", Binaries: map[string]string{
		"/bin/prometheus": tools.Path(t, "prometheus"), "/bin/sh": tools.Path(t, "gosh"),
	}, Entrypoint: []string{"/bin/prometheus"}, WorkingDir: "/prometheus", User: 65534})
	e.AddImage(kubelet.Image{
		Match: "jimmidyson/configmap-reload", Binaries: map[string]string{"/configmap-reload": tools.Build(t, "./reloader")},
		Entrypoint: []string{"/configmap-reload"}, User: 65534})
	idle := tools.Build(t, "./idle")
	for _, match := range []string{"brancz/kube-rbac-proxy", "x/config-map-reloader-sighup", "prom/alertmanager"} {
		e.AddImage(kubelet.Image{Match: match, Binaries: map[string]string{"/idle": idle}, Entrypoint: []string{"/idle"}, User: 65534})
	}
	testkit.Must(t, e.CreateServiceAccount(ctx, env.Namespace, "prometheus-server"))
	testkit.Must(t, e.SetPolicy(policyOf(e)))
	if out, err := e.Sync(ctx); err != nil {
		t.Fatal(out, err)
	}
	c, err := client.New(e.Cluster.Config(), client.Options{})
	testkit.Must(t, err)
	return &fixture{e, c}
}

// policyOf returns a policy that grants all the service accounts.
func policyOf(e *env.Env) string {
	return strings.Replace(
		e.Policy(),
		"serviceAccounts: ["+env.ServiceAccount+"]",
		"serviceAccounts: ["+strings.Join(serviceAccounts, ", ")+"]",
		1,
	)
}

// objects returns the objects in a YAML text.
func objects(t testing.TB, text string) (all []*unstructured.Unstructured) {
	t.Helper()
	for document := range strings.SplitSeq("\n"+text, "\n---") {
		object := &unstructured.Unstructured{}
		testkit.Must(t, yaml.Unmarshal([]byte(document), &object.Object))
		if len(object.Object) > 0 {
			all = append(all, object)
		}
	}
	return all
}

// create creates an object that is deleted after the test.
func (f *fixture) create(t testing.TB, object client.Object) error {
	if err := f.client.Create(t.Context(), object); err != nil {
		return fmt.Errorf("%s %s: %w", object.GetObjectKind().GroupVersionKind().Kind, object.GetName(), err)
	}
	t.Cleanup(func() {
		background := client.PropagationPolicy(metav1.DeletePropagationBackground)
		if err := f.client.Delete(context.WithoutCancel(t.Context()), object, background); err != nil {
			t.Error(err)
		}
	})
	return nil
}

// setSecret changes a key of a Secret, and setConfigMap changes a key of a ConfigMap.
func (f *fixture) setSecret(ctx context.Context, name, key string, value []byte) error {
	secret := &corev1.Secret{}
	if err := f.client.Get(ctx, client.ObjectKey{Namespace: env.Namespace, Name: name}, secret); err != nil {
		return err
	}
	secret.Data[key] = value
	return f.client.Update(ctx, secret)
}

func (f *fixture) setConfigMap(ctx context.Context, name, key, value string) error {
	config := &corev1.ConfigMap{}
	if err := f.client.Get(ctx, client.ObjectKey{Namespace: env.Namespace, Name: name}, config); err != nil {
		return err
	}
	config.Data[key] = value
	return f.client.Update(ctx, config)
}

// podOf waits for the pod that a controller creates. No scheduler runs here, and no test needs one. A
// DaemonSet creates a pod for the node of each row, which is deleted with the row. So the row's pod is the
// one for the node with the row's name.
func (f *fixture) podOf(ctx context.Context, prefix, row string) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, testkit.Timeout)
	defer cancel()
	for {
		pods := &corev1.PodList{}
		if err := f.client.List(ctx, pods, client.InNamespace(env.Namespace)); err != nil {
			return nil, err
		}
		for i := range pods.Items {
			if p := &pods.Items[i]; strings.HasPrefix(p.Name, prefix) && p.DeletionTimestamp == nil && onNode(p, row) {
				return p, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no pod %s…: %w", prefix, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// onNode reports whether a DaemonSet's pod is for that node. Other pods can run on any node.
func onNode(pod *corev1.Pod, node string) bool {
	if owner := metav1.GetControllerOf(pod); owner == nil || owner.Kind != "DaemonSet" {
		return true
	}
	for _, term := range pod.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, field := range term.MatchFields {
			if field.Key == metav1.ObjectNameField && slices.Contains(field.Values, node) {
				return true
			}
		}
	}
	return false
}

// node creates a node for the pods of DaemonSets. It is ready during the whole test.
func (f *fixture) node(t testing.TB, name string) error {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/os": "linux"}}}
	if err := f.create(t, node); err != nil {
		return err
	}
	ready := []corev1.NodeCondition{
		{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()},
	}
	if err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if err := f.client.Get(t.Context(), client.ObjectKeyFromObject(node), node); err != nil {
			return err
		}
		node.Status.Conditions = ready
		return f.client.Status().Update(t.Context(), node)
	}); err != nil {
		return err
	}
	// Admission taints new nodes as not ready until a kubelet reports. Kubernetes's controllers write to them
	// too, so the update can conflict.
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if err := f.client.Get(t.Context(), client.ObjectKeyFromObject(node), node); err != nil {
			return err
		}
		node.Spec.Taints = nil
		return f.client.Update(t.Context(), node)
	})
}

// Package refused_test tests clusters with policies that refuse injected pods. A real API server evaluates
// the policies, and a real controller manager retries. The webhook and the auditor have the permissions and
// the admission policy from the chart.
package refused_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
	"github.com/ampbridge/ampbridge/test/webhooktest"
	"github.com/ampbridge/ampbridge/webhook"
	"github.com/ampbridge/ampbridge/webhook/audit"
)

const (
	home    = "ampbridge-system"
	account = "prometheus"
	image   = webhooktest.Image
	// demands is the label by which a namespace chooses a policy of somebody else's.
	demands = "test/demands"
	// timeout is long, because machines that run tests are often busy.
	timeout = 2 * time.Minute
)

// head is the part of ampbridge's policy that all tests have.
var head = policytest.Granting(account, "test-*")

type fixture struct {
	*cluster.Cluster
	file   string
	policy atomic.Pointer[policy.Policy]
	sync   *rest.Config
	webCfg *rest.Config
}

// newFixture starts the cluster with what the chart installs, and the webhook.
func newFixture(t *testing.T, text string) *fixture {
	t.Helper()
	f := &fixture{Cluster: cluster.Start(t, cluster.Options{}), file: filepath.Join(t.TempDir(), "policy.yaml")}
	testkit.Must(t, f.Namespace(t.Context(), home, nil))
	f.install(t)
	f.sync = webhooktest.As(t, f.Cluster, home, "ampbridge-sync")
	f.webCfg = webhooktest.As(t, f.Cluster, home, "ampbridge-webhook")
	f.setPolicy(t, text)

	addr, certs := testkit.FreeAddr(t), t.TempDir()
	webhooktest.Register(t, f.Cluster, addr, certs, home)
	webhooktest.Run(t, webhook.Options{Addr: addr, CertDir: certs, PolicyFile: f.file, RESTConfig: f.webCfg, Namespace: home})
	f.namespace(t, "test-probe", nil)
	webhooktest.EventuallyInjects(t, f.Cluster, "test-probe", spec())
	return f
}

var dryRun = metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}

// install creates the chart's accounts, permissions, state and admission policies, as Helm renders them for a
// policy that repairs.
func (f *fixture) install(t *testing.T) {
	t.Helper()
	rendered := tools.Helm(t, "template", "ampbridge", "../../../charts/ampbridge", "--namespace", home,
		"-f", "../../../charts/ampbridge/ci/minimal-values.yaml", "--set", "policy.audit.repair=evict")
	client, err := dynamic.NewForConfig(f.Config())
	testkit.Must(t, err)
	resources := map[string]string{
		"ServiceAccount": "serviceaccounts", "ConfigMap": "configmaps", "Role": "roles", "RoleBinding": "rolebindings",
		"ClusterRole": "clusterroles", "ClusterRoleBinding": "clusterrolebindings",
		"ValidatingAdmissionPolicy": "validatingadmissionpolicies", "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
	}
	for text := range strings.SplitSeq(rendered, "\n---\n") {
		var object unstructured.Unstructured
		testkit.Must(t, yaml.Unmarshal([]byte(text), &object.Object))
		plural, wanted := resources[object.GetKind()]
		if !wanted {
			continue
		}
		gvk := object.GroupVersionKind()
		resource := client.Resource(schema.GroupVersionResource{Group: gvk.Group, Version: gvk.Version, Resource: plural})
		if object.GetNamespace() == "" {
			_, err = resource.Create(t.Context(), &object, metav1.CreateOptions{})
		} else {
			_, err = resource.Namespace(object.GetNamespace()).Create(t.Context(), &object, metav1.CreateOptions{})
		}
		testkit.Must(t, err)
	}
}

// setPolicy changes the policy of webhook and auditor.
func (f *fixture) setPolicy(t *testing.T, more string) {
	t.Helper()
	p := policytest.Parse(t, head+more)
	testkit.WriteFile(t, f.file, head+more)
	f.policy.Store(p)
}

// audit runs the auditor until the test ends. Its rounds do nothing for refused pods.
func (f *fixture) audit(t *testing.T) {
	t.Helper()
	testkit.Run(t, "auditor", func(ctx context.Context) error {
		return audit.Run(ctx, audit.Options{
			RESTConfig: f.sync, Policy: f.policy.Load, Image: image, Namespace: home, NoSidecars: true,
			Interval: 200 * time.Millisecond, Settle: time.Millisecond, EvictionInterval: 2 * time.Second,
			Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		})
	})
}

// namespace makes a namespace that asks for injection, with more labels.
func (f *fixture) namespace(t *testing.T, name string, more map[string]string) {
	t.Helper()
	labels := map[string]string{policy.LabelInjection: string(policy.InjectionEnabled)}
	maps.Copy(labels, more)
	testkit.Must(t, f.Namespace(t.Context(), name, labels))
	testkit.Must(t, f.ServiceAccount(t.Context(), name, account))
}

// node creates a ready node without a kubelet. DaemonSets create pods for it anyway.
func (f *fixture) node(t *testing.T) {
	t.Helper()
	nodes := f.Client().CoreV1().Nodes()
	_, err := nodes.Create(t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}}, metav1.CreateOptions{})
	testkit.Must(t, err)
	// Kubernetes's controllers also write to the node, and taint it until it is ready.
	testkit.Must(t, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		node, err := nodes.Get(t.Context(), "node", metav1.GetOptions{})
		if err != nil {
			return err
		}
		node.Status.Conditions = []corev1.NodeCondition{
			{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()},
		}
		_, err = nodes.UpdateStatus(t.Context(), node, metav1.UpdateOptions{})
		return err
	}))
	testkit.Must(t, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		node, err := nodes.Get(t.Context(), "node", metav1.GetOptions{})
		if err != nil {
			return err
		}
		node.Spec.Taints = nil
		_, err = nodes.Update(t.Context(), node, metav1.UpdateOptions{})
		return err
	}))
}

// label sets a label of a namespace; without a value it removes the label.
func (f *fixture) label(t *testing.T, namespace, key, value string) {
	t.Helper()
	object, err := f.Client().CoreV1().Namespaces().Get(t.Context(), namespace, metav1.GetOptions{})
	testkit.Must(t, err)
	if delete(object.Labels, key); value != "" {
		object.Labels[key] = value
	}
	_, err = f.Client().CoreV1().Namespaces().Update(t.Context(), object, metav1.UpdateOptions{})
	testkit.Must(t, err)
}

// demand creates a ValidatingAdmissionPolicy for the pods of namespaces that select it.
func (f *fixture) demand(t *testing.T, name, message, expression string) {
	t.Helper()
	webhooktest.DenyPods(t, f.Cluster, name, &metav1.LabelSelector{MatchLabels: map[string]string{demands: name}},
		admissionv1.ValidatingAdmissionPolicySpec{
			Variables: []admissionv1.Variable{
				{Name: "all", Expression: "object.spec.containers + (has(object.spec.initContainers) ? object.spec.initContainers : [])"},
			},
			Validations: []admissionv1.Validation{{Expression: expression, Message: message}},
		})
}

// spec returns a Prometheus that satisfies all policies of these tests.
func spec() corev1.PodSpec {
	limits := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("1Gi")}
	requests := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("64Mi")}
	pod := webhooktest.Prometheus(account)
	pod.Containers[0].Resources = corev1.ResourceRequirements{Limits: limits, Requests: requests}
	return pod
}

func bare(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec()}
}

// shapes are the kinds of workloads in lower case. They are also the workloads' names.
var shapes = []string{"deployment", "statefulset", "daemonset"}

// create creates a workload with one pod. Prometheus has a profile of its own for policies that require one.
func (f *fixture) create(t *testing.T, namespace, shape string, change func(*corev1.PodSpec)) {
	t.Helper()
	template := corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"shape": shape}}, Spec: spec()}
	if change != nil {
		change(&template.Spec)
	}
	selector := &metav1.LabelSelector{MatchLabels: template.Labels}
	meta, apps := metav1.ObjectMeta{Name: shape}, f.Client().AppsV1()
	var err error
	switch shape {
	case "deployment":
		_, err = apps.Deployments(namespace).Create(t.Context(), &appsv1.Deployment{ObjectMeta: meta, Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(1)), Selector: selector, Template: template}}, metav1.CreateOptions{})
	case "statefulset":
		_, err = apps.StatefulSets(namespace).Create(t.Context(), &appsv1.StatefulSet{ObjectMeta: meta, Spec: appsv1.StatefulSetSpec{
			Replicas: new(int32(1)), Selector: selector, Template: template, ServiceName: shape}}, metav1.CreateOptions{})
	case "daemonset":
		_, err = apps.DaemonSets(namespace).Create(t.Context(), &appsv1.DaemonSet{ObjectMeta: meta, Spec: appsv1.DaemonSetSpec{
			Selector: selector, Template: template}}, metav1.CreateOptions{})
	}
	testkit.Must(t, err)
}

// pods returns the workload's pods that are not being deleted.
func (f *fixture) pods(t *testing.T, namespace, shape string) []corev1.Pod {
	t.Helper()
	list, err := f.Client().CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "shape=" + shape})
	testkit.Must(t, err)
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
}

// one waits for the workload's pod, which must differ from before.
func (f *fixture) one(t *testing.T, namespace, shape string, before *corev1.Pod) *corev1.Pod {
	t.Helper()
	var pods []corev1.Pod
	testkit.Within(t, timeout, fmt.Sprintf("%s/%s has its pod", namespace, shape), func() bool {
		pods = f.pods(t, namespace, shape)
		return len(pods) == 1 && (before == nil || pods[0].UID != before.UID)
	})
	return &pods[0]
}

// replace deletes the workload's pod, as the kubelet would, and waits for the next one.
func (f *fixture) replace(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	testkit.Must(t, f.Client().CoreV1().Pods(pod.Namespace).Delete(t.Context(), pod.Name,
		metav1.DeleteOptions{GracePeriodSeconds: new(int64(0))}))
	return f.one(t, pod.Namespace, pod.Labels["shape"], pod)
}

// events returns the events with a reason on the workload's controller or its ReplicaSets.
func (f *fixture) events(t *testing.T, namespace, shape, reason string) []corev1.Event {
	t.Helper()
	list, err := f.Client().CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{FieldSelector: "reason=" + reason})
	testkit.Must(t, err)
	return slices.DeleteFunc(list.Items, func(e corev1.Event) bool {
		name := e.InvolvedObject.Name
		return name != shape && !strings.HasPrefix(name, shape+"-")
	})
}

// refusals returns how often the workload's pods were refused, as its controller counts.
func (f *fixture) refusals(t *testing.T, namespace, shape string) (n int) {
	t.Helper()
	for _, e := range f.events(t, namespace, shape, "FailedCreate") {
		n += int(max(e.Count, 1))
	}
	return n
}

func (f *fixture) eventSays(t *testing.T, namespace, shape, reason string, words ...string) {
	t.Helper()
	testkit.Within(t, timeout, fmt.Sprintf("event %s on %s/%s: %q", reason, namespace, shape, words), func() bool {
		return slices.ContainsFunc(f.events(t, namespace, shape, reason), func(e corev1.Event) bool {
			return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(e.Message, w) })
		})
	})
}

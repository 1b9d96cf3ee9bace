// Package audit_test lets the auditor loose on a real API server, with the
// rights that it is said to need and no others. There is no node: the tests play
// the kubelet's part by writing what it would report.
package audit_test

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/metricstest"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/webhooktest"
	"github.com/ampbridge/ampbridge/webhook"
	"github.com/ampbridge/ampbridge/webhook/audit"
	"github.com/ampbridge/ampbridge/webhook/breaker"
)

const (
	image   = webhooktest.Image
	home    = "ampbridge"
	account = "prometheus"
)

var policyText = policytest.Granting(account, "test-*")

// fixture is an API server where the webhook is registered, but does not run.
type fixture struct {
	*cluster.Cluster
	addr, certs string
	auditor     *rest.Config
	webhook     *rest.Config
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{Cluster: cluster.Start(t, cluster.Options{}), addr: testkit.FreeAddr(t), certs: t.TempDir()}
	testkit.Must(t, f.Namespace(t.Context(), home, nil))
	f.webhook = webhooktest.Identity(t, f.Cluster, home, "webhook", webhooktest.Rights())
	allow := webhooktest.Allow
	f.auditor = webhooktest.Identity(t, f.Cluster, home, "auditor", cluster.Rights{
		Cluster: []rbacv1.PolicyRule{
			allow("get", "namespaces", "serviceaccounts"), allow("list", "namespaces", "pods", "limitranges", "resourcequotas"),
			allow("create", "pods", "pods/eviction", "events"), allow("watch", "events"),
			{APIGroups: []string{"apps"}, Resources: []string{"replicasets", "statefulsets", "daemonsets"}, Verbs: []string{"get"}},
		},
		Namespace: []rbacv1.PolicyRule{
			webhooktest.AllowNamed(breaker.ConfigMap, "configmaps", "get", "update"), allow("create", "configmaps"),
		},
	})
	webhooktest.Register(t, f.Cluster, f.addr, f.certs, home)
	return f
}

// namespace makes a labelled namespace with the granted service account. Its
// label goes with the test, so that no later auditor is concerned.
func (f *fixture) namespace(t *testing.T, name string) {
	t.Helper()
	webhooktest.Namespace(t, f.Cluster, name, account)
	t.Cleanup(func() { f.unlabel(t, name) })
}

func (f *fixture) unlabel(t *testing.T, name string) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	object, err := f.Client().CoreV1().Namespaces().Get(ctx, name, metav1.GetOptions{})
	testkit.Must(t, err)
	delete(object.Labels, policy.LabelInjection)
	_, err = f.Client().CoreV1().Namespaces().Update(ctx, object, metav1.UpdateOptions{})
	testkit.Must(t, err)
}

// startWebhook runs the webhook until the test ends, and returns when the API
// server injects through it.
func (f *fixture) startWebhook(t *testing.T, probe string) {
	t.Helper()
	file := testkit.TempFile(t, "policy.yaml", policyText)
	webhooktest.Run(t, webhook.Options{Addr: f.addr, CertDir: f.certs, PolicyFile: file, RESTConfig: f.webhook, Namespace: home})
	webhooktest.EventuallyInjects(t, f.Cluster, probe, template().Spec)
}

// revision returns the breaker's revision of an image for the granted account of a
// namespace.
func revision(t *testing.T, namespace, image string) string {
	t.Helper()
	p := policytest.Parse(t, policyText)
	e, _ := p.Entitled(policy.Subject{Namespace: namespace, ServiceAccount: account})
	return breaker.Revision(p, e, image)
}

// running is an auditor at work.
type running struct {
	metrics *prometheus.Registry
}

// audit runs an auditor until the test ends, with a policy of more lines.
func (f *fixture) audit(t *testing.T, more string, change func(*audit.Options)) *running {
	t.Helper()
	p := policytest.Parse(t, policyText+more)
	r := &running{metrics: prometheus.NewRegistry()}
	o := audit.Options{
		RESTConfig: f.auditor, Policy: func() *policy.Policy { return p }, Image: image, Namespace: home, Excluded: []string{excluded},
		Registry: r.metrics, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	change(&o)
	testkit.Run(t, "auditor", func(ctx context.Context) error { return audit.Run(ctx, o) })
	return r
}

// quick makes rounds follow one another at once.
func quick(o *audit.Options) {
	o.Interval, o.Settle, o.EvictionInterval = 200*time.Millisecond, time.Millisecond, 2*time.Second
}

// value is the sum of a metric's series with this label value, or of all.
func (r *running) value(t *testing.T, name, label string) float64 {
	t.Helper()
	return metricstest.Sum(t, r.metrics, name, label)
}

func template() corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "prometheus"}},
		Spec:       webhooktest.Prometheus(account),
	}
}

// deploy makes a Deployment and returns its pods once they are all there.
func (f *fixture) deploy(t *testing.T, namespace, name string, replicas int, annotations map[string]string) []corev1.Pod {
	t.Helper()
	pod := template()
	pod.Labels["deployment"] = name
	pod.Annotations = annotations
	_, err := f.Client().AppsV1().Deployments(namespace).Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Replicas: new(int32(replicas)),
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"deployment": name}},
			Template: pod,
		},
	}, metav1.CreateOptions{})
	testkit.Must(t, err)
	var pods []corev1.Pod
	testkit.Eventually(t, name+" has its pods", func() bool {
		pods = f.pods(t, namespace, name)
		return len(pods) == replicas
	})
	return pods
}

// pods are the Deployment's that are not about to go.
func (f *fixture) pods(t *testing.T, namespace, deployment string) []corev1.Pod {
	t.Helper()
	list, err := f.Client().CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{LabelSelector: "deployment=" + deployment})
	testkit.Must(t, err)
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
}

// report writes a pod's status, as the kubelet does.
func (f *fixture) report(t *testing.T, pod corev1.Pod, change func(*corev1.PodStatus)) {
	t.Helper()
	testkit.Eventually(t, "the status of "+pod.Name+" is written", func() bool {
		p, err := f.Client().CoreV1().Pods(pod.Namespace).Get(t.Context(), pod.Name, metav1.GetOptions{})
		testkit.Must(t, err)
		change(&p.Status)
		_, err = f.Client().CoreV1().Pods(pod.Namespace).UpdateStatus(t.Context(), p, metav1.UpdateOptions{})
		if !apierrors.IsConflict(err) {
			testkit.Must(t, err)
		}
		return err == nil
	})
}

func ready(s *corev1.PodStatus) {
	s.Phase = corev1.PodRunning
	s.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
}

// cannotPull is what the kubelet reports of an image that it cannot pull.
func cannotPull(s *corev1.PodStatus) {
	s.Phase = corev1.PodPending
	s.InitContainerStatuses = []corev1.ContainerStatus{
		{
			Name:    sidecarconfig.ContainerName,
			Image:   image,
			Started: new(false),
			State: corev1.ContainerState{
				Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "Back-off pulling image " + image},
			},
		},
	}
}

// pulling is what it reports while a registry does not answer.
func pulling(s *corev1.PodStatus) {
	s.Phase = corev1.PodPending
	s.Conditions = []corev1.PodCondition{{Type: corev1.PodReadyToStartContainers, Status: corev1.ConditionTrue}}
	s.InitContainerStatuses = []corev1.ContainerStatus{{
		Name: sidecarconfig.ContainerName, Image: image, Started: new(false),
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "PodInitializing"}},
	}}
}

// mounting is what it reports while volumes are on their way.
func mounting(s *corev1.PodStatus) {
	pulling(s)
	s.Conditions[0].Status = corev1.ConditionFalse
}

// events returns the events with a reason on the pod's controller.
func (f *fixture) events(t *testing.T, pod corev1.Pod, reason string) []corev1.Event {
	t.Helper()
	return f.eventsOn(t, pod.Namespace, metav1.GetControllerOf(&pod).UID, reason)
}

// eventsOn returns the events with a reason on one object.
func (f *fixture) eventsOn(t *testing.T, namespace string, object types.UID, reason string) []corev1.Event {
	t.Helper()
	list, err := f.Client().CoreV1().Events(namespace).List(t.Context(), metav1.ListOptions{})
	testkit.Must(t, err)
	return slices.DeleteFunc(list.Items, func(e corev1.Event) bool { return e.Reason != reason || e.InvolvedObject.UID != object })
}

func (f *fixture) eventSays(t *testing.T, pod corev1.Pod, reason, words string) {
	t.Helper()
	testkit.Eventually(t, "event "+reason+": "+words, func() bool {
		return slices.ContainsFunc(f.events(t, pod, reason), func(e corev1.Event) bool { return strings.Contains(e.Message, words) })
	})
}

// replaced reports whether all pods are others than before, and as many.
func replaced(before, now []corev1.Pod) bool {
	return len(now) == len(before) && !slices.ContainsFunc(now, func(p corev1.Pod) bool { return has(before, p) })
}

func has(pods []corev1.Pod, pod corev1.Pod) bool {
	return slices.ContainsFunc(pods, func(p corev1.Pod) bool { return p.UID == pod.UID })
}

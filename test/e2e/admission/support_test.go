package admission_test

import (
	"log/slog"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/webhooktest"
	"github.com/ampbridge/ampbridge/webhook"
)

const (
	image = webhooktest.Image
	home  = "ampbridge"
)

// fixture is an API server in which the webhook is registered.
type fixture struct {
	*cluster.Cluster
	policyFile string
	log        *testkit.Buffer
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := newCluster(t)
	addr, certs := testkit.FreeAddr(t), t.TempDir()
	webhooktest.Register(t, f.Cluster, addr, certs, home)
	webhooktest.Run(t, webhook.Options{
		Addr: addr, CertDir: certs, PolicyFile: f.policyFile, RESTConfig: webhooktest.As(t, f.Cluster, home, "webhook"),
		Logger: slog.New(slog.NewJSONHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	webhooktest.Namespace(t, f.Cluster, "test-begin", "prometheus-server")
	webhooktest.EventuallyInjects(t, f.Cluster, "test-begin", chartPod(t).Spec)
	return f
}

// newCluster is an API server with the webhook's own identity, which has the rights that it is said to need
// and no others. The webhook does not run. A file has the policy of testdata.
func newCluster(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{Cluster: cluster.Start(t, cluster.Options{}), policyFile: filepath.Join(t.TempDir(), "policy.yaml"), log: &testkit.Buffer{}}
	f.writePolicy(t, "")
	testkit.Must(t, f.Namespace(t.Context(), home, nil))
	testkit.Must(t, f.Identity(t.Context(), home, "webhook", webhooktest.Rights()))
	return f
}

// writePolicy writes the policy of testdata with more lines, so that it is in force.
func (f *fixture) writePolicy(t *testing.T, more string) {
	t.Helper()
	testkit.WriteFile(t, f.policyFile, testkit.ReadFile(t, "testdata/policy.yaml")+more)
}

func (f *fixture) namespace(t *testing.T, name string, injection policy.Injection, labels map[string]string) {
	t.Helper()
	all := map[string]string{}
	if injection != "" {
		all[policy.LabelInjection] = string(injection)
	}
	maps.Copy(all, labels)
	testkit.Must(t, f.Namespace(t.Context(), name, all))
}

func (f *fixture) account(t *testing.T, namespace, name string, annotations map[string]string) *corev1.ServiceAccount {
	t.Helper()
	object := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Annotations: annotations}}
	created, err := f.Client().CoreV1().ServiceAccounts(namespace).Create(t.Context(), object, metav1.CreateOptions{})
	testkit.Must(t, err)
	return created
}

// tryPod creates a pod and returns the API server's answer.
func (f *fixture) tryPod(t *testing.T, namespace string, pod *corev1.Pod, dry bool) (*corev1.Pod, error) {
	o := metav1.CreateOptions{}
	if dry {
		o.DryRun = []string{metav1.DryRunAll}
	}
	return f.Client().CoreV1().Pods(namespace).Create(t.Context(), pod, o)
}

func (f *fixture) pod(t *testing.T, namespace string, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	created, err := f.tryPod(t, namespace, pod, false)
	testkit.Must(t, err)
	return created
}

// decisions returns the reasons that the webhook logged, by namespace and pod.
func (f *fixture) decisions(t *testing.T) map[string]string {
	t.Helper()
	reasons := map[string]string{}
	for _, d := range f.logged(t) {
		if key := d.Namespace + "/" + d.Pod; reasons[key] == "" {
			reasons[key] = d.Reason // a second call for the same pod only finds the injection
		}
	}
	return reasons
}

// decided reports whether the webhook logged that reason for a pod of the namespace.
func (f *fixture) decided(t *testing.T, namespace string, reason policy.Reason) bool {
	t.Helper()
	return slices.ContainsFunc(f.logged(t), func(d decision) bool {
		return d.Namespace == namespace && d.Reason == string(reason)
	})
}

// decision is a line of the webhook's log about a pod.
type decision struct{ Msg, Namespace, Pod, Reason string }

// logged returns the decisions in the webhook's log, the oldest first.
func (f *fixture) logged(t *testing.T) (all []decision) {
	t.Helper()
	for line := range strings.Lines(f.log.String()) {
		var d decision
		if testkit.DecodeJSON(t, line, &d); d.Msg == "pod" {
			all = append(all, d)
		}
	}
	return all
}

func (f *fixture) reason(t *testing.T, namespace, pod string) string {
	t.Helper()
	// The log line is written after the answer.
	var reason string
	for range 20 {
		if reason = f.decisions(t)[namespace+"/"+pod]; reason != "" {
			return reason
		}
		time.Sleep(5 * time.Millisecond)
	}
	return "never called"
}

func (f *fixture) lastLine() string {
	text := strings.TrimSpace(f.log.String())
	return text[strings.LastIndexByte(text, '\n')+1:]
}

var calls = regexp.MustCompile(
	`(?m)^apiserver_admission_webhook_request_total\{[^}]*name="(pods|serviceaccounts)-(enabled|` +
		`annotated)\.webhook\.ampbridge\.io"[^}]*\} ([0-9]+)$`,
)

// podCalls returns how often the API server has called the webhook for pods, as the API server counts it.
func (f *fixture) podCalls(t *testing.T) (n int) {
	t.Helper()
	text, err := f.Metrics(t.Context())
	testkit.Must(t, err)
	for _, match := range calls.FindAllStringSubmatch(text, -1) {
		if match[1] == "pods" {
			count, err := strconv.Atoi(match[3])
			testkit.Must(t, err)
			n += count
		}
	}
	return n
}

// readPod is a pod of testdata as its controller creates it.
func readPod(t *testing.T, file string) *corev1.Pod {
	t.Helper()
	pod := &corev1.Pod{}
	testkit.DecodeJSON(t, testkit.ReadFile(t, file), pod)
	// The API server and the controllers had added these.
	pod.Namespace, pod.Name, pod.OwnerReferences = "", "", nil
	apiToken := func(name string) bool { return strings.HasPrefix(name, "kube-api-access-") }
	pod.Spec.Volumes = slices.DeleteFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return apiToken(v.Name) })
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			list[i].VolumeMounts = slices.DeleteFunc(list[i].VolumeMounts, func(m corev1.VolumeMount) bool { return apiToken(m.Name) })
		}
	}
	return pod
}

func chartPod(t *testing.T) *corev1.Pod { return readPod(t, "testdata/pod-prometheus-chart.json") }

// operatorPod returns the operator's pod with the service account that the policy of testdata grants.
func operatorPod(t *testing.T) *corev1.Pod {
	pod := readPod(t, "testdata/pod-prometheus-operator.json")
	pod.GenerateName = "prometheus-k8s-"
	pod.Spec.ServiceAccountName, pod.Spec.DeprecatedServiceAccount = "prometheus-k8s", ""
	pod.Spec.Hostname, pod.Spec.Subdomain = "", ""
	return pod
}

func webPod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "web-"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "web", Image: "nginx:1"}}},
	}
}

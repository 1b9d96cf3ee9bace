package admission_test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/metricstest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/webhooktest"
)

const (
	// containerLimit is the memory limit of the chart's container, in bytes.
	containerLimit = 128 << 20
	// attackBudget is how much memory the webhook may use at its peak, in bytes.
	attackBudget = 100_000_000
	// promptly is how long a pod may take during an attack. It is long, because the test's machine also runs
	// the API server, etcd and the attackers.
	promptly = 10 * time.Second
)

// Whatever clients send, the webhook stays below its memory limit, keeps running, and injects the pods of
// others.
func TestMemoryUnderAttack(t *testing.T) {
	f := newCluster(t)
	p := f.startProcess(t)
	const tenant, other = "test-tenant", "test-other"
	for _, namespace := range []string{tenant, other} {
		webhooktest.Namespace(t, f.Cluster, namespace, "prometheus-server")
	}
	webhooktest.EventuallyInjects(t, f.Cluster, other, chartPod(t).Spec)
	t.Logf("idle: %s", p.usage(t))

	attacks := []struct {
		name  string
		begin func(*testing.T) (end func())
	}{
		{"a 7 MB review of 2.3 million empty containers", func(t *testing.T) func() {
			return p.review(t, `"containers":[{}`+strings.Repeat(",{}", 2_300_000)+`]`, "more than")
		}},
		{"the same, within the size that is read", func(t *testing.T) func() {
			return p.review(t, `"containers":[{}`+strings.Repeat(",{}", 340_000)+`]`, "more than 1000 items")
		}},
		{"60 stalled bodies", func(t *testing.T) func() { return p.stall(t, 60, 7<<20) }},
		{"200 stalled bodies within the size that is read", func(t *testing.T) func() { return p.stall(t, 200, 1<<20) }},
		{"six 3 MB pods of a million envFrom, dry runs", func(t *testing.T) func() {
			f.refuseHuge(t)
			before := p.tooLarge(t)
			config := f.Config()
			config.ContentType = runtime.ContentTypeJSON
			client := cluster.ClientFor(t, config)
			var group sync.WaitGroup
			for range 6 {
				group.Go(func() { hugePod(t, client, tenant) })
			}
			return func() {
				group.Wait()
				if got := p.tooLarge(t) - before; got < 6 {
					t.Errorf("the webhook was called for %d of the six pods", got)
				}
			}
		}},
		{"a service account with a long list and 50 pods of it", func(t *testing.T) func() {
			f.hugeAccount(t, tenant)
			var group sync.WaitGroup
			for range 50 {
				group.Go(func() {
					pod := chartPod(t)
					pod.Spec.ServiceAccountName, pod.Spec.DeprecatedServiceAccount = "huge", ""
					if _, err := f.tryPod(t, tenant, pod, true); err != nil {
						t.Errorf("pod of the huge service account: %v", err)
					}
				})
			}
			return group.Wait
		}},
	}
	for _, attack := range attacks {
		t.Run(attack.name, func(t *testing.T) {
			end := attack.begin(t)
			var took []time.Duration
			for range 10 {
				start := time.Now()
				if pod := f.pod(t, other, chartPod(t)); !webhooktest.Injected(pod) {
					t.Errorf("a pod beside the attack is not injected: %s", f.lastLine())
				}
				took = append(took, time.Since(start))
			}
			end()
			slices.Sort(took)
			if median := took[len(took)/2]; median > promptly {
				t.Errorf("pods during the attack: got %s, want at most %s", median, promptly)
			}
			t.Logf("pods during the attack: median %s, slowest %s; %s", took[len(took)/2], took[len(took)-1], p.usage(t))
		})
	}
	if peak := testkit.ProcessMemory(t, p.pid, "VmHWM"); peak > attackBudget {
		t.Errorf("the webhook used %d bytes at its peak, want at most %d", peak, attackBudget)
	}
	if used, there := p.group.used(t); there && used > attackBudget {
		t.Errorf("its cgroup used %d bytes at its peak, want at most %d", used, attackBudget)
	}
}

// review sends a review of a pod with these members and waits for the answer, which must admit the pod with a
// warning.
func (p *process) review(t *testing.T, spec, warning string) (end func()) {
	t.Helper()
	body := `{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1","request":{"uid":"1","kind":{"group":"","version":"v1",` +
		`"kind":"Pod"},"operation":"CREATE",` +
		`"object":{"metadata":{},"spec":{` + spec + `}}}}`
	done := make(chan error, 1)
	go func() {
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: p.roots}, Timeout: time.Minute}
		defer client.CloseIdleConnections()
		answer, err := client.Post("https://"+p.addr+"/pods/enabled", "application/json", strings.NewReader(body))
		if err != nil {
			done <- err
			return
		}
		defer func() { _ = answer.Body.Close() }()
		text, err := io.ReadAll(answer.Body)
		if err == nil && (!strings.Contains(string(text), `"allowed":true`) || !strings.Contains(string(text), warning)) {
			err = fmt.Errorf("got %d: %s", answer.StatusCode, text)
		}
		done <- err
	}()
	return func() {
		if err := <-done; err != nil {
			t.Errorf("the review: %v", err)
		}
	}
}

// stall opens n connections that send all but one byte of a body of this size.
func (p *process) stall(t *testing.T, n, size int) (end func()) {
	t.Helper()
	filler := bytes.Repeat([]byte(" "), size-1)
	for range n {
		conn, err := tls.Dial("tcp", p.addr, p.roots)
		testkit.Must(t, err)
		t.Cleanup(func() { _ = conn.Close() })
		go func() {
			_, _ = fmt.Fprintf(
				conn,
				"POST /pods/enabled HTTP/1.1\r\nHost: webhook\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
				size,
			)
			_, _ = conn.Write(filler) // the webhook may close the connection before
		}()
	}
	return func() {}
}

// hugeLabel is the label of the pods that [fixture.refuseHuge] refuses.
const hugeLabel = "ampbridge.test/huge"

// hugePod creates a pod of 3 MB as a dry run. The client must send it as JSON, because in its own encoding
// the pod would be too large for the API server.
func hugePod(t *testing.T, client kubernetes.Interface, namespace string) {
	pod := chartPod(t)
	pod.Labels[hugeLabel] = "true"
	for i := range pod.Spec.Containers {
		if pod.Spec.Containers[i].Name == "prometheus-server" {
			pod.Spec.Containers[i].EnvFrom = make([]corev1.EnvFromSource, 1_000_000)
		}
	}
	_, err := client.CoreV1().Pods(namespace).Create(t.Context(), pod,
		metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err == nil || !strings.Contains(err.Error(), "refused by the test") {
		t.Errorf("a pod beyond the bounds: got %v, want the second webhook to refuse it", err)
	}
}

// refuseHuge registers a second webhook that refuses the huge pods. The API server calls it after
// ampbridge's. Without it the API server would validate the pods and list a million mistakes for each. On two
// cores that takes half a minute in which it answers no one else, and the test would measure that time.
func (f *fixture) refuseHuge(t *testing.T) {
	t.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		var review struct {
			Request struct {
				UID string `json:"uid"`
			} `json:"request"`
		}
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
			http.Error(rw, err.Error(), http.StatusBadRequest)
			return
		}
		rw.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(
			rw,
			`{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":%q,"allowed":false,`+
				`"status":{"message":"refused by the test"}}}`,
			review.Request.UID,
		)
	}))
	t.Cleanup(server.Close)
	fail, none, pods := admissionv1.Fail, admissionv1.SideEffectClassNone, "zz-refuses-huge-pods"
	_, err := f.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Create(
		t.Context(),
		&admissionv1.MutatingWebhookConfiguration{
			ObjectMeta: metav1.ObjectMeta{Name: pods}, // webhooks are called in the order of these names
			Webhooks: []admissionv1.MutatingWebhook{{
				Name: pods + ".test.ampbridge.io",
				ClientConfig: admissionv1.WebhookClientConfig{
					URL: &server.URL, CABundle: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
				},
				Rules: []admissionv1.RuleWithOperations{{
					Operations: []admissionv1.OperationType{admissionv1.Create},
					Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
				}},
				ObjectSelector: &metav1.LabelSelector{MatchLabels: map[string]string{hugeLabel: "true"}},
				FailurePolicy:  &fail, SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
			}},
		},
		metav1.CreateOptions{},
	)
	testkit.Must(t, err)
	testkit.Eventually(t, "the second webhook is called", func() bool {
		pod := chartPod(t)
		pod.Labels[hugeLabel] = "true"
		_, err := f.tryPod(t, "test-tenant", pod, true)
		return err != nil && strings.Contains(err.Error(), "refused by the test")
	})
}

// hugeAccount creates a service account with a long list of Secrets. The list is shorter than etcd allows,
// because otherwise the API server itself would need a second for each pod.
func (f *fixture) hugeAccount(t *testing.T, namespace string) {
	t.Helper()
	account := &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "huge"},
		Secrets:    make([]corev1.ObjectReference, 15_000),
	}
	_, err := f.Client().CoreV1().ServiceAccounts(namespace).Create(t.Context(), account, metav1.CreateOptions{})
	testkit.Must(t, err)
}

// tooLarge returns how many pods exceeded a limit, as the webhook counts them.
func (p *process) tooLarge(t *testing.T) int {
	t.Helper()
	// Before the first such pod there is no such sample.
	n, _ := metricstest.Value(p.scrape(t),
		`ampbridge_admission_decisions_total{decision="skip",reason="TooLarge",resource="pod"}`)
	return int(n)
}

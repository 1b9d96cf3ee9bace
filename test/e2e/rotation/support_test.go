// Package rotation_test runs replicas of the webhook that manage their own certificate, with exactly the
// permissions that they need, behind a Service of a real API server.
package rotation_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/webhooktest"
	"github.com/ampbridge/ampbridge/webhook"
	"github.com/ampbridge/ampbridge/webhook/certificates"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

const (
	image    = webhooktest.Image
	home     = "ampbridge-system"
	tenant   = "monitoring"
	account  = "prometheus"
	secret   = "ampbridge-webhook-tls"
	service  = "ampbridge-webhook"
	portName = "webhook"
)

// timing makes a rotation so short that a test can wait for it.
var timing = certificates.Timing{Propagation: timingPropagation, Retirement: 20 * time.Second, Resync: time.Second}

const timingPropagation = 4 * time.Second

// fixture is an API server with everything that the chart creates, except for the replicas.
type fixture struct {
	*cluster.Cluster
	config     *rest.Config // the webhook's own identity
	address    string       // an address that endpoints can have
	policyFile string

	mu   sync.Mutex
	live map[string]bool // addresses of endpoints
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{
		Cluster:    cluster.Start(t, cluster.Options{}),
		address:    nodeAddress(t),
		policyFile: filepath.Join(t.TempDir(), "policy.yaml"),
		live:       map[string]bool{},
	}
	testkit.WriteFile(t, f.policyFile, policytest.Granting(account, tenant))
	testkit.Must(t, f.Namespace(t.Context(), home, nil))
	webhooktest.Namespace(t, f.Cluster, tenant, account)
	f.config = f.identity(t, "webhook", secret, registration.DefaultName)
	return f
}

// newRegistered is [newFixture] with the Service and the configuration of the webhook.
func newRegistered(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t)
	f.register(t, registration.DefaultName, service)
	return f
}

// identity creates a service account with the permissions in the doc of package certificates, and those that
// the handlers need.
func (f *fixture) identity(t *testing.T, name, secret, configuration string) *rest.Config {
	t.Helper()
	rights := webhooktest.Rights()
	rights.Cluster = append(rights.Cluster, rbacv1.PolicyRule{
		APIGroups:     []string{"admissionregistration.k8s.io"},
		Resources:     []string{"mutatingwebhookconfigurations"},
		ResourceNames: []string{configuration},
		Verbs:         []string{"get", "watch", "patch"},
	})
	rights.Namespace = append(rights.Namespace,
		webhooktest.AllowNamed(secret, "secrets", "get", "watch", "update", "patch", "create"))
	return webhooktest.Identity(t, f.Cluster, home, name, rights)
}

// register creates the Service and the configuration without a CA bundle, as Helm does, with one more entry
// of another program.
func (f *fixture) register(t *testing.T, name, service string) {
	t.Helper()
	_, err := f.Client().CoreV1().Services(home).Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: service}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: portName, Port: 443}}},
	}, metav1.CreateOptions{})
	testkit.Must(t, err)
	object, err := registration.New(registration.Options{
		Name: name,
		ClientConfig: admissionv1.WebhookClientConfig{
			Service: &admissionv1.ServiceReference{Namespace: home, Name: service},
		},
		ExcludedNamespaces: []string{home},
	})
	testkit.Must(t, err)
	foreign := *object.Webhooks[0].DeepCopy()
	foreign.Name = "foreign.example.com"
	foreign.ClientConfig.Service.Name = "somebody-elses"
	foreign.NamespaceSelector.MatchLabels = map[string]string{"never": "there"}
	object.Webhooks = append(object.Webhooks[:1], append([]admissionv1.MutatingWebhook{foreign}, object.Webhooks[1:]...)...)
	webhooktest.Create(t, f.Cluster, object)
}

func (f *fixture) configuration(t *testing.T, name string) *admissionv1.MutatingWebhookConfiguration {
	t.Helper()
	object, err := f.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Get(t.Context(), name, metav1.GetOptions{})
	testkit.Must(t, err)
	return object
}

// wantOnlyBundles checks that only the bundles of the webhook's own entries have changed since the
// configuration was registered.
func (f *fixture) wantOnlyBundles(t *testing.T, before, after *admissionv1.MutatingWebhookConfiguration) {
	t.Helper()
	after = after.DeepCopy()
	for i := range after.Webhooks {
		if c := &after.Webhooks[i].ClientConfig; c.Service.Name != "somebody-elses" {
			c.CABundle = before.Webhooks[i].ClientConfig.CABundle
		}
	}
	if diff := cmp.Diff(before.Webhooks, after.Webhooks); diff != "" {
		t.Errorf("more than the bundle has changed, -before +after:\n%s", diff)
	}
}

// secret returns the Secret; nil if there is none.
func (f *fixture) secret(t *testing.T, name string) *corev1.Secret {
	t.Helper()
	list, err := f.Client().CoreV1().Secrets(home).List(t.Context(), only(name))
	testkit.Must(t, err)
	if len(list.Items) == 0 {
		return nil
	}
	return &list.Items[0]
}

// stable reports whether no rotation is in progress and each of the webhook's entries trusts only the current
// CA.
func (f *fixture) stable(t *testing.T, secret, configuration string) bool {
	t.Helper()
	s := f.secret(t, secret)
	if s == nil || s.Data["tls.crt"] == nil || s.Data["next-tls.crt"] != nil || s.Data["previous-ca.crt"] != nil {
		return false
	}
	if _, asked := s.Annotations[certificates.AnnotationRotate]; asked {
		return false
	}
	for _, entry := range f.configuration(t, configuration).Webhooks {
		if entry.ClientConfig.Service.Name != "somebody-elses" && string(entry.ClientConfig.CABundle) != string(s.Data["ca.crt"]) {
			return false
		}
	}
	return true
}

// rotate requests a new certificate, as a user does.
func (f *fixture) rotate(t *testing.T, secret string) {
	t.Helper()
	patch := fmt.Sprintf(`{"metadata":{"annotations":{%q:"now"}}}`, certificates.AnnotationRotate)
	_, err := f.Client().CoreV1().Secrets(
		home,
	).Patch(
		t.Context(),
		secret,
		"application/merge-patch+json",
		[]byte(patch),
		metav1.PatchOptions{},
	)
	testkit.Must(t, err)
}

// replica is one pod of the Deployment.
type replica struct {
	name, addr, health string
	stop               context.CancelFunc
	done               chan error
}

// start runs a replica, and makes it an endpoint when it is ready. A late replica gets changes of the Secret
// some seconds after the others.
func (f *fixture) start(t *testing.T, name string, late bool) *replica {
	t.Helper()
	config := rest.CopyConfig(f.config)
	if late {
		config.Wrap(func(next http.RoundTripper) http.RoundTripper { return slow{next} })
	}
	r := &replica{name: name, addr: testkit.FreeAddrOn(t, f.address), health: testkit.FreeAddr(t), done: make(chan error, 1)}
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() {
		r.done <- webhook.Run(ctx, webhook.Options{
			Addr: r.addr, HealthAddr: r.health, MetricsAddr: testkit.FreeAddr(t), PolicyFile: f.policyFile, Image: image,
			CertSecret: secret, Service: service, Namespace: home, CertTiming: timing, DrainDelay: 5 * time.Second,
			RESTConfig: config, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)).With("replica", name),
		})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-r.done; err != nil {
			t.Errorf("replica %s: %v", name, err)
		}
		close(r.done)
	})
	testkit.Eventually(t, name+" is ready", func() bool { return r.ready() == nil })
	testkit.Must(t, f.Endpoint(t.Context(), home, name, service, portName, r.addr))
	f.join(r.addr)
	return r
}

// slow is a connection that delays changes of the Secret.
type slow struct{ next http.RoundTripper }

func (s slow) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := s.next.RoundTrip(r)
	if strings.Contains(r.URL.Path, "/secrets/") && r.Method == http.MethodGet {
		time.Sleep(3 * time.Second)
	}
	return answer, err
}

// end deletes a replica like a pod: it is asked to stop, and its endpoint is removed at the same time.
func (f *fixture) end(t *testing.T, r *replica) {
	t.Helper()
	f.leave(r.addr)
	r.stop()
	testkit.Must(t, f.Client().DiscoveryV1().EndpointSlices(home).Delete(t.Context(), r.name, metav1.DeleteOptions{}))
	testkit.Must(t, <-r.done)
	r.done <- nil
}

// ready returns the reason why the replica is not ready; nil if it is.
func (r *replica) ready() error {
	_, err := testkit.Get(context.Background(), "http://"+r.health+"/readyz")
	return err
}

// admit creates a Prometheus pod, and reports whether it is injected.
func (f *fixture) admit(ctx context.Context, dry bool) (bool, error) {
	o := metav1.CreateOptions{}
	if dry {
		o.DryRun = []string{metav1.DryRunAll}
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{GenerateName: "prometheus-"}, Spec: webhooktest.Prometheus(account)}
	created, err := f.Client().CoreV1().Pods(tenant).Create(ctx, pod, o)
	if err != nil {
		return false, err
	}
	return webhooktest.Injected(created), nil
}

// eventuallyInjected waits until the API server has read the Service and the bundle.
func (f *fixture) eventuallyInjected(t *testing.T) {
	t.Helper()
	testkit.Eventually(t, "pods are injected", func() bool {
		injected, err := f.admit(t.Context(), true)
		testkit.Must(t, err)
		return injected
	})
}

// These match the API server's own counters of its calls to the webhook's entries.
var (
	calls = regexp.MustCompile(
		`(?m)^apiserver_admission_webhook_request_total\{[^}]*name="pods-enabled\.webhook\.ampbridge\.io"[^}]*\} ([0-9]+)$`,
	)
	failures = regexp.MustCompile(
		`(?m)^apiserver_admission_webhook_(?:rejection_count|fail_open_count)\{[^}]*name="pods-enabled\.webhook\.ampbridge\.io"[^}]*\} ([0-9]+)$`,
	)
)

func (f *fixture) count(t *testing.T, what *regexp.Regexp) (n int) {
	t.Helper()
	text, err := f.Metrics(t.Context())
	testkit.Must(t, err)
	for _, match := range what.FindAllStringSubmatch(text, -1) {
		count, err := strconv.Atoi(match[1])
		testkit.Must(t, err)
		n += count
	}
	return n
}

func nodeAddress(t *testing.T) string {
	t.Helper()
	address, err := cluster.Address()
	testkit.Must(t, err)
	return address
}

// only selects one object by its name.
func only(name string) metav1.ListOptions {
	return metav1.ListOptions{FieldSelector: "metadata.name=" + name}
}

func (f *fixture) createSecret(t *testing.T, name string, data map[string][]byte) {
	t.Helper()
	object := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"helm": "yes"}}, Data: data}
	_, err := f.Client().CoreV1().Secrets(home).Create(t.Context(), object, metav1.CreateOptions{})
	testkit.Must(t, err)
}

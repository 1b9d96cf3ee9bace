package certmanager_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/cert-manager/cert-manager/pkg/controller"
	"github.com/cert-manager/cert-manager/pkg/controller/cainjector"
	"github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/approver"
	crca "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/ca"
	crselfsigned "github.com/cert-manager/cert-manager/pkg/controller/certificaterequests/selfsigned"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/issuing"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/keymanager"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/readiness"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/requestmanager"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/revisionmanager"
	"github.com/cert-manager/cert-manager/pkg/controller/certificates/trigger"
	"github.com/cert-manager/cert-manager/pkg/controller/issuers"
	_ "github.com/cert-manager/cert-manager/pkg/issuer/ca"         // registers the kind of issuer
	_ "github.com/cert-manager/cert-manager/pkg/issuer/selfsigned" // and this one
	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/webhooktest"
	"github.com/ampbridge/ampbridge/webhook"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

// The names of testdata.
const (
	home      = "ampbridge-system"
	service   = "ampbridge-webhook"
	tlsSecret = "ampbridge-webhook-cert"
	caSecret  = "ampbridge-webhook-ca"
)

const (
	tenant  = "monitoring"
	account = "prometheus"
)

// fixture is an API server that knows cert-manager's kinds.
type fixture struct {
	*cluster.Cluster
	client client.Client
	addr   string // the webhook's
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{Cluster: cluster.Start(t, cluster.Options{}), addr: testkit.FreeAddrOn(t, nodeAddress(t))}
	kinds := runtime.NewScheme()
	testkit.Must(t, scheme.AddToScheme(kinds))
	testkit.Must(t, cmapi.AddToScheme(kinds))
	var err error
	f.client, err = client.New(f.Config(), client.Options{Scheme: kinds})
	testkit.Must(t, err)
	module := testkit.Exec(t, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/cert-manager/cert-manager")
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(module), "deploy", "crds", "cert-manager.io_*.yaml"))
	testkit.Must(t, err)
	if len(files) == 0 {
		t.Fatal("the module of cert-manager has no CRDs")
	}
	f.apply(t, files...)
	testkit.Eventually(t, "its kinds are served", func() bool {
		var certificates cmapi.CertificateList
		var issuers cmapi.IssuerList
		var requests cmapi.CertificateRequestList
		var clusterIssuers cmapi.ClusterIssuerList
		return errors.Join(f.client.List(t.Context(), &certificates), f.client.List(t.Context(), &issuers),
			f.client.List(t.Context(), &requests), f.client.List(t.Context(), &clusterIssuers)) == nil
	})
	testkit.Must(t, f.Namespace(t.Context(), home, nil))
	testkit.Must(t, f.Namespace(t.Context(), tenant, map[string]string{policy.LabelInjection: string(policy.InjectionEnabled)}))
	testkit.Must(t, f.ServiceAccount(t.Context(), tenant, account))
	return f
}

// apply creates the objects of YAML files.
func (f *fixture) apply(t *testing.T, files ...string) {
	t.Helper()
	for _, file := range files {
		for document := range strings.SplitSeq(testkit.ReadFile(t, file), "\n---\n") {
			object := &unstructured.Unstructured{}
			testkit.Must(t, yaml.Unmarshal([]byte(document), &object.Object))
			if len(object.Object) > 0 {
				testkit.Must(t, f.client.Create(t.Context(), object))
			}
		}
	}
}

// startCertManager runs the controllers that issue certificates, and the one
// that injects bundles, as cert-manager's own commands put them together.
func (f *fixture) startCertManager(t *testing.T) {
	t.Helper()
	ctrl.SetLogger(logr.FromSlogHandler(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})))
	testkit.Run(t, "cert-manager", func(ctx context.Context) error {
		factory, err := controller.NewContextFactory(ctx, controller.ContextOptions{
			Kubeconfig: f.Kubeconfig(),
			CertificateOptions: controller.CertificateOptions{
				CertificateRequestMinimumBackoffDuration: time.Second, CertificateRequestMaximumBackoffDuration: time.Minute,
			},
		})
		if err != nil {
			return err
		}
		var group errgroup.Group
		for _, name := range []string{
			issuers.ControllerName, approver.ControllerName, crca.CRControllerName, crselfsigned.CRControllerName,
			trigger.ControllerName, keymanager.ControllerName, requestmanager.ControllerName, issuing.ControllerName, readiness.ControllerName,
			revisionmanager.ControllerName,
		} {
			c, err := controller.Known()[name](factory)
			if err != nil {
				return err
			}
			group.Go(func() error { return c.Run(1, ctx) })
		}
		shared, err := factory.Build()
		if err != nil {
			return err
		}
		shared.SharedInformerFactory.Start(ctx.Done())
		shared.KubeSharedInformerFactory.Start(ctx.Done())
		shared.HTTP01ResourceMetadataInformersFactory.Start(ctx.Done())
		return group.Wait()
	})
	testkit.Run(t, "cainjector", func(ctx context.Context) error {
		config := f.Config()
		config.UserAgent = "cert-manager-cainjector" // the name under which it applies
		manager, err := ctrl.NewManager(config, ctrl.Options{
			Scheme: f.client.Scheme(), Metrics: server.Options{BindAddress: "0"},
			// As cainjector does: Secrets are read live.
			Client: client.Options{Cache: &client.CacheOptions{DisableFor: []client.Object{&corev1.Secret{}}}},
		})
		if err != nil {
			return err
		}
		if err := cainjector.RegisterAllInjectors(ctx, manager, cainjector.SetupOptions{
			EnableCertificatesDataSource: true,
			EnabledReconcilersFor:        map[string]bool{cainjector.MutatingWebhookConfigurationName: true},
		}); err != nil {
			return err
		}
		return manager.Start(ctx)
	})
}

// register makes the Service with its endpoint, and the configuration with
// cert-manager's annotation.
func (f *fixture) register(t *testing.T) {
	t.Helper()
	const portName = "webhook"
	testkit.Must(t, f.client.Create(t.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: home,
			Name:      service,
		},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: portName, Port: 443}}},
	}))
	testkit.Must(t, f.Endpoint(t.Context(), home, service, service, portName, f.addr))
	object, err := registration.New(registration.Options{
		ClientConfig: admissionv1.WebhookClientConfig{
			Service: &admissionv1.ServiceReference{Namespace: home, Name: service},
		},
		ExcludedNamespaces: []string{home},
	})
	testkit.Must(t, err)
	object.Annotations = map[string]string{cmapi.WantInjectAnnotation: home + "/" + tlsSecret}
	testkit.Must(t, f.client.Create(t.Context(), object))
}

// startWebhook runs the webhook, with the Secret as the kubelet mounts it.
func (f *fixture) startWebhook(t *testing.T) {
	t.Helper()
	dir, policyFile := t.TempDir(), filepath.Join(t.TempDir(), "policy.yaml")
	testkit.WriteFile(t, policyFile, policytest.Granting(account, tenant))
	testkit.Run(t, "kubelet", func(ctx context.Context) error {
		for ; ctx.Err() == nil; sleep(ctx, 500*time.Millisecond) {
			var secret corev1.Secret
			if err := f.client.Get(ctx, client.ObjectKey{Namespace: home, Name: tlsSecret}, &secret); err != nil {
				continue
			}
			files := map[string]testkit.VolumeFile{}
			for name, data := range secret.Data {
				files[name] = testkit.VolumeFile{Data: data, Mode: 0o600}
			}
			if err := testkit.WriteVolume(dir, files); err != nil {
				return err
			}
		}
		return nil
	})
	webhooktest.Run(t, webhook.Options{Addr: f.addr, CertDir: dir, PolicyFile: policyFile, RESTConfig: f.Config()})
}

// served is the certificate that the webhook shows now.
func (f *fixture) served(t *testing.T) []byte {
	t.Helper()
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", f.addr, &tls.Config{InsecureSkipVerify: true})
	testkit.Must(t, err)
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates[0].Raw
}

// bundle is what all entries of the configuration trust; nil: not the same.
func (f *fixture) bundle(t *testing.T) []byte {
	t.Helper()
	var object admissionv1.MutatingWebhookConfiguration
	testkit.Must(t, f.client.Get(t.Context(), client.ObjectKey{Name: registration.DefaultName}, &object))
	bundle := object.Webhooks[0].ClientConfig.CABundle
	for _, entry := range object.Webhooks {
		if !bytes.Equal(entry.ClientConfig.CABundle, bundle) {
			return nil
		}
	}
	return bundle
}

// admit creates a Prometheus, dry, and tells whether it is injected.
func (f *fixture) admit(t *testing.T) bool {
	t.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: tenant, GenerateName: "prometheus-"},
		Spec:       webhooktest.Prometheus(account),
	}
	testkit.Must(t, f.client.Create(t.Context(), pod, client.DryRunAll))
	return webhooktest.Injected(pod)
}

func nodeAddress(t *testing.T) string {
	t.Helper()
	address, err := cluster.Address()
	testkit.Must(t, err)
	return address
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

package webhook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/rest"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"
	ctrlmetrics "sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/policyfile"
	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/certificates"
	"github.com/ampbridge/ampbridge/webhook/health"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

// Options configure [Run].
type Options struct {
	// Addr is where the API server calls the webhook over TLS, as host:port. The host may be empty.
	// The default is ":9443".
	Addr string
	// HealthAddr serves /healthz and /readyz. The default is ":8081".
	HealthAddr string
	// MetricsAddr serves /metrics. The default is ":8080".
	MetricsAddr string
	// CertDir is the directory with tls.crt and tls.key in PEM. A new certificate is used
	// immediately. Until the first one exists, the webhook waits and is not ready.
	CertDir string
	// CertSecret can be set instead of CertDir. It is the name of the Secret in Namespace in which
	// the webhook stores certificates that it creates, see package certificates.
	CertSecret string
	// Service is the Service in Namespace that the API server calls. It is needed with CertSecret.
	Service string
	// WebhookConfiguration is the name of the MutatingWebhookConfiguration, and of the policy's
	// ValidatingWebhookConfiguration. With CertSecret the webhook writes its CA bundle into both.
	// The default is [registration.DefaultName].
	WebhookConfiguration string
	// ClientCA is a PEM file with the CA of the API servers' client certificates. Clients without
	// such a certificate get no answer. A new version of the file is used immediately. If empty, no
	// client certificate is requested.
	ClientCA string
	// ClientNames are the accepted common names and DNS names of client certificates, with
	// ClientCA. If empty, any name is accepted.
	ClientNames []string
	// CertTiming is for tests; the zero value is for production.
	CertTiming certificates.Timing
	// PolicyFile is the file with the policy, see [policyfile.Watcher].
	PolicyFile string
	// Image is the sidecar image for policies that name none.
	Image string
	// DrainDelay is how long the webhook still serves after it was asked to stop. It is not ready
	// during that time, so every API server learns that it stops. If 0, there is no delay.
	DrainDelay time.Duration
	// RESTConfig is the connection to the API server.
	RESTConfig *rest.Config
	// Namespace is ampbridge's own namespace, with the circuit breaker's state, the copy of the
	// last good policy, and the webhook's Service and Secret. If empty, there is no breaker and no
	// copy.
	Namespace string
	// Cluster, if set, is used instead of the API server.
	Cluster Cluster
	// Logger is the webhook's logger. The default is [slog.Default].
	Logger *slog.Logger

	breaker  func(context.Context) (breaker.State, error)
	accepted policyfile.Store
}

// shutdownTimeout limits the shutdown of the health and metrics servers.
const shutdownTimeout = 5 * time.Second

func (o *Options) setDefaults() error {
	for _, f := range []struct {
		field    *string
		standard string
	}{{&o.Addr, ":9443"}, {&o.HealthAddr, ":8081"}, {&o.MetricsAddr, ":8080"}, {&o.WebhookConfiguration, registration.DefaultName}} {
		if *f.field == "" {
			*f.field = f.standard
		}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	needed := []struct{ name, value string }{{"PolicyFile", o.PolicyFile}, {"Image", o.Image}}
	if o.CertSecret != "" {
		needed = append(needed, struct{ name, value string }{"Service", o.Service}, struct{ name, value string }{"Namespace", o.Namespace})
	}
	for _, f := range needed {
		if f.value == "" {
			return fmt.Errorf("webhook: %s is not set", f.name)
		}
	}
	switch {
	case (o.CertDir == "") == (o.CertSecret == ""):
		return errors.New("webhook: set either CertDir or CertSecret")
	case o.CertSecret != "" && o.RESTConfig == nil:
		return errors.New("webhook: RESTConfig is not set, and CertSecret needs it")
	}
	if o.Cluster != nil {
		return nil
	}
	if o.RESTConfig == nil {
		return errors.New("webhook: neither RESTConfig nor Cluster is set")
	}
	var err error
	if o.Cluster, err = Kubernetes(o.RESTConfig); err != nil || o.Namespace == "" {
		return err
	}
	if o.breaker, err = BreakerIn(o.RESTConfig, o.Namespace); err != nil {
		return err
	}
	o.accepted, err = AcceptedIn(o.RESTConfig, o.Namespace)
	return err
}

// Run serves the webhook until the context ends, and then until the requests in flight have ended.
// It returns an error if it cannot listen.
func Run(ctx context.Context, o Options) error {
	if err := o.setDefaults(); err != nil {
		return err
	}
	ctrllog.SetLogger(logr.FromSlogHandler(o.Logger.Handler()))
	registry := prometheus.NewRegistry()
	metrics := NewMetrics(registry)
	source := WatchPolicy(o.PolicyFile, o.accepted, metrics, o.Logger)
	certificate, err := o.certificate(registry)
	if err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	a := &app{Options: o, source: source, certificate: certificate, handlers: Dependencies{
		Policy:  source.Current,
		Cluster: o.Cluster,
		Breaker: o.breaker,
		Image:   o.Image,
		Metrics: metrics,
		Logger:  o.Logger,
		Intake:  NewIntake(),
	}}

	if o.ClientCA != "" {
		if a.clients, err = newClientCA(o.ClientCA, o.ClientNames, o.Logger); err != nil {
			return fmt.Errorf("webhook: %w", err)
		}
	}

	// The webhook server runs longer than ctx, for the drain delay and the requests in flight. The
	// health and metrics servers run a little longer than the webhook server.
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	observing, stopObserving := context.WithCancel(context.WithoutCancel(ctx))
	defer stopServing()
	group, failing := errgroup.WithContext(context.WithoutCancel(ctx))
	group.Go(func() error {
		defer stopServing()
		select {
		case <-failing.Done():
		case <-ctx.Done():
			o.Logger.Info("draining", "delay", o.DrainDelay)
			a.draining.Store(true)
			sleep(failing, o.DrainDelay)
		}
		return nil
	})
	group.Go(func() error {
		defer stopObserving()
		return a.serveWebhook(serving)
	})
	group.Go(func() error { source.Follow(serving); return nil })
	if o.accepted != nil {
		group.Go(func() error { source.Persist(serving); return nil })
	}
	group.Go(func() error { return serve(observing, "health", o.HealthAddr, health.Handler(a.ready)) })
	group.Go(func() error { return serve(observing, "metrics", o.MetricsAddr, metricsHandler(registry)) })
	return group.Wait()
}

// certificate is the webhook's serving certificate.
type certificate interface {
	// Run renews the certificate until the context ends.
	Run(context.Context) error
	// Loaded returns a channel that is closed when the first certificate is loaded.
	Loaded() <-chan struct{}
	GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Ready returns the reason why the certificate cannot be used yet.
	Ready() error
}

func (o *Options) certificate(registry prometheus.Registerer) (certificate, error) {
	if o.CertDir != "" {
		return certificates.NewDirectory(o.CertDir, registry, o.Logger), nil
	}
	return certificates.NewRotator(certificates.Options{
		Namespace: o.Namespace, Secret: o.CertSecret, Service: o.Service, Configuration: o.WebhookConfiguration,
		RESTConfig: o.RESTConfig, Timing: o.CertTiming, Registry: registry, Logger: o.Logger,
	})
}

// app is a running webhook.
type app struct {
	Options
	source      *policyfile.Watcher
	certificate certificate
	handlers    Dependencies
	// clients verifies client certificates; nil if none are requested.
	clients  *clientCA
	draining atomic.Bool
	// listening is true after the server has started to listen.
	listening atomic.Bool
}

func (a *app) serveWebhook(ctx context.Context) error {
	_, port, err := net.SplitHostPort(a.Addr)
	number, numberErr := strconv.Atoi(port)
	if err != nil || numberErr != nil || number < 1 {
		return fmt.Errorf("webhook: Addr %q: want host:port, with a port of 1 or more", a.Addr)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return a.certificate.Run(ctx) })
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return nil // the context ended before the first certificate
		case <-a.certificate.Loaded():
		}
		secure := &tls.Config{
			MinVersion:     tls.VersionTLS12,
			GetCertificate: a.certificate.GetCertificate,
			NextProtos:     []string{"h2", "http/1.1"},
		}
		if a.clients != nil {
			a.clients.require(secure)
		}
		server := newServer(a.paths(), maxConnections)
		server.ErrorLog = slog.NewLogLogger(a.Logger.Handler(), slog.LevelInfo)
		return listenError("serve "+a.Addr, listenAndServe(ctx, server, a.Addr, secure, drainTimeout, func() { a.listening.Store(true) }))
	})
	return group.Wait()
}

// paths returns the handlers by path.
func (a *app) paths() http.Handler {
	mux := http.NewServeMux()
	for _, injection := range []policy.Injection{policy.InjectionEnabled, policy.InjectionAnnotated} {
		mux.Handle(registration.PodPath+string(injection), a.closeOnDrain(PodHandler(injection, a.handlers)))
		mux.Handle(registration.ServiceAccountPath+string(injection), a.closeOnDrain(ServiceAccountHandler(injection, a.handlers)))
	}
	mux.Handle(registration.PolicyPath, a.closeOnDrain(PolicyHandler(filepath.Base(a.PolicyFile), a.handlers)))
	return mux
}

// closeOnDrain makes clients close their connections while the webhook drains. Otherwise a client
// could send a request on an idle connection at the moment of the shutdown.
func (a *app) closeOnDrain(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// ready returns an error that lists everything that is missing.
func (a *app) ready() error {
	serving := a.certificate.Ready()
	if serving == nil && !a.listening.Load() {
		serving = errors.New("the server is not listening yet")
	}
	var draining error
	if a.draining.Load() {
		draining = errors.New("the webhook is shutting down")
	}
	return errors.Join(policyReady(a.source), serving, draining)
}

// metricsHandler serves the webhook's own metrics and the metrics of its libraries.
func metricsHandler(own *prometheus.Registry) http.Handler {
	for _, c := range []prometheus.Collector{collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		// An error means that another part of the process has registered it already.
		_ = ctrlmetrics.Registry.Register(c)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(prometheus.Gatherers{own, ctrlmetrics.Registry}, promhttp.HandlerOpts{
		// Compression takes about a megabyte of memory for each scrape.
		DisableCompression: true, MaxRequestsInFlight: 2,
	}))
	return mux
}

// serve serves plain HTTP until the context ends.
func serve(ctx context.Context, name, addr string, handler http.Handler) error {
	return listenError(name, listenAndServe(ctx, newServer(handler, maxObservers), addr, nil, shutdownTimeout, nil))
}

// sleep waits for d, or until the context ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

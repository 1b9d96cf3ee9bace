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
	"github.com/ampbridge/ampbridge/webhook/registration"
)

// Options configure [Run].
type Options struct {
	// Addr is where the API server calls the webhook, over TLS, as host:port; the
	// host may be empty. Default ":9443".
	Addr string
	// HealthAddr serves /healthz and /readyz. Default ":8081".
	HealthAddr string
	// MetricsAddr serves /metrics. Default ":8080".
	MetricsAddr string
	// CertDir holds tls.crt and tls.key, PEM; new ones are served as soon as they
	// are there. Until the first are, the webhook waits and is not ready.
	CertDir string
	// CertSecret, instead of CertDir, is the name of the Secret in Namespace in
	// which the webhook keeps certificates of its own; see package certificates.
	CertSecret string
	// Service in Namespace is what the API server calls, with CertSecret.
	Service string
	// WebhookConfiguration is the name of the MutatingWebhookConfiguration, and of
	// the policy's ValidatingWebhookConfiguration, that are given the CA bundle, with
	// CertSecret. Default [registration.DefaultName].
	WebhookConfiguration string
	// ClientCA is a file with the CA, PEM, that signs the API servers' client
	// certificate. Clients without a certificate of it get no answer. A new version of
	// the file is used at once. Empty: no client certificate is asked for.
	ClientCA string
	// ClientNames are the common or DNS names that the client certificate may have,
	// with ClientCA. Empty: any.
	ClientNames []string
	// CertTiming is for tests; the zero value is for use.
	CertTiming certificates.Timing
	// PolicyFile is the policy; see [policyfile.Watcher].
	PolicyFile string
	// Image is the config sidecar's, for policies that name none.
	Image string
	// DrainDelay is how long a webhook that is told to end goes on serving, while
	// it is not ready, so that every API server hears that it leaves. 0: not at all.
	DrainDelay time.Duration
	// RESTConfig says how to reach the API server.
	RESTConfig *rest.Config
	// Namespace is ampbridge's own, where the circuit breaker's state is, the copy of
	// the last good policy, and the webhook's Service and Secret. Empty: there is
	// neither breaker nor copy.
	Namespace string
	// Cluster, if set, is asked instead of the API server.
	Cluster Cluster
	// Logger takes the webhook's log. Default [slog.Default].
	Logger *slog.Logger

	breaker  func(context.Context) (breaker.State, error)
	accepted policyfile.Store
}

// shutdownTimeout bounds the health and metrics servers' end.
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

// Run serves the webhook until the context ends, and then for as long as
// requests are in flight. It fails when it cannot listen.
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

	// What serves lives longer than ctx, by the drain delay and by the requests
	// in flight; what others read of it, by a little more.
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
	group.Go(func() error { return serve(observing, "health", o.HealthAddr, a.health()) })
	group.Go(func() error { return serve(observing, "metrics", o.MetricsAddr, metricsHandler(registry)) })
	return group.Wait()
}

// certificate is the one that the webhook serves.
type certificate interface {
	// Run keeps it fresh until the context ends.
	Run(context.Context) error
	// Loaded is closed once there is one.
	Loaded() <-chan struct{}
	GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// Ready says why it is of no use yet.
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

// app is one running webhook.
type app struct {
	Options
	source      *policyfile.Watcher
	certificate certificate
	handlers    Dependencies
	// clients verifies client certificates; nil: none are asked for.
	clients  *clientCA
	draining atomic.Bool
	// listening is true once the API server can connect.
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
			return nil // ended while it waited
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

// paths are the handlers at their paths.
func (a *app) paths() http.Handler {
	mux := http.NewServeMux()
	for _, injection := range []policy.Injection{policy.InjectionEnabled, policy.InjectionAnnotated} {
		mux.Handle(registration.PodPath+string(injection), a.closeOnDrain(PodHandler(injection, a.handlers)))
		mux.Handle(registration.ServiceAccountPath+string(injection), a.closeOnDrain(ServiceAccountHandler(injection, a.handlers)))
	}
	mux.Handle(registration.PolicyPath, a.closeOnDrain(PolicyHandler(filepath.Base(a.PolicyFile), a.handlers)))
	return mux
}

// closeOnDrain tells clients, once the webhook drains, to close their connections:
// none is then idle at the moment of the shutdown, where a request could cross
// it on its way.
func (a *app) closeOnDrain(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.draining.Load() {
			w.Header().Set("Connection", "close")
		}
		next.ServeHTTP(w, r)
	})
}

// health answers the kubelet.
func (a *app) health() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := a.ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		_, _ = fmt.Fprintln(w, "ok")
	})
	return mux
}

// ready says everything that is missing.
func (a *app) ready() error {
	serving := a.certificate.Ready()
	if serving == nil && !a.listening.Load() {
		serving = errors.New("the server is about to listen")
	}
	var draining error
	if a.draining.Load() {
		draining = errors.New("the webhook is about to end")
	}
	return errors.Join(policyReady(a.source), serving, draining)
}

// metricsHandler serves the webhook's own metrics and those of the libraries.
func metricsHandler(own *prometheus.Registry) http.Handler {
	for _, c := range []prometheus.Collector{collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{})} {
		// An error means that another part of the process was first.
		_ = ctrlmetrics.Registry.Register(c)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(prometheus.Gatherers{own, ctrlmetrics.Registry}, promhttp.HandlerOpts{
		// A compressor takes about a megabyte for each scrape.
		DisableCompression: true, MaxRequestsInFlight: 2,
	}))
	return mux
}

// serve serves plain HTTP until the context ends.
func serve(ctx context.Context, name, addr string, handler http.Handler) error {
	return listenError(name, listenAndServe(ctx, newServer(handler, maxObservers), addr, nil, shutdownTimeout, nil))
}

// sleep returns early when the context ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

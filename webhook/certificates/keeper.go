package certificates

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	admissionclient "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

// Options say what a [Rotator] keeps, and where.
type Options struct {
	// Namespace is that of the Secret and of the Service.
	Namespace string
	// Secret is the name of the Secret that holds the certificates. It need not
	// exist.
	Secret string
	// Service is the name under which the API server calls.
	Service string
	// Configuration is the name of the MutatingWebhookConfiguration, and of the
	// ValidatingWebhookConfiguration that reviews the policy, where there is one.
	// Entries that call the Service are given the bundle; others stay as they are.
	Configuration string
	// RESTConfig says how to reach the API server.
	RESTConfig *rest.Config
	// Timing is for tests; the zero value is for use.
	Timing Timing
	// Registry takes the metrics.
	Registry prometheus.Registerer
	Logger   *slog.Logger
}

const (
	fieldManager = "ampbridge-webhook"
	callTimeout  = 10 * time.Second
	// maxSteps is how many steps follow one another without a pause; a whole
	// rotation has fewer.
	maxSteps   = 10
	firstRetry = time.Second
	maxRetry   = 30 * time.Second
	// publishPause bounds a quarrel with somebody else who writes the bundle.
	publishPause = time.Second
)

// Rotator serves a certificate that the replicas of the webhook keep, together,
// in a Secret.
type Rotator struct {
	*serving
	Options
	secrets        corev1client.SecretInterface
	configurations admissionclient.MutatingWebhookConfigurationInterface
	reviews        admissionclient.ValidatingWebhookConfigurationInterface
	metrics        *rotatorMetrics
	wake           chan struct{}
	started        time.Time

	// These are the loop's own.
	servingPair *Pair
	problems    string
	published   time.Time
	// reviewProblem is the last one with the policy's registration.
	reviewProblem string

	looked  atomic.Pointer[time.Time] // when a look last succeeded
	trusted atomic.Bool               // the served pair, at that look
	problem atomic.Pointer[error]     // of the last pass
}

// NewRotator returns a keeper that has done nothing yet.
func NewRotator(o Options) (*Rotator, error) {
	o.Timing = o.Timing.withDefaults()
	config := rest.CopyConfig(o.RESTConfig)
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	config.UserAgent = fieldManager
	core, err := corev1client.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	admission, err := admissionclient.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("connect to the API server: %w", err)
	}
	return &Rotator{
		serving: newServing(o.Registry), Options: o, metrics: newRotatorMetrics(o.Registry),
		secrets: core.Secrets(o.Namespace), configurations: admission.MutatingWebhookConfigurations(),
		reviews: admission.ValidatingWebhookConfigurations(),
		wake:    make(chan struct{}, 1), started: time.Now(),
	}, nil
}

// Run keeps the certificate until the context ends. Nothing makes it fail: it
// goes on serving what it has, and tries again.
func (k *Rotator) Run(ctx context.Context) error {
	var group errgroup.Group
	group.Go(func() error { k.follow(ctx, k.Secret, k.secrets.Watch); return nil })
	group.Go(func() error { k.follow(ctx, k.Configuration, k.configurations.Watch); return nil })
	group.Go(func() error { k.follow(ctx, k.Configuration, k.reviews.Watch); return nil })
	group.Go(func() error { k.loop(ctx); return nil })
	return group.Wait()
}

func (k *Rotator) loop(ctx context.Context) {
	for retry := firstRetry; ctx.Err() == nil; {
		wait, err := k.pass(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			k.problem.Store(nil)
			wait, retry = min(wait, k.Timing.Resync), firstRetry
		} else {
			k.metrics.errors.Inc()
			if said := k.problem.Swap(&err); said == nil || (*said).Error() != err.Error() {
				k.Logger.Error("keeping the serving certificate", "error", err)
			}
			wait, retry = retry, min(2*retry, maxRetry)
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
		case <-k.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// pass takes the steps that can be taken now, and returns when to look again.
func (k *Rotator) pass(ctx context.Context) (time.Duration, error) {
	for range maxSteps {
		l, err := k.look(ctx)
		if err != nil {
			return 0, err
		}
		k.use(l)
		if err := k.registered(l); err != nil {
			return 0, err
		}
		k.publishReview(ctx, l)
		step := Next(l.state, l.observed, k.Timing)
		if step.Action == Wait {
			return step.After, nil
		}
		if pause := publishPause - time.Since(k.published); step.Action == Publish && pause > 0 {
			return pause, nil
		}
		err = k.apply(ctx, step.Action, l)
		switch {
		case apierrors.IsConflict(err), apierrors.IsNotFound(err):
			k.Logger.Debug("another replica was first", "action", step.Action)
		case err != nil:
			return 0, fmt.Errorf("%s: %w", step.Action, err)
		default:
			k.Logger.Info("serving certificate", "action", step.Action, "secret", k.Secret)
		}
	}
	return firstRetry, nil
}

// look is all that a decision needs, read live.
type look struct {
	secret        *corev1.Secret
	configuration *admissionv1.MutatingWebhookConfiguration
	places        []int
	state         State
	observed      Observed
}

// look reads the configuration before the Secret. Whoever changes what the
// configuration is to hold writes the Secret first; so a state that is out of
// date comes with a configuration that is out of date, and the API server
// refuses what is made of it.
func (k *Rotator) look(ctx context.Context) (*look, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	l := &look{}
	var err error
	l.configuration, err = k.configurations.Get(ctx, k.Configuration, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		l.configuration = nil
	case err != nil:
		return nil, fmt.Errorf("read the MutatingWebhookConfiguration %s: %w", k.Configuration, err)
	}
	l.secret, err = k.secrets.Get(ctx, k.Secret, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		l.secret = nil
	case err != nil:
		return nil, fmt.Errorf("read the Secret %s of namespace %s: %w", k.Secret, k.Namespace, err)
	}
	l.places = ours(l.configuration, k.Namespace, k.Service)
	now := time.Now()
	l.observed = Observed{Now: now, Names: k.names(), Held: k.servingPair, Trusted: bundles(l.configuration, l.places)}
	var problems []string
	l.state, problems, err = decode(l.secret, now)
	if said := fmt.Sprint(problems); said != k.problems {
		k.problems = said
		for _, problem := range problems {
			k.Logger.Warn("part of the Secret is of no use", "secret", k.Secret, "problem", problem)
		}
	}
	if err != nil {
		return nil, err
	}
	k.looked.Store(&now)
	return l, nil
}

// names are those under which an API server may call.
func (k *Rotator) names() []string {
	return []string{k.Service, k.Service + "." + k.Namespace, k.Service + "." + k.Namespace + ".svc"}
}

// use serves what the state says.
func (k *Rotator) use(l *look) {
	if pair := l.state.Serve(l.observed); pair != nil {
		k.servingPair = pair
		if k.serve(pair.served) {
			k.Logger.Info("serving certificate", "action", "serve", "ends", pair.NotAfter())
		}
		l.observed.Held = pair
	}
	k.trusted.Store(l.observed.Trusted.Cover(k.servingPair))
	k.metrics.observe(l.state, k.trusted.Load())
}

// registered: without somebody to call us there is nothing to keep. So a Secret
// that is deleted together with the configuration, as helm uninstall does, is
// not put back by a replica that is still there.
func (k *Rotator) registered(l *look) error {
	switch {
	case l.configuration == nil:
		return fmt.Errorf("there is no MutatingWebhookConfiguration %s: install the chart again, or name the right one with --webhook-configuration", k.Configuration)
	case len(l.places) == 0:
		return fmt.Errorf("no entry of the MutatingWebhookConfiguration %s calls the Service %s of namespace %s: --service and --namespace have to be as the entries name them",
			k.Configuration, k.Service, k.Namespace)
	}
	return nil
}

// apply takes one step, which is one write; a conflict means that another
// replica has taken it, or a better one.
func (k *Rotator) apply(ctx context.Context, action Action, l *look) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if action == Publish {
		return k.publish(ctx, l)
	}
	var fresh *Pair
	var err error
	if action == Generate {
		if fresh, err = Issue(k.names(), l.observed.Now, k.Timing.Life); err != nil {
			return err
		}
	}
	secret := l.secret
	if secret == nil {
		// Applied rather than created, so that the right to create can be confined to
		// this name; and without content, so that replicas cannot harm each other.
		if secret, err = k.secrets.Apply(ctx, shell(k.Namespace, k.Secret), metav1.ApplyOptions{FieldManager: fieldManager}); err != nil {
			return fmt.Errorf("make the Secret %s of namespace %s: %w", k.Secret, k.Namespace, err)
		}
		if len(secret.Data) > 0 {
			return nil // another replica made it, and filled it
		}
	}
	_, err = k.secrets.Update(ctx, encode(l.state.After(action, l.observed, fresh), secret), metav1.UpdateOptions{FieldManager: fieldManager})
	return err
}

func (k *Rotator) publish(ctx context.Context, l *look) error {
	patch, err := bundlePatch(l.configuration.ResourceVersion, l.places, encodeBundle(l.state.Authorities()))
	if err != nil {
		return err
	}
	k.published = time.Now()
	_, err = k.configurations.Patch(ctx, k.Configuration, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	return err
}

// publishReview gives the policy's registration the bundle as well. A rotation
// does not wait for it: without it the policy is not reviewed when it is applied,
// and pods are injected as before.
func (k *Rotator) publishReview(ctx context.Context, l *look) {
	problem := ""
	if err := k.tryPublishReview(ctx, l); err != nil {
		problem = err.Error()
	}
	if problem != "" && problem != k.reviewProblem {
		k.Logger.Warn("the policy is not reviewed when it is applied", "error", problem)
	}
	k.reviewProblem = problem
}

func (k *Rotator) tryPublishReview(ctx context.Context, l *look) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	configuration, err := k.reviews.Get(ctx, k.Configuration, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil // the registration of the review is not installed
	}
	if err != nil {
		return fmt.Errorf("read the ValidatingWebhookConfiguration %s: %w", k.Configuration, err)
	}
	var places []int
	authorities := l.state.Authorities()
	for i, w := range configuration.Webhooks {
		if s := w.ClientConfig.Service; s != nil && s.Namespace == k.Namespace && s.Name == k.Service && !isBundle(w.ClientConfig.CABundle, authorities) {
			places = append(places, i)
		}
	}
	if len(places) == 0 || len(authorities) == 0 {
		return nil
	}
	patch, err := bundlePatch(configuration.ResourceVersion, places, encodeBundle(authorities))
	if err != nil {
		return err
	}
	_, err = k.reviews.Patch(ctx, k.Configuration, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	if apierrors.IsConflict(err) {
		return nil // another replica was first; the watch brings us back
	}
	return err
}

// Ready says why an API server could not call this replica.
func (k *Rotator) Ready() error {
	why := errors.New("the API server has not been asked yet")
	if problem := k.problem.Load(); problem != nil {
		why = *problem
	}
	silent := time.Since(k.lastLook())
	switch {
	case k.current.Load() == nil:
		return fmt.Errorf("no serving certificate is loaded: %w", why)
	case silent > k.Timing.Retirement/2:
		return fmt.Errorf("for %s it could not be seen which certificate to serve: %w", silent.Round(time.Second), why)
	case !k.trusted.Load():
		return fmt.Errorf("the API server does not trust the serving certificate: %w", why)
	}
	return nil
}

func (k *Rotator) lastLook() time.Time {
	if at := k.looked.Load(); at != nil {
		return *at
	}
	return k.started
}

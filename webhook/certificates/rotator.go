package certificates

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	admissionclient "k8s.io/client-go/kubernetes/typed/admissionregistration/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

// Options configures a [Rotator].
type Options struct {
	// Namespace is the namespace of the Secret and of the Service.
	Namespace string
	// Secret is the name of the Secret with the certificates. It need not
	// exist.
	Secret string
	// Service is the name under which the API server calls.
	Service string
	// Configuration is the name of the MutatingWebhookConfiguration, and of the
	// ValidatingWebhookConfiguration for the review of the policy, if there is one.
	// Entries that call the Service get the bundle. Others are not changed.
	Configuration string
	// RESTConfig is for the connection to the API server.
	RESTConfig *rest.Config
	// Timing is for tests; zero means the defaults.
	Timing Timing
	// Registry registers the metrics.
	Registry prometheus.Registerer
	Logger   *slog.Logger
}

const (
	fieldManager = "ampbridge-webhook"
	callTimeout  = 10 * time.Second
	// maxSteps is the number of steps without a pause between them. A whole
	// rotation has fewer.
	maxSteps   = 10
	firstRetry = time.Second
	maxRetry   = 30 * time.Second
	// publishPause limits the rate of writes if another program keeps overwriting the bundle.
	publishPause = time.Second
)

// Rotator serves a certificate that the replicas of the webhook share in a Secret,
// and rotates it.
type Rotator struct {
	*serving
	Options
	secrets        corev1client.SecretInterface
	configurations admissionclient.MutatingWebhookConfigurationInterface
	reviews        admissionclient.ValidatingWebhookConfigurationInterface
	metrics        *rotatorMetrics
	wake           chan struct{}
	started        time.Time

	// Only the loop uses these.
	servingPair *Pair
	problems    string
	published   time.Time
	// reviewProblem is the last problem with the policy's registration.
	reviewProblem string

	observedAt atomic.Pointer[time.Time] // when observe last succeeded
	trusted    atomic.Bool               // whether the served pair was trusted at that time
	problem    atomic.Pointer[error]     // the error of the last pass
}

// NewRotator returns a Rotator. Call Run to start it.
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

// Run serves and rotates the certificate until the context ends. It never fails: after
// an error it continues to serve its certificate, and tries again.
func (r *Rotator) Run(ctx context.Context) error {
	var group errgroup.Group
	group.Go(func() error { r.follow(ctx, r.Secret, r.secrets.Watch); return nil })
	group.Go(func() error { r.follow(ctx, r.Configuration, r.configurations.Watch); return nil })
	group.Go(func() error { r.follow(ctx, r.Configuration, r.reviews.Watch); return nil })
	group.Go(func() error { r.loop(ctx); return nil })
	return group.Wait()
}

func (r *Rotator) loop(ctx context.Context) {
	backoff := newBackoff()
	for ctx.Err() == nil {
		pause, err := r.pass(ctx)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			r.problem.Store(nil)
			pause, backoff = min(pause, r.Timing.Resync), newBackoff()
		} else {
			r.metrics.errors.Inc()
			if logged := r.problem.Swap(&err); logged == nil || (*logged).Error() != err.Error() {
				r.Logger.Error("cannot maintain the serving certificate", "error", err)
			}
			pause = backoff.Step()
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-r.wake:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// newBackoff returns the pauses between failed attempts.
func newBackoff() wait.Backoff {
	return wait.Backoff{Duration: firstRetry, Factor: 2, Steps: math.MaxInt32, Cap: maxRetry}
}

// pass takes all steps that are possible now, and returns when the next pass is due.
func (r *Rotator) pass(ctx context.Context) (time.Duration, error) {
	for range maxSteps {
		l, err := r.observe(ctx)
		if err != nil {
			return 0, err
		}
		r.use(l)
		if err := r.registered(l); err != nil {
			return 0, err
		}
		r.publishReview(ctx, l)
		step := Next(l.state, l.observed, r.Timing)
		if step.Action == Wait {
			return step.After, nil
		}
		if pause := publishPause - time.Since(r.published); step.Action == Publish && pause > 0 {
			return pause, nil
		}
		err = r.apply(ctx, step.Action, l)
		switch {
		case apierrors.IsConflict(err), apierrors.IsNotFound(err):
			r.Logger.Debug("another replica was first", "action", step.Action)
		case err != nil:
			return 0, fmt.Errorf("%s: %w", step.Action, err)
		default:
			r.Logger.Info("serving certificate", "action", step.Action, "secret", r.Secret)
		}
	}
	return firstRetry, nil
}

// snapshot holds everything that a decision needs, read live.
type snapshot struct {
	secret        *corev1.Secret
	configuration *admissionv1.MutatingWebhookConfiguration
	places        []int
	state         State
	observed      Observed
}

// observe reads the configuration before the Secret. A replica that wants to change the
// configuration writes the Secret first. So if the state is outdated, the
// configuration is outdated too, and the API server refuses a write that depends on it.
func (r *Rotator) observe(ctx context.Context) (*snapshot, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	l := &snapshot{}
	var err error
	l.configuration, err = r.configurations.Get(ctx, r.Configuration, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		l.configuration = nil
	case err != nil:
		return nil, fmt.Errorf("read the MutatingWebhookConfiguration %s: %w", r.Configuration, err)
	}
	l.secret, err = r.secrets.Get(ctx, r.Secret, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		l.secret = nil
	case err != nil:
		return nil, fmt.Errorf("read the Secret %s of namespace %s: %w", r.Secret, r.Namespace, err)
	}
	l.places = placesOf(l.configuration, r.Namespace, r.Service)
	now := time.Now()
	l.observed = Observed{Now: now, Names: r.names(), Serving: r.servingPair, Trusted: bundles(l.configuration, l.places)}
	var problems []string
	l.state, problems, err = decode(l.secret, now)
	if text := fmt.Sprint(problems); text != r.problems {
		r.problems = text
		for _, problem := range problems {
			r.Logger.Warn("a part of the Secret cannot be used", "secret", r.Secret, "problem", problem)
		}
	}
	if err != nil {
		return nil, err
	}
	r.observedAt.Store(&now)
	return l, nil
}

// names returns the host names under which an API server may call the webhook.
func (r *Rotator) names() []string {
	return []string{r.Service, r.Service + "." + r.Namespace, r.Service + "." + r.Namespace + ".svc"}
}

// use serves the pair that the state requires.
func (r *Rotator) use(l *snapshot) {
	if pair := l.state.Serve(l.observed); pair != nil {
		r.servingPair = pair
		if r.serve(pair.served) {
			r.Logger.Info("serving certificate", "action", "serve", "ends", pair.NotAfter())
		}
		l.observed.Serving = pair
	}
	r.trusted.Store(l.observed.Trusted.Cover(r.servingPair))
	r.metrics.record(l.state, r.trusted.Load())
}

// registered returns an error if no entry of the configuration calls the Service:
// then no certificate is needed. helm uninstall deletes the Secret and the configuration, and a
// replica that still runs must not create the Secret again.
func (r *Rotator) registered(l *snapshot) error {
	switch {
	case l.configuration == nil:
		return fmt.Errorf(
			"there is no MutatingWebhookConfiguration %s: install the chart again, or name the right one with "+
				"--webhook-configuration",
			r.Configuration,
		)
	case len(l.places) == 0:
		return fmt.Errorf(
			"no entry of the MutatingWebhookConfiguration %s calls the Service %s of namespace %s: "+
				"--service and --system-namespace must be "+
				"as the entries name them",
			r.Configuration,
			r.Service,
			r.Namespace,
		)
	}
	return nil
}

// apply takes one step, which is one write. A conflict means that another
// replica has taken this step or a later one.
func (r *Rotator) apply(ctx context.Context, action Action, l *snapshot) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if action == Publish {
		return r.publish(ctx, l)
	}
	var fresh *Pair
	var err error
	if action == Generate {
		if fresh, err = Issue(r.names(), l.observed.Now, r.Timing.Life); err != nil {
			return err
		}
	}
	secret := l.secret
	if secret == nil {
		// Use apply and not create, so that RBAC can limit the right to create to
		// this name. Apply it without content, so that replicas cannot overwrite each other.
		if secret, err = r.secrets.Apply(ctx, shell(r.Namespace, r.Secret), metav1.ApplyOptions{FieldManager: fieldManager}); err != nil {
			return fmt.Errorf("make the Secret %s of namespace %s: %w", r.Secret, r.Namespace, err)
		}
		if len(secret.Data) > 0 {
			return nil // another replica has created and filled it
		}
	}
	_, err = r.secrets.Update(
		ctx,
		encode(l.state.After(action, l.observed, fresh), secret),
		metav1.UpdateOptions{FieldManager: fieldManager},
	)
	return err
}

func (r *Rotator) publish(ctx context.Context, l *snapshot) error {
	patch, err := bundlePatch(l.configuration.ResourceVersion, l.places, encodeBundle(l.state.Authorities()))
	if err != nil {
		return err
	}
	r.published = time.Now()
	_, err = r.configurations.Patch(ctx, r.Configuration, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	return err
}

// publishReview puts the bundle into the policy's registration too. A rotation
// does not wait for it: without the registration, a new policy is not reviewed when it is applied,
// and pods are injected as before.
func (r *Rotator) publishReview(ctx context.Context, l *snapshot) {
	problem := ""
	if err := r.tryPublishReview(ctx, l); err != nil {
		problem = err.Error()
	}
	if problem != "" && problem != r.reviewProblem {
		r.Logger.Warn("the policy is not reviewed when it is applied", "error", problem)
	}
	r.reviewProblem = problem
}

func (r *Rotator) tryPublishReview(ctx context.Context, l *snapshot) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	configuration, err := r.reviews.Get(ctx, r.Configuration, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil // the registration for the review is not installed
	}
	if err != nil {
		return fmt.Errorf("read the ValidatingWebhookConfiguration %s: %w", r.Configuration, err)
	}
	var places []int
	authorities := l.state.Authorities()
	for i, w := range configuration.Webhooks {
		if s := w.ClientConfig.Service; s != nil && s.Namespace == r.Namespace && s.Name == r.Service &&
			!isBundle(w.ClientConfig.CABundle, authorities) {
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
	_, err = r.reviews.Patch(ctx, r.Configuration, types.JSONPatchType, patch, metav1.PatchOptions{FieldManager: fieldManager})
	if apierrors.IsConflict(err) {
		return nil // another replica was first; the watch starts another pass
	}
	return err
}

// Ready returns why an API server cannot call this replica; nil if it can.
func (r *Rotator) Ready() error {
	cause := errors.New("the API server has not been read yet")
	if problem := r.problem.Load(); problem != nil {
		cause = *problem
	}
	silent := time.Since(r.lastObserved())
	switch {
	case r.current.Load() == nil:
		return fmt.Errorf("no serving certificate is loaded: %w", cause)
	case silent > r.Timing.Retirement/2:
		return fmt.Errorf("for %s the webhook could not read which certificate to serve: "+
			"%w", silent.Round(time.Second), cause)
	case !r.trusted.Load():
		return fmt.Errorf("the API server does not trust the serving certificate: %w", cause)
	}
	return nil
}

func (r *Rotator) lastObserved() time.Time {
	if at := r.observedAt.Load(); at != nil {
		return *at
	}
	return r.started
}

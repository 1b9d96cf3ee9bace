package audit

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	appsv1client "k8s.io/client-go/kubernetes/typed/apps/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/breaker/store"
)

// Options configure [Run].
type Options struct {
	// RESTConfig says how to reach the API server; the package's doc lists the
	// rights that its identity needs.
	RESTConfig *rest.Config
	// Policy is asked for the policy in force in each round; nil means that there
	// is none yet, and the round is left out.
	Policy func() *policy.Policy
	// Image is the config sidecar's for policies that name none: the webhook's.
	Image string
	// Namespace is ampbridge's own: it holds the breaker's state, and is never
	// audited.
	Namespace string
	// Excluded are namespaces that the webhook is not called for, whatever their
	// label: none of them is audited.
	Excluded []string
	// Instance tells this process from its replicas, in events. Default "auditor".
	Instance string
	// NoBreaker turns the circuit breaker off.
	NoBreaker bool
	// NoSidecars turns off that the auditor reads the status of config sidecars, at their
	// pods' addresses.
	NoSidecars bool
	// Interval is the time between two rounds. Default 30 s. A round comes earlier
	// where a pod's grace ends.
	Interval time.Duration
	// Grace is how long a pod may hang on the config sidecar. Default 40 s: with
	// the interval, pods are back within two minutes.
	Grace time.Duration
	// PullGrace is that of a sidecar whose image is on its way ([Pulling]), while
	// nothing but that holds its pod. Default 60 s. It must be longer than the image
	// takes where it is slowest, and where others stand in the node's queue before it.
	PullGrace time.Duration
	// Settle is how long a finding must hold before a repair, while a new policy
	// reaches the webhook's replicas and the auditor at different times. Default
	// 2 min.
	Settle time.Duration
	// EvictionInterval is the time between two repairs in the whole cluster, and
	// the least between two of one workload; after a quiet time, [EvictionBurst]
	// come at once. Default 30 s.
	EvictionInterval time.Duration
	// Seen is called at the end of each round that read the pods. Default: nothing is.
	Seen func(Seen)
	// Registry takes the metrics. Default: none.
	Registry prometheus.Registerer
	// Logger takes the log. Default [slog.Default].
	Logger *slog.Logger
}

// EvictionBurst is how many repairs may come at once.
const EvictionBurst = 3

func (o *Options) setDefaults() error {
	if o.RESTConfig == nil || o.Policy == nil || o.Image == "" || o.Namespace == "" {
		return errors.New("audit: RESTConfig, Policy, Image and Namespace must be set")
	}
	for _, f := range []struct {
		field    *time.Duration
		standard time.Duration
	}{{&o.Interval, 30 * time.Second}, {&o.Grace, 40 * time.Second}, {&o.PullGrace, 60 * time.Second}, {&o.Settle, 2 * time.Minute},
		{&o.EvictionInterval, 30 * time.Second}} {
		if *f.field == 0 {
			*f.field = f.standard
		}
	}
	if o.Instance == "" {
		o.Instance = "auditor"
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Registry == nil {
		o.Registry = prometheus.NewRegistry()
	}
	return nil
}

// Run audits, round after round, until the context ends. An error of the API
// server is logged, and the next round tries again; Run itself fails only for
// options that cannot work.
func Run(ctx context.Context, o Options) error {
	if err := o.setDefaults(); err != nil {
		return err
	}
	config := rest.CopyConfig(o.RESTConfig)
	config.UserAgent = "ampbridge-auditor"
	config.QPS, config.Burst = 20, 40 // it is in no hurry, and may have much to look up
	client, err := connect(config)
	if err != nil {
		return fmt.Errorf("audit: connect to the API server: %w", err)
	}
	metrics, err := newMetrics(o.Registry)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	a := &auditor{
		Options: o, cluster: client, metrics: metrics,
		bucket: flowcontrol.NewTokenBucketPassiveRateLimiter(float32(1/o.EvictionInterval.Seconds()), EvictionBurst),
		events: eventRecorder{client: client, instance: o.Instance, sent: map[eventKey]bool{}},
		pace:   pace{o.EvictionInterval, map[breaker.Workload]attempt{}},
		status: newSidecars(),
	}
	if !o.NoBreaker {
		refused, err := newRefusals(o, config)
		if err != nil {
			return fmt.Errorf("audit: connect to the API server: %w", err)
		}
		var group sync.WaitGroup
		defer group.Wait()
		group.Go(func() { refused.watch(ctx) })
		group.Go(func() { refused.work(ctx) })
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		if err := a.round(ctx); err != nil && ctx.Err() == nil {
			o.Logger.Error("audit", "error", shorten(err.Error(), 4000))
		}
		timer.Reset(a.pause(time.Now()))
	}
}

// auditor is what lasts from round to round.
type auditor struct {
	Options
	cluster cluster
	metrics *metrics
	events  eventRecorder
	bucket  flowcontrol.PassiveRateLimiter
	pace    pace
	status  *sidecars
	history history
	// outdated is since when an entry of the breaker is about no pod that is there, or
	// of no revision of today, by its key.
	outdated map[string]outdated
	// accounts is how many service accounts the pods of a namespace had, and rounds
	// how many rounds there were.
	accounts map[string]int
	rounds   int
}

// round looks at every labelled namespace, then acts, and then tells. A namespace
// that cannot be read is left out, and nothing about its pods is forgotten. What
// fails for one holds up nothing else.
func (a *auditor) round(ctx context.Context) error {
	p := a.Policy()
	if p == nil {
		return nil
	}
	namespaces, err := a.cluster.labelled(ctx, append([]string{a.Namespace}, a.Excluded...))
	if err != nil {
		return err
	}
	configMaps := a.cluster.ConfigMaps(a.Namespace)
	state, err := store.Read(ctx, configMaps)
	if err != nil {
		return err
	}
	var pods []observed
	var errs []error
	unread, accounts := map[string]bool{}, map[string]int{}
	a.rounds++
	for name, injection := range namespaces {
		t := window{(a.accounts[name] + accountsPerRound - 1) / accountsPerRound, a.rounds}
		found, n, err := a.cluster.assessNamespace(ctx, name, Question{Policy: p, Image: a.Image, Injection: injection, Breaker: state}, t)
		if err != nil {
			errs = append(errs, err)
			unread[name], accounts[name] = true, a.accounts[name]
			continue
		}
		// What a round leaves out for the next ones is not gone.
		unread[name], accounts[name] = t.share > 1, n
		pods = append(pods, found...)
	}
	a.accounts = accounts
	now := time.Now()
	sortPods(pods)
	a.history.age(pods, now, a.grace, unread)
	a.metrics.found(pods)
	a.events.begin(namespaces)
	var update breakerUpdate
	if !a.NoBreaker {
		update, err = a.updateBreaker(ctx, state, namespaces, pods, now, unread)
		errs = append(errs, err, a.evictStuck(ctx, pods, update, now))
	}
	if p.Audit.Repair == policy.RepairEvict {
		errs = append(errs, a.repair(ctx, pods, now))
	}
	if !a.NoSidecars {
		a.metrics.sidecars(a.status.read(ctx, pods, now))
	}
	// Words come last: they are many where a tenant has many pods.
	a.announce(ctx, update, now)
	errs = append(errs, a.report(ctx, p, pods, unread))
	err = errors.Join(errs...)
	if err == nil {
		a.metrics.lastSuccess.Set(float64(now.Unix()))
	}
	a.see(pods, now, err)
	return err
}

// connect returns a client with a rate limit of its own.
func connect(config *rest.Config) (cluster, error) {
	core, err := corev1client.NewForConfig(config)
	if err != nil {
		return cluster{}, err
	}
	apps, err := appsv1client.NewForConfig(config)
	return cluster{core, apps}, err
}

func (a *auditor) grace(cause policy.Reason) time.Duration {
	if cause == Pulling {
		return a.PullGrace
	}
	return a.Grace
}

// pause is the time until the next round: sooner where a grace ends.
func (a *auditor) pause(now time.Time) time.Duration {
	const least = time.Second
	next := a.Interval
	for _, s := range a.history {
		if s.kind == Hanging {
			// For a while after, too: an eviction may have met a change of the pod.
			if left := s.since.Add(s.grace).Sub(now); left > -s.grace {
				next = min(next, max(left, least))
			}
		}
	}
	return next
}

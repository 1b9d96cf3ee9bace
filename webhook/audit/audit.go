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

// Options configures [Run].
type Options struct {
	// RESTConfig is for the connection to the API server. The package's documentation lists the
	// rights that its identity needs.
	RESTConfig *rest.Config
	// Policy returns the policy in force, and is called in each round. If it returns nil, there
	// is no policy yet, and the round is skipped.
	Policy func() *policy.Policy
	// Image is the webhook's config sidecar, for policies without an image.
	Image string
	// Namespace is ampbridge's own namespace. It has the breaker's state, and is never
	// audited.
	Namespace string
	// Excluded are namespaces that the webhook is not called for, even with the
	// label. They are not audited.
	Excluded []string
	// Instance is the name of this process in events; by default "auditor".
	Instance string
	// NoBreaker turns the circuit breaker off.
	NoBreaker bool
	// NoSidecars stops the auditor from reading the status of config sidecars at their
	// pods' addresses.
	NoSidecars bool
	// Interval is the time between two rounds; 30 s by default. A round starts earlier
	// if the grace period of a pod ends.
	Interval time.Duration
	// Grace is how long a pod may hang on the config sidecar; 40 s by default. With
	// the default interval, pods run again within two minutes.
	Grace time.Duration
	// PullGrace is the grace period for a sidecar with an image that is still being downloaded
	// ([Pulling]), if the pod waits for nothing else; 60 s by default. It must be longer than the
	// slowest download, including the node's queue of other images.
	PullGrace time.Duration
	// Settle is how long a finding must last before a repair; 2 min by default. A new policy
	// reaches the webhook's replicas and the auditor at different times.
	Settle time.Duration
	// EvictionInterval is the time between two repairs in the whole cluster, and
	// the minimum between two of one workload; 30 s by default. After a time without repairs,
	// [EvictionBurst] repairs may follow each other at once.
	EvictionInterval time.Duration
	// Seen is called at the end of each round that read the pods; nil is not called.
	Seen func(Seen)
	// Registry registers the metrics; nil means none.
	Registry prometheus.Registerer
	// Logger writes the log; [slog.Default] by default.
	Logger *slog.Logger
}

// EvictionBurst is the number of repairs that may follow each other at once.
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

// Run audits, round after round, until the context ends. It logs an error of the API
// server and tries again in the next round. Run itself fails only for
// invalid options.
func Run(ctx context.Context, o Options) error {
	if err := o.setDefaults(); err != nil {
		return err
	}
	config := rest.CopyConfig(o.RESTConfig)
	config.UserAgent = "ampbridge-auditor"
	config.QPS, config.Burst = 20, 40 // audits are not urgent, but may read much
	client, err := connect(config)
	if err != nil {
		return fmt.Errorf("audit: connect to the API server: %w", err)
	}
	a := &auditor{
		Options: o, cluster: client, metrics: newMetrics(o.Registry),
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

// auditor is the state between rounds.
type auditor struct {
	Options
	cluster cluster
	metrics *metrics
	events  eventRecorder
	bucket  flowcontrol.PassiveRateLimiter
	pace    pace
	status  *sidecars
	history history
	// outdated records, by an entry's key, since when no existing pod or no current revision
	// matches the entry.
	outdated map[string]outdated
	// accounts is the number of service accounts of the pods in a namespace, and rounds
	// the number of rounds.
	accounts map[string]int
	rounds   int
}

// round reads the pods of every labelled namespace, then acts, and then reports. It skips a
// namespace that cannot be read, and keeps everything about its pods. An error about one pod or
// namespace does not stop the others.
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
		// Pods that this round left for the next rounds still exist.
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
	// Reports come last, because a tenant with many pods causes many.
	a.announce(ctx, update, now)
	errs = append(errs, a.report(ctx, p, pods, unread))
	err = errors.Join(errs...)
	if err == nil {
		a.metrics.lastSuccess.Set(float64(now.Unix()))
	}
	a.see(pods, now, err)
	return err
}

// connect returns a client with its own rate limit.
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

// pause returns the time until the next round, which starts earlier if a grace period ends.
func (a *auditor) pause(now time.Time) time.Duration {
	const least = time.Second
	next := a.Interval
	for _, s := range a.history {
		if s.kind == Hanging {
			// A round also starts shortly after the period has ended, because an eviction may have
			// failed when the pod changed.
			if left := s.since.Add(s.grace).Sub(now); left > -s.grace {
				next = min(next, max(left, least))
			}
		}
	}
	return next
}

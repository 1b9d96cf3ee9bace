package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	ctrllog "sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy/policyfile"
	"github.com/ampbridge/ampbridge/webhook/audit"
)

const (
	// debounce gathers what happens at once, as in a Helm upgrade.
	debounce = 500 * time.Millisecond
	// orphansEvery: one of so many passes looks for orphans, roles that no destination
	// uses. Their list costs a call.
	orphansEvery = 36
)

// Control makes passes until the context ends, in one of the processes that share a
// Lease: when service accounts, namespaces or the policy change, and every
// trust.interval.
func Control(ctx context.Context, o Options, logger *slog.Logger) error {
	cluster, err := kube.Connect(o.Kubeconfig, o.Overrides)
	if err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	c := &controller{
		options:  o,
		cluster:  cluster,
		logger:   logger,
		registry: registry,
		metrics:  newMetrics(registry),
		wake:     make(chan struct{}, 1),
		log:      dedupLog{logger: logger},
	}
	c.policy = watchPolicy(o.Policy, c.metrics, logger, c.trigger)
	c.unsynced.Store(true)
	c.leadership.metric = c.metrics.leaderSeen

	log := logr.FromSlogHandler(logger.Handler())
	ctrllog.SetLogger(log)
	return c.run(logr.NewContext(ctx, log), c.work)
}

// controller is one running sync.
type controller struct {
	options Options
	cluster kube.Cluster
	logger  *slog.Logger
	// registry has the metrics of sync and of the auditor.
	registry *prometheus.Registry
	metrics  *metrics
	policy   *policyfile.Watcher
	log      dedupLog
	// wake holds one wake-up. A second one while it is full is not lost.
	wake chan struct{}
	// leads, unsynced and leadership are for readiness.
	leads, unsynced atomic.Bool
	leadership      leadership
	board           board
}

// trigger asks for a pass soon.
func (c *controller) trigger() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// work makes passes until the context ends.
func (c *controller) work(ctx context.Context) error {
	w, err := newWatch(c.cluster.Config, c.trigger)
	if err != nil {
		return err
	}
	events, stop := newEvents(ctx, c.cluster.Client, w.reference)
	defer stop()
	if err := w.start(ctx); err != nil {
		return nil // the context has ended
	}
	c.unsynced.Store(false)
	defer c.unsynced.Store(true)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.audit(ctx) })
	group.Go(func() error {
		worker := &worker{controller: c, watch: w, events: events}
		sleep(ctx, firstPause(c.policy.Current()))
		for ctx.Err() == nil {
			worker.pass(ctx)
			worker.wait(ctx)
		}
		return nil
	})
	return group.Wait()
}

// audit runs the auditor. Only the process that leads does, so that no two evict.
func (c *controller) audit(ctx context.Context) error {
	if c.options.Image == "" {
		c.logger.Info("the auditor is off: --image tells it which sidecar the webhook injects")
		return nil
	}
	return audit.Run(ctx, audit.Options{
		RESTConfig: c.cluster.Config,
		Policy:     c.policy.Current,
		Image:      c.options.Image,
		Namespace:  c.options.Namespace,
		Excluded:   c.options.Excluded,
		NoBreaker:  c.options.NoBreaker,
		NoSidecars: c.options.NoSidecarStatus,
		PullGrace:  c.options.PullGrace,
		Seen:       c.board.setAudit,
		Registry:   c.registry,
		Logger:     c.logger,
	})
}

// ready returns what is missing: a policy, and the service accounts in the process
// that leads or a live leader in one that stands by.
func (c *controller) ready() error {
	err := policyReady(c.policy)
	switch {
	case !c.leads.Load():
		err = errors.Join(err, c.leadership.leaderless(time.Now()))
	case c.unsynced.Load():
		err = errors.Join(err, errors.New("the service accounts are not known yet"))
	}
	return err
}

// sleep returns early when the context ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

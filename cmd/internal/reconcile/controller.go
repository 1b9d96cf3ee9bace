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
	// debounce collects changes that come together, as in a Helm upgrade, for one pass.
	debounce = 500 * time.Millisecond
	// orphansEvery is the number of passes after which one looks for orphans: roles that no
	// destination uses. Their list costs a call.
	orphansEvery = 36
)

// Control makes passes until the context ends: when service accounts, namespaces or the policy
// change, and every trust.interval. Several processes can run; the one that holds the Lease works.
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
	// wake holds one wake-up. While it is full, another one is not needed.
	wake chan struct{}
	// leads, unsynced and leadership are for the readiness probe.
	leads, unsynced atomic.Bool
	leadership      leadership
	board           board
}

// trigger requests a pass soon.
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

// audit runs the auditor. Only the leader runs it, so that two auditors never evict at once.
func (c *controller) audit(ctx context.Context) error {
	if c.options.Image == "" {
		c.logger.Info("the auditor is off: it needs --image, the sidecar's image that the webhook injects")
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

// ready returns what is missing: a policy, and the known service accounts (in the leader) or
// a live leader (in a process on standby).
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

// sleep returns after d, or earlier if the context ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

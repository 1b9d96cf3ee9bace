package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/util/uuid"
	"sigs.k8s.io/controller-runtime/pkg/manager"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/ampbridge/ampbridge/webhook/health"
)

const (
	// A dead leader is replaced when the lease's duration has ended. A leader that cannot
	// renew its Lease stops before that.
	leaseDuration = 15 * time.Second
	renewDeadline = 10 * time.Second
	renewPeriod   = 2 * time.Second
	// stopAfter is the longest time after its last renewal until a leader stops its work, before
	// another process takes over.
	stopAfter = leaseDuration - renewPeriod
)

// run serves health and metrics until the context ends, and works while this process
// holds the Lease. A manager runs these parts. It releases the Lease only after the
// work has ended, so that two processes never work at once.
//
// This package serves health and metrics itself: the manager's own /readyz does not show
// the reasons, and its /metrics serves the program's one registry.
func (c *controller) run(ctx context.Context, work func(context.Context) error) error {
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	identity := host + "_" + string(uuid.NewUUID())
	c.leadership.newLeader = func(leader string) {
		c.logger.Info("leader", "identity", leader, "self", leader == identity)
	}
	lost := fmt.Errorf("the Lease %s/%s is lost to another process, or cannot be renewed", c.options.Namespace, stateName)
	running, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	lock := newLeaseLock(c.cluster.Client, c.options.Namespace, identity, &c.leadership, c.deposed(func() { stop(lost) }))
	lock.expiry = time.AfterFunc(stopAfter, c.expired(func() { stop(lost) }))
	defer lock.expiry.Stop()
	m, err := c.newManager(ctx, lock)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	leader := &leader{controller: c, running: running, work: work}
	follow := everyProcess(func(ctx context.Context) error { c.policy.Follow(ctx); return nil })
	if err := errors.Join(m.Add(follow), m.Add(leader)); err != nil {
		return err
	}
	servers := []server{
		{"health", c.options.HealthAddr, health.Handler(c.ready)},
		{"metrics", c.options.MetricsAddr, metricsHandler(c.registry)},
	}
	if c.options.StatusAddr != "" {
		servers = append(servers, server{"status page", c.options.StatusAddr, c.statusPage()})
	}
	for _, s := range servers {
		listener, err := s.listen(ctx)
		if err != nil {
			return err
		}
		defer func() { _ = listener.Close() }()
		serve := everyProcess(func(ctx context.Context) error {
			err := s.serve(ctx, listener)
			if err != nil {
				stop(err)
			}
			return err
		})
		if err := m.Add(serve); err != nil {
			return err
		}
	}
	if err := m.Start(running); err != nil {
		stop(fmt.Errorf("%w: %w", lost, err)) // has no effect after a part failed
	}
	stop(lost)
	// After a failed renewal, the manager does not wait for the work, so wait here.
	if failure := leader.wait(); failure != nil || ctx.Err() != nil {
		return failure
	}
	return context.Cause(running)
}

func (c *controller) newManager(ctx context.Context, lock *leaseLock) (manager.Manager, error) {
	return manager.New(c.cluster.Config, manager.Options{
		Logger: logr.FromSlogHandler(electionLog{c.logger.Handler()}),
		// The manager ends its parts one after another. This context must not end them earlier.
		BaseContext:                         func() context.Context { return context.WithoutCancel(ctx) },
		Metrics:                             metricsserver.Options{BindAddress: "0"},
		LeaderElection:                      true,
		LeaderElectionID:                    stateName,
		LeaderElectionResourceLockInterface: lock,
		LeaderElectionReleaseOnCancel:       true,
		LeaseDuration:                       new(leaseDuration),
		RenewDeadline:                       new(renewDeadline),
		RetryPeriod:                         new(renewPeriod),
		// The Lease stays held until the pass has ended, however long that takes.
		GracefulShutdownTimeout: new(time.Duration(-1)),
	})
}

// expired returns a function that stops the work if this process has not renewed the Lease for
// too long. If calls fail, the election stops the work sooner. If calls hang, the election
// waits too long, because it first tries to release the Lease.
func (c *controller) expired(stop func()) func() {
	return func() {
		if c.leads.Load() {
			c.logger.Error("the Lease was not renewed in time", "after", stopAfter.String())
			stop()
		}
	}
}

// deposed returns a function that stops the work at once when another process holds
// the Lease. Without it the work would continue until the renewal's deadline. That can happen
// after the Lease was deleted, if another process creates it again first.
func (c *controller) deposed(stop func()) func(holder string) {
	return func(holder string) {
		if c.leads.Load() {
			c.logger.Error("another process holds the Lease", "holder", holder)
			stop()
		}
	}
}

// leader is the part that works only in the process with the Lease.
type leader struct {
	*controller
	// running ends the work earlier than the manager does.
	running context.Context
	work    func(context.Context) error

	working sync.Mutex
	failure error
}

// Start works until the context or running ends.
func (l *leader) Start(ctx context.Context) error {
	l.working.Lock()
	defer l.working.Unlock()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(l.running, stop)()
	l.leads.Store(true)
	l.metrics.leader.Set(1)
	l.failure = l.work(ctx)
	l.metrics.leader.Set(0)
	l.leads.Store(false)
	return l.failure
}

// NeedLeaderElection makes the manager start the part only in the process with the Lease.
func (l *leader) NeedLeaderElection() bool { return true }

// wait returns the error of the work after it has ended.
func (l *leader) wait() error {
	l.working.Lock()
	defer l.working.Unlock()
	return l.failure
}

// everyProcess is a part that runs in every process until the context ends.
type everyProcess func(context.Context) error

// Start runs the part.
func (run everyProcess) Start(ctx context.Context) error { return run(ctx) }

// NeedLeaderElection makes the manager start it without the Lease.
func (run everyProcess) NeedLeaderElection() bool { return false }

// electionLog passes on messages of the leader election. It drops the manager's own
// messages, because they report internal steps, and call every normal end a lost election.
type electionLog struct{ slog.Handler }

// Handle passes on records of named loggers. The manager's own logger has no name.
func (h electionLog) Handle(ctx context.Context, r slog.Record) error {
	named := false
	r.Attrs(func(a slog.Attr) bool {
		named = a.Key == "logger"
		return !named
	})
	if !named {
		return nil
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs keeps the filter.
func (h electionLog) WithAttrs(attrs []slog.Attr) slog.Handler {
	return electionLog{h.Handler.WithAttrs(attrs)}
}

// WithGroup keeps the filter.
func (h electionLog) WithGroup(name string) slog.Handler {
	return electionLog{h.Handler.WithGroup(name)}
}

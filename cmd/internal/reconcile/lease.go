package reconcile

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycoordinationv1 "k8s.io/client-go/applyconfigurations/coordination/v1"
	applymetav1 "k8s.io/client-go/applyconfigurations/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// leaderSeenFor is how long a leader counts as alive after its last renewal. It
// is longer than the lease's duration, so that a process on standby stays ready while
// another process takes over from a dead leader.
const leaderSeenFor = 2 * leaseDuration

// leaseLock is the Lease that the processes share. The first process creates it, because
// Argo CD never applies a Lease that is in a manifest.
type leaseLock struct {
	resourcelock.LeaseLock
	client kubernetes.Interface
	seen   *leadership
	// deposed is called when another process holds the Lease.
	deposed func(holder string)
	// expiry fires when this process has not renewed the Lease for stopAfter.
	expiry *time.Timer
}

// newLeaseLock returns the lock for the process with that identity.
func newLeaseLock(client kubernetes.Interface, namespace, identity string, seen *leadership, deposed func(holder string)) *leaseLock {
	return &leaseLock{
		LeaseLock: resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: namespace, Name: stateName}, Client: client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		},
		client: client, seen: seen, deposed: deposed,
	}
}

// Get reads the Lease.
func (l *leaseLock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	record, raw, err := l.LeaseLock.Get(ctx)
	switch {
	case apierrors.IsNotFound(err): // the caller then calls Create
	case err != nil:
		l.seen.failed(err)
	default:
		l.seen.observe(*record)
		if record.HolderIdentity != "" && record.HolderIdentity != l.Identity() {
			l.deposed(record.HolderIdentity)
		}
	}
	return record, raw, err
}

// Create creates the Lease and acquires it.
func (l *leaseLock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	err := l.create(ctx, record)
	return l.noted(record, err)
}

// Update renews, acquires or releases the Lease.
func (l *leaseLock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	return l.noted(record, l.LeaseLock.Update(ctx, record))
}

func (l *leaseLock) noted(record resourcelock.LeaderElectionRecord, err error) error {
	switch {
	case err == nil:
		l.expiry.Reset(stopAfter)
		l.seen.observe(record)
	case apierrors.IsConflict(err), apierrors.IsNotFound(err): // the caller then calls Get
	default:
		l.seen.failed(err)
	}
	return err
}

// create creates an empty Lease and then updates it as if it had existed. It
// uses server-side apply, so that RBAC can limit "create" to the name. If two
// processes do this at once, the API server accepts one update.
func (l *leaseLock) create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	lease := applycoordinationv1.Lease(l.LeaseMeta.Name, l.LeaseMeta.Namespace).
		WithLabels(map[string]string{"app.kubernetes.io/name": "ampbridge", "app.kubernetes.io/component": "sync"})
	// The ConfigMap owns the Lease, so that an uninstall, which deletes the ConfigMap, removes both.
	owner, err := l.client.CoreV1().ConfigMaps(l.LeaseMeta.Namespace).Get(ctx, stateName, metav1.GetOptions{})
	switch {
	case err == nil:
		lease.WithOwnerReferences(
			applymetav1.OwnerReference().WithAPIVersion("v1").WithKind("ConfigMap").WithName(owner.Name).WithUID(owner.UID),
		)
	case !apierrors.IsNotFound(err):
		return err
	}
	leases := l.client.CoordinationV1().Leases(l.LeaseMeta.Namespace)
	if _, err := leases.Apply(ctx, lease, metav1.ApplyOptions{FieldManager: stateName}); err != nil {
		return err
	}
	current, _, err := l.Get(ctx)
	if err != nil {
		return err
	}
	if current.HolderIdentity != "" {
		return apierrors.NewConflict(coordinationv1.Resource("leases"), stateName, fmt.Errorf("%s has taken it", current.HolderIdentity))
	}
	return l.LeaseLock.Update(ctx, record)
}

// leadership is what a process knows about the holder of the Lease.
type leadership struct {
	// metric is the time of the holder's last renewal that was seen, in Unix time.
	metric prometheus.Gauge
	mu     sync.Mutex
	record resourcelock.LeaderElectionRecord
	// newLeader is called when another process than before holds the Lease; nil is not called.
	newLeader func(identity string)
	leader    string
	// renewed is when the record last changed, by this process's clock.
	renewed time.Time
	// err is why the Lease could not be read or written; nil if there was no error.
	err error
}

// observe records the current Lease.
func (l *leadership) observe(record resourcelock.LeaderElectionRecord) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = nil
	if record.HolderIdentity != "" && (record.HolderIdentity != l.record.HolderIdentity || !record.RenewTime.Equal(&l.record.RenewTime)) {
		l.renewed = time.Now()
		l.metric.SetToCurrentTime()
	}
	l.record = record
	if record.HolderIdentity != "" && record.HolderIdentity != l.leader {
		l.leader = record.HolderIdentity
		if l.newLeader != nil {
			l.newLeader(l.leader)
		}
	}
}

// failed records that the Lease could not be read or written.
func (l *leadership) failed(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// leaderless returns nil while a live process holds the Lease, and otherwise the reason.
func (l *leadership) leaderless(now time.Time) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.record.HolderIdentity != "" && now.Sub(l.renewed) < leaderSeenFor {
		return nil
	}
	reason := l.err
	switch {
	case reason != nil:
	case l.record.HolderIdentity != "":
		reason = fmt.Errorf("%s holds it and has not renewed it since %s", l.record.HolderIdentity, l.renewed.UTC().Format(time.RFC3339))
	default:
		reason = errors.New("it is free")
	}
	return fmt.Errorf("no process of sync leads: Lease %s: %w", stateName, reason)
}

package reconcile

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kuberuntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/test/testkit"
)

var leaseResource = coordinationv1.SchemeGroupVersion.WithResource("leases")

// process is a controller with the work of the test.
type process struct {
	*testing.T
	*controller
	log testkit.Buffer
	// begun is closed when the work begins, told when it is told to end, and ended when
	// the process has. The work ends when finish is closed.
	begun, told, finish, ended chan struct{}
	failure                    error
	// stop is what SIGTERM does; end lets the work end.
	stop context.CancelFunc
	end  func()
}

// lead starts a process that works, with the Leases of the client.
func lead(t *testing.T, client *fake.Clientset) *process {
	t.Helper()
	policy := testkit.TempFile(t, "policy.yaml", "")
	p := &process{T: t, begun: make(chan struct{}), told: make(chan struct{}), finish: make(chan struct{}), ended: make(chan struct{})}
	registry := prometheus.NewRegistry()
	logger := slog.New(slog.NewJSONHandler(&p.log, nil))
	c := &controller{
		options: Options{Namespace: "ampbridge", Policy: policy, HealthAddr: "127.0.0.1:0", MetricsAddr: "127.0.0.1:0"},
		// The manager connects to no API server for what sync needs of it.
		cluster: kube.Cluster{Config: &rest.Config{Host: "127.0.0.1:1"}, Client: client},
		logger:  logger, registry: registry, metrics: newMetrics(registry), wake: make(chan struct{}, 1),
	}
	c.policy = watchPolicy(policy, c.metrics, logger, c.trigger)
	c.leadership.metric = c.metrics.leaderSeen
	p.controller = c
	p.end = sync.OnceFunc(func() { close(p.finish) })
	ctx, stop := context.WithCancel(t.Context())
	p.stop = stop
	go func() {
		defer close(p.ended)
		p.failure = c.run(ctx, func(ctx context.Context) error {
			close(p.begun)
			<-ctx.Done()
			close(p.told)
			<-p.finish
			return nil
		})
	}()
	t.Cleanup(func() { stop(); p.end(); <-p.ended })
	p.within(p.begun, 10*time.Second, "it works")
	return p
}

func (p *process) within(event <-chan struct{}, timeout time.Duration, what string) {
	p.Helper()
	select {
	case <-event:
	case <-time.After(timeout):
		p.Fatalf("not within %v: %s", timeout, what)
	}
}

// endsAfterItsPass checks that the process is there until its work ends, and not longer.
func (p *process) endsAfterItsPass() {
	p.Helper()
	select {
	case <-p.ended:
		p.Error("the process ended before its pass")
	default:
	}
	p.end()
	p.within(p.ended, 5*time.Second, "the process ends")
}

// holder returns who holds the Lease.
func holder(t *testing.T, client *fake.Clientset) string {
	t.Helper()
	lease, err := client.Tracker().Get(leaseResource, "ampbridge", stateName)
	testkit.Must(t, err)
	if id := lease.(*coordinationv1.Lease).Spec.HolderIdentity; id != nil {
		return *id
	}
	return ""
}

// failedWith checks the error with which the process ended.
func (p *process) failedWith(want string) {
	p.Helper()
	if p.failure == nil || !strings.Contains(p.failure.Error(), want) {
		p.Errorf("ended with %v, want an error with %q", p.failure, want)
	}
}

// refuseLeases lets the API server answer the verb on Leases with an error.
func refuseLeases(client *fake.Clientset, verb, message string) {
	client.PrependReactor(verb, "leases", func(clienttesting.Action) (bool, kuberuntime.Object, error) {
		return true, nil, errors.New(message)
	})
}

func TestLeaseIsReleasedOnlyAfterThePassHasEnded(t *testing.T) {
	client := fake.NewClientset()
	p := lead(t, client)
	self := holder(t, client)
	p.stop()
	p.within(p.told, time.Second, "the work is told to end")
	time.Sleep(2 * renewPeriod)
	if got := holder(t, client); got != self || self == "" {
		t.Errorf("while the pass goes on, the holder is %q, want %q", got, self)
	}
	p.endsAfterItsPass()
	if got := holder(t, client); got != "" || p.failure != nil {
		t.Errorf("at the end the holder is %q, and the error %v; want neither", got, p.failure)
	}
	if strings.Contains(p.log.String(), "lost") {
		t.Errorf("an ordinary end is logged as a loss:\n%s", p.log.String())
	}
}

func TestWorkStopsAtOnceWhenAnotherProcessHoldsTheLease(t *testing.T) {
	client := fake.NewClientset()
	p := lead(t, client)
	// The tracker does not compare resource versions: without this the leader's next
	// update would take the Lease back.
	refuseLeases(client, "update", "the object has been modified")
	lease, err := client.CoordinationV1().Leases("ampbridge").Get(t.Context(), stateName, metav1.GetOptions{})
	testkit.Must(t, err)
	lease.Spec.HolderIdentity = new("another")
	lease.Spec.RenewTime = &metav1.MicroTime{Time: time.Now()}
	testkit.Must(t, client.Tracker().Update(leaseResource, lease, "ampbridge"))
	p.within(p.told, renewDeadline-renewPeriod, "the work is told to end, before the renewal's deadline")
	p.end()
	p.within(p.ended, 15*time.Second, "the process ends")
	p.failedWith("is lost to another process")
	if !strings.Contains(p.log.String(), `"another process holds the Lease","holder":"another"`) {
		t.Errorf("the log does not name the holder:\n%s", p.log.String())
	}
}

func TestProcessThatCannotRenewEndsAfterItsWork(t *testing.T) {
	client := fake.NewClientset()
	p := lead(t, client)
	refuseLeases(client, "*", "etcdserver: request timed out")
	p.within(p.told, renewDeadline+2*renewPeriod, "the work is told to end")
	time.Sleep(renewPeriod)
	p.endsAfterItsPass()
	p.failedWith("cannot be renewed")
}

// The election gives up after the renewal's deadline, and then tries to give the Lease
// back, which takes as long again if the API server does not answer.
func TestWorkStopsBeforeTheLeaseEndsWhenTheAPIServerHangs(t *testing.T) {
	client := fake.NewClientset()
	p := lead(t, client)
	hanging := make(chan struct{})
	t.Cleanup(func() { close(hanging) })
	client.PrependReactor("*", "leases", func(clienttesting.Action) (bool, kuberuntime.Object, error) {
		select {
		case <-hanging:
		case <-time.After(renewDeadline):
		}
		return true, nil, context.DeadlineExceeded
	})
	p.within(p.told, leaseDuration, "the work is told to end")
	p.end()
}

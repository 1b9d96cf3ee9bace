package webhook_test

import (
	"context"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook"
)

// Objects that are slow to read delay only the pods of their own namespace.
func TestSlowNamespaceHoldsUpNoOther(t *testing.T) {
	f := newFixture(t)
	slow := &slowReads{CoreV1Interface: f.client.CoreV1(), namespace: "tenant", release: make(chan struct{})}
	f.Cluster = webhook.NewCluster(slow)
	server := f.serve()
	var tenants sync.WaitGroup
	for range 40 {
		tenants.Go(func() {
			r := podRequest(t, operatorPod, nil)
			r.Namespace = slow.namespace
			send(t, server.Client(), server.URL+"/pods/enabled", r)
		})
	}
	testkit.Eventually(t, "the tenant's pods look up", func() bool { return slow.count() >= 4 })
	if answer := send(t, server.Client(), server.URL+"/pods/enabled", podRequest(t, operatorPod, nil)); answer.Patch == nil {
		t.Errorf("a pod of another namespace: got no patch, warnings %q", answer.Warnings)
	}
	if n := slow.count(); n > 4 {
		t.Errorf("%d pods of one namespace do look-ups at the same time, want 4", n)
	}
	close(slow.release)
	tenants.Wait()
}

// slowReads is a client that does not return the service accounts of one namespace until they are
// released.
type slowReads struct {
	corev1client.CoreV1Interface
	namespace string
	release   chan struct{}

	mu      sync.Mutex
	reading int
}

func (s *slowReads) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reading
}

func (s *slowReads) ServiceAccounts(namespace string) corev1client.ServiceAccountInterface {
	return slowAccounts{s.CoreV1Interface.ServiceAccounts(namespace), s, namespace}
}

type slowAccounts struct {
	corev1client.ServiceAccountInterface
	*slowReads
	of string
}

func (s slowAccounts) Get(ctx context.Context, name string, o metav1.GetOptions) (*corev1.ServiceAccount, error) {
	if s.of == s.namespace {
		s.mu.Lock()
		s.reading++
		s.mu.Unlock()
		<-s.release
	}
	return s.ServiceAccountInterface.Get(ctx, name, o)
}

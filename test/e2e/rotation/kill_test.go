package rotation_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"k8s.io/client-go/rest"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/certificates"
)

// quick is a timing for tests that need many rotations.
var quick = certificates.Timing{Propagation: 500 * time.Millisecond, Retirement: 3 * time.Second, Resync: time.Second}

// startRotator starts a rotator. stop ends it; the end of the test calls stop too.
func startRotator(t *testing.T, config *rest.Config, name string) (k *certificates.Rotator, stop func()) {
	t.Helper()
	k, err := certificates.NewRotator(certificates.Options{
		Namespace: home, Secret: name, Service: name, Configuration: name, RESTConfig: config, Timing: quick,
		Registry: prometheus.NewRegistry(), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	testkit.Must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	var once sync.Once
	stop = func() { once.Do(func() { cancel(); testkit.Must(t, <-done) }) }
	t.Cleanup(stop)
	return k, stop
}

func served(t *testing.T, k *certificates.Rotator) []byte {
	t.Helper()
	c, err := k.GetCertificate(&tls.ClientHelloInfo{})
	testkit.Must(t, err)
	return c.Leaf.Raw
}

// deadly is a connection to the API server that breaks at a certain write, as if the process was killed:
// before the write, or after the write but before its answer.
type deadly struct {
	next   http.RoundTripper
	at     int
	after  bool
	mu     sync.Mutex
	writes int
	dead   chan struct{}
}

var errDead = errors.New("killed")

func (d *deadly) RoundTrip(r *http.Request) (*http.Response, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.dead:
		return nil, errDead
	default:
	}
	if r.Method == http.MethodGet {
		return d.next.RoundTrip(r)
	}
	if d.writes++; d.writes != d.at {
		return d.next.RoundTrip(r)
	}
	defer close(d.dead)
	if d.after {
		answer, err := d.next.RoundTrip(r)
		if err == nil {
			_ = answer.Body.Close()
		}
	}
	return nil, errDead
}

// A replica dies at its first write, at its second, and so on. The next replica continues from there, and the
// result must be the same as without the failure.
func TestKilledAtEveryWrite(t *testing.T) {
	f := newFixture(t)
	// watched returns the config of a replica that dies at a write, or of one that only counts.
	watched := func(at int, after bool) (*rest.Config, *deadly) {
		d := &deadly{at: at, after: after, dead: make(chan struct{})}
		config := f.Config()
		config.Wrap(func(next http.RoundTripper) http.RoundTripper { d.next = next; return d })
		return config, d
	}
	// install leaves a stable certificate of a replica that has ended.
	install := func(t *testing.T, name string) []byte {
		k, stop := startRotator(t, f.Config(), name)
		testkit.Eventually(t, "stable", func() bool { return f.stable(t, name, name) && k.Ready() == nil })
		stop()
		return served(t, k)
	}
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, name string) (before []byte)
		writes  int
	}{
		// The writes: create the Secret, fill it, publish.
		{"installation", func(*testing.T, string) []byte { return nil }, 3},
		// The writes: generate, publish, announce, switch, retire, publish.
		{"rotation", func(t *testing.T, name string) []byte {
			before := install(t, name)
			f.rotate(t, name)
			return before
		}, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Run("undisturbed", func(t *testing.T) {
				name := "undisturbed-" + c.name
				f.register(t, name, name)
				c.prepare(t, name)
				config, d := watched(0, false)
				_, stop := startRotator(t, config, name)
				testkit.Eventually(t, "stable", func() bool { return f.stable(t, name, name) })
				stop()
				if d.writes != c.writes {
					t.Errorf("writes: got %d, want %d", d.writes, c.writes)
				}
			})
			for at := 1; at <= c.writes; at++ {
				for _, after := range []bool{false, true} {
					t.Run(fmt.Sprintf("killed at %d of %d, after it: %v", at, c.writes, after), func(t *testing.T) {
						t.Parallel()
						name := fmt.Sprintf("%s-%d-%v", c.name, at, after)
						f.register(t, name, name)
						registered := f.configuration(t, name)
						before := c.prepare(t, name)
						config, d := watched(at, after)
						_, stop := startRotator(t, config, name)
						testkit.Eventually(t, "the first replica is killed", func() bool {
							select {
							case <-d.dead:
								return true
							default:
								return false
							}
						})
						stop()
						k, _ := startRotator(t, f.Config(), name)
						testkit.Eventually(
							t,
							"the second replica is ready, and everything is done",
							func() bool { return k.Ready() == nil && f.stable(t, name, name) },
						)
						if bytes.Equal(served(t, k), before) {
							t.Error("the certificate is the old one")
						}
						f.wantOnlyBundles(t, registered, f.configuration(t, name))
					})
				}
			}
		})
	}
}

// Replicas that start at the same time agree on one certificate, and rotate it only once.
func TestReplicasAgree(t *testing.T) {
	f := newFixture(t)
	const name = "together"
	f.register(t, name, name)
	rotators := make([]*certificates.Rotator, 5)
	for i := range rotators {
		rotators[i], _ = startRotator(t, f.Config(), name)
	}
	agree := func() bool {
		for _, k := range rotators {
			if k.Ready() != nil || !bytes.Equal(served(t, k), served(t, rotators[0])) {
				return false
			}
		}
		return f.stable(t, name, name)
	}
	testkit.Eventually(t, "all serve the same", agree)
	first := served(t, rotators[0])
	var versions atomic.Int64
	watch, err := f.Client().CoreV1().Secrets(home).Watch(t.Context(), only(name))
	testkit.Must(t, err)
	defer watch.Stop()
	go func() {
		for range watch.ResultChan() {
			versions.Add(1)
		}
	}()
	f.rotate(t, name)
	testkit.Eventually(t, "all serve the same, and another", func() bool { return agree() && !bytes.Equal(served(t, rotators[0]), first) })
	// The versions: initial, requested, generated, announced, switched, retired.
	testkit.Eventually(t, "each write is seen", func() bool { return versions.Load() >= 6 })
	if got := versions.Load(); got != 6 {
		t.Errorf("versions of the Secret in one rotation by %d replicas: got %d, want 6", len(rotators), got)
	}
}

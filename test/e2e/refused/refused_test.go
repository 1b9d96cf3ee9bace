package refused_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/webhooktest"
	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/breaker/store"
)

// demanded are policies that admit the pod without a sidecar, but refuse it with the sidecar of the policy
// [refusedSidecar].
var demanded = []struct {
	name, message, expression string
	change                    func(*corev1.PodSpec)
	// fits is true if the sidecar of [fittingSidecar] satisfies the policy.
	fits bool
}{
	{
		"cpu-limits", "every container needs a CPU limit",
		"variables.all.all(c, has(c.resources.limits) && 'cpu' in c.resources.limits)", nil, true,
	},
	{
		"size-limits", "every emptyDir needs a sizeLimit of 8Mi or less",
		"!has(object.spec.volumes) || object.spec.volumes.all(v, !has(v.emptyDir) || (has(v.emptyDir.sizeLimit) && " +
			"quantity(v.emptyDir.sizeLimit).compareTo(quantity('8Mi')) <= 0))", nil, true,
	},
	{
		"registries", "images come from quay.io",
		"variables.all.all(c, c.image.startsWith('quay.io/'))", nil, true,
	},
	{
		"seccomp-required", "every container needs a Localhost profile",
		"variables.all.all(c, has(c.securityContext) && has(c.securityContext.seccompProfile) && " +
			"c.securityContext.seccompProfile.type == 'Localhost')",
		func(s *corev1.PodSpec) {
			s.Containers[0].SecurityContext = &corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{
				Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: new("prometheus.json"),
			}}
		}, false,
	},
	{
		"seccomp-forbidden", "no container has a seccompProfile",
		"!variables.all.exists(c, has(c.securityContext) && has(c.securityContext.seccompProfile))", nil, true,
	},
}

const (
	refusedSidecar = "sidecar: {securityContext: {seccompProfile: RuntimeDefault}}\n"
	fittingSidecar = `sidecar:
  image: quay.io/ampbridge/ampbridge:v1
  volumeSizeLimit: 8Mi
  resources: {limits: {cpu: 100m, memory: 64Mi}}
`
)

func TestRefused(t *testing.T) {
	f := newFixture(t, refusedSidecar)
	f.node(t)
	for _, d := range demanded {
		f.demand(t, d.name, d.message, d.expression)
		f.namespace(t, "test-"+d.name, map[string]string{demands: d.name})
	}
	t.Run("a bare pod", f.testBare)
	t.Run("never misuses its rights", f.testRights)
	t.Run("never evicts what cannot come back", f.testSuccessor)
	t.Run("controllers", f.testControllers)
	t.Run("refused without the sidecar too", f.testPlainRefused)
}

// warnings collects the warnings of the API server.
type warnings struct {
	sync.Mutex
	texts []string
}

func (w *warnings) HandleWarningHeader(_ int, _, text string) {
	w.Lock()
	defer w.Unlock()
	w.texts = append(w.texts, text)
}

// Nothing creates a bare pod again, so a warning names the fix to its creator.
func (f *fixture) testBare(t *testing.T) {
	for _, d := range demanded {
		heard := &warnings{}
		config := f.Config()
		config.WarningHandler = heard
		client := cluster.ClientFor(t, config)
		pod := bare("bare")
		if d.change != nil {
			d.change(&pod.Spec)
		}
		var err error
		// A policy is in force only a moment after its creation.
		testkit.Within(t, timeout, "the bare pod is refused by "+d.name, func() bool {
			_, err = client.CoreV1().Pods("test-"+d.name).Create(t.Context(), pod, dryRun)
			return err != nil
		})
		if !strings.Contains(err.Error(), d.message) {
			t.Errorf("%s: it is refused for another reason: %v", d.name, err)
		}
		if said := strings.Join(heard.texts, "\n"); !strings.Contains(said, `create it with the annotation ampbridge.io/inject: "false"`) {
			t.Errorf("%s: the warnings do not name the annotation: %s", d.name, said)
		}
		pod.Annotations = map[string]string{policy.AnnotationInject: "false"}
		if _, err := client.CoreV1().Pods("test-"+d.name).Create(t.Context(), pod, dryRun); err != nil {
			t.Errorf("%s: with the annotation it is also refused: %v", d.name, err)
		}
	}
}

// Each controller gets its pod without the sidecar, and with the sidecar after the sidecar fits.
func (f *fixture) testControllers(t *testing.T) {
	f.audit(t)
	for _, d := range demanded {
		for _, shape := range shapes {
			t.Run(d.name+"/"+shape, func(t *testing.T) {
				namespace, began := "test-"+d.name, time.Now()
				f.create(t, namespace, shape, d.change)
				f.opens(t, namespace, shape)
				atOpening := f.refusals(t, namespace, shape)
				pod := f.one(t, namespace, shape, nil)
				took := time.Since(began)
				if webhooktest.Injected(pod) {
					t.Fatalf("the pod is injected against the policy")
				}
				f.eventSays(t, namespace, shape, "CircuitOpen", "ValidatingAdmissionPolicy "+d.name, d.message)
				total := f.refusals(t, namespace, shape)
				t.Logf("refused %d times, %d of them after the breaker opened; its pod exists after %s", total, total-atOpening,
					took.Round(time.Millisecond))
				// When the breaker opens, a retry or its event may still be on its way.
				if total-atOpening > 2 {
					t.Errorf("refused %d times after the breaker opened", total-atOpening)
				}
			})
		}
	}
	if t.Failed() {
		return
	}
	// Injection stays off for the next pods, and no more of them is refused.
	before := f.refusals(t, "test-cpu-limits", "statefulset")
	if next := f.replace(t, &f.pods(t, "test-cpu-limits", "statefulset")[0]); webhooktest.Injected(next) {
		t.Error("the next pod is injected")
	}
	if n := f.refusals(t, "test-cpu-limits", "statefulset"); n != before {
		t.Errorf("the next pod was refused %d times", n-before)
	}

	f.setPolicy(t, fittingSidecar)
	f.namespace(t, "test-changed", nil)
	testkit.Within(t, timeout, "the webhook has the changed policy", func() bool {
		pod, err := f.Client().CoreV1().Pods("test-changed").Create(t.Context(), bare("probe"), dryRun)
		testkit.Must(t, err)
		return webhooktest.Injected(pod) && pod.Spec.InitContainers[0].Image != image
	})
	for _, d := range demanded {
		for _, shape := range shapes {
			next := f.replace(t, &f.pods(t, "test-"+d.name, shape)[0])
			if webhooktest.Injected(next) != d.fits {
				t.Errorf("%s/%s: after the change of the policy it is injected: %v, want %v", d.name, shape, webhooktest.Injected(next), d.fits)
			}
		}
	}
}

// opens waits until the breaker is open for the workload.
func (f *fixture) opens(t *testing.T, namespace, shape string) {
	t.Helper()
	kind := map[string]string{"deployment": "Deployment", "statefulset": "StatefulSet", "daemonset": "DaemonSet"}[shape]
	testkit.Within(t, timeout, "the breaker opens for "+namespace+"/"+shape, func() bool {
		state, err := store.Read(t.Context(), f.Client().CoreV1().ConfigMaps(home))
		testkit.Must(t, err)
		e, open := state.Entry(breaker.Workload{Namespace: namespace, Kind: kind, Name: shape})
		return open && e.WasRefused()
	})
}

// If the pod is refused without the sidecar too, the sidecar is not the reason. The breaker then closes, so
// the pod is injected after the other reason is gone.
func (f *fixture) testPlainRefused(t *testing.T) {
	f.audit(t)
	const namespace, name = "test-plain", "nothing-here"
	f.demand(t, name, "no pods here", "false")
	f.namespace(t, namespace, map[string]string{demands: name})
	testkit.Within(t, timeout, "the policy is in force", func() bool {
		_, err := f.Client().CoreV1().Pods(namespace).Create(t.Context(), bare("bare"), dryRun)
		return err != nil
	})
	f.create(t, namespace, "statefulset", nil)
	f.eventSays(t, namespace, "statefulset", "CircuitOpen", name)
	f.eventSays(t, namespace, "statefulset", "CircuitClosed", "without the sidecar too", name)
	f.label(t, namespace, demands, "")
	if pod := f.one(t, namespace, "statefulset", nil); !webhooktest.Injected(pod) {
		t.Error("its pod is not injected, although nothing refuses it")
	}
}

// A running pod that missed its injection is not evicted while its successor would be refused. It is replaced
// after that.
func (f *fixture) testSuccessor(t *testing.T) {
	const namespace, demand = "test-successor", "cpu-limits"
	testkit.Must(t, f.Namespace(t.Context(), namespace, map[string]string{demands: demand}))
	_, err := f.Client().CoreV1().ServiceAccounts(namespace).Create(t.Context(),
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{})
	testkit.Must(t, err)
	running := map[string]*corev1.Pod{}
	for _, shape := range shapes {
		f.create(t, namespace, shape, nil)
		running[shape] = f.one(t, namespace, shape, nil)
	}
	f.label(t, namespace, policy.LabelInjection, string(policy.InjectionEnabled))
	time.Sleep(time.Second) // the API server stores times of pods in seconds
	f.setPolicy(t, refusedSidecar+"audit: {repair: evict}\n")
	t.Cleanup(func() { f.setPolicy(t, refusedSidecar) })
	f.audit(t)
	for _, shape := range shapes {
		f.eventSays(t, namespace, shape, "EvictionRefused", "its successor would be refused by ValidatingAdmissionPolicy "+demand,
			"every container needs a CPU limit")
	}
	time.Sleep(3 * time.Second) // long enough for some more rounds
	for _, shape := range shapes {
		if now := f.one(t, namespace, shape, nil); now.UID != running[shape].UID {
			t.Fatalf("the running pod of %s was evicted, although its successor is refused", shape)
		}
		if n := f.refusals(t, namespace, shape); n != 0 {
			t.Errorf("%s: %d refusals", shape, n)
		}
	}
	f.label(t, namespace, demands, "")
	for _, shape := range shapes {
		if next := f.one(t, namespace, shape, running[shape]); !webhooktest.Injected(next) {
			t.Errorf("%s: the successor is not injected", shape)
		}
	}
}

// An attacker with sync's identity tries to create pods with the permission for dry runs.
func (f *fixture) testRights(t *testing.T) {
	const labelled, other = "test-probe", "other-team"
	testkit.Must(t, f.Namespace(t.Context(), other, nil))
	create := func(as *rest.Config, namespace string, options metav1.CreateOptions) error {
		thief := bare("thief")
		thief.Spec.ServiceAccountName = "default" // every namespace has this account, so nothing else refuses the pod
		_, err := cluster.ClientFor(t, as).CoreV1().Pods(namespace).Create(t.Context(), thief, options)
		return err
	}
	// The policy is in force only a moment after its creation.
	testkit.Within(t, timeout, "the admission policy denies pods", func() bool {
		err := create(f.sync, other, dryRun)
		return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'ampbridge-sync'")
	})
	if err := create(f.sync, labelled, dryRun); err != nil {
		t.Errorf("a dry run in a labelled namespace: %v", err)
	}
	impersonating := rest.CopyConfig(f.sync)
	impersonating.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:kube-system:replicaset-controller"}
	for what, err := range map[string]error{
		"for real":                              create(f.sync, labelled, metav1.CreateOptions{}),
		"for real, in another team's namespace": create(f.sync, other, metav1.CreateOptions{}),
		"in a dry run of another namespace":     create(f.sync, other, dryRun),
		"in kube-system":                        create(f.sync, "kube-system", dryRun),
		"in its own namespace":                  create(f.sync, home, dryRun),
		"for real, in its own namespace":        create(f.sync, home, metav1.CreateOptions{}),
		"as a controller":                       create(impersonating, labelled, metav1.CreateOptions{}),
		"as the webhook":                        create(f.webCfg, labelled, dryRun),
	} {
		if !apierrors.IsForbidden(err) {
			t.Errorf("%s: got %v, want it forbidden", what, err)
		}
	}
	if pods, err := f.Client().CoreV1().Pods(metav1.NamespaceAll).List(t.Context(),
		metav1.ListOptions{FieldSelector: "metadata.name=thief"}); err != nil ||
		len(pods.Items) > 0 {
		t.Errorf("the thief has %d pods, %v", len(pods.Items), err)
	}
}

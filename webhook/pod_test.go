package webhook_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/patchtest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook"
)

const (
	operatorPod = "testdata/pod-prometheus-operator.json"
	chartPod    = "testdata/pod-prometheus-chart.json"
)

func TestPodIsInjected(t *testing.T) {
	for _, test := range []struct{ name, file, account string }{
		{"operator", operatorPod, "prometheus-k8s"},
		{"chart", chartPod, "prometheus-server"},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			f.createAccount(test.account, nil)
			r := podRequest(t, test.file, func(pod map[string]any) {
				pod["spec"].(map[string]any)["fieldOfTheFuture"] = map[string]any{"kept": true}
			})
			answer := f.review("/pods/enabled", r)
			if answer.PatchType == nil || *answer.PatchType != admissionv1.PatchTypeJSONPatch {
				t.Fatalf("patch type: got %v; warnings %q", answer.PatchType, answer.Warnings)
			}
			changed := patchtest.Apply(t, r.Object.Raw, answer.Patch)
			var pod corev1.Pod
			testkit.Must(t, json.Unmarshal(changed, &pod))
			if first := pod.Spec.InitContainers[0]; first.Name != "ampbridge-config" || first.Image != image {
				t.Errorf("first init container: got %s of %s", first.Name, first.Image)
			}
			if !strings.Contains(string(changed), `"fieldOfTheFuture":{"kept":true}`) {
				t.Error("an unknown field was lost")
			}
			if len(answer.Warnings) != 0 {
				t.Errorf("warnings: got %q", answer.Warnings)
			}
			f.wantCounted("pod", "inject", policy.Granted)
			for _, want := range []string{`"decision":"inject"`, `"reason":"Granted"`, `"destinations":"central"`,
				`"serviceAccount":"` + test.account + `"`, `"namespace":"monitoring"`, string(r.UID), `"pod":"` + generateName(t, r)} {
				if !strings.Contains(f.log.String(), want) {
					t.Errorf("the log lacks %s: %s", want, f.log)
				}
			}
		})
	}
}

// If another plugin refuses a pod without a controller, nothing creates the pod again. So the
// answer names the annotation that avoids the sidecar.
func TestBarePodIsToldTheWayOut(t *testing.T) {
	f := newFixture(t)
	f.createAccount("prometheus-k8s", nil)
	answer := f.review("/pods/enabled", podRequest(t, operatorPod, func(pod map[string]any) {
		delete(pod["metadata"].(map[string]any), "ownerReferences")
	}))
	const want = `create it with the annotation ampbridge.io/inject: "false"`
	if len(answer.Warnings) != 1 || !strings.Contains(answer.Warnings[0], want) || answer.Patch == nil {
		t.Errorf("got warnings %q, patch %.20s; want %q", answer.Warnings, answer.Patch, want)
	}

	// With mode identity there is no sidecar that could be the reason.
	f.policy.Grants[0].Mode = policy.ModeIdentity
	answer = f.review("/pods/enabled", podRequest(t, operatorPod, func(pod map[string]any) {
		delete(pod["metadata"].(map[string]any), "ownerReferences")
		pod["metadata"].(map[string]any)["annotations"] = map[string]any{
			policy.AnnotationContainer: "config-reloader", policy.AnnotationDestination: f.policy.Grants[0].Destinations[0],
		}
	}))
	if len(answer.Warnings) != 0 || answer.Patch == nil {
		t.Errorf("mode identity: got warnings %q, patch %.20s", answer.Warnings, answer.Patch)
	}
}

func TestPodIsSkipped(t *testing.T) {
	for _, test := range []struct {
		name    string
		path    string
		pod     func(map[string]any)
		account map[string]string // annotations
		policy  func(*policy.Policy)
		reason  policy.Reason
		warning string
		reads   string // verbs and resources, only those that the decision needs
	}{
		{"opted out on the pod", "/pods/enabled", annotate(policy.AnnotationInject, "false"), nil, nil, policy.OptedOut, "", ""},
		{"opted out on the service account", "/pods/enabled", nil, map[string]string{policy.AnnotationInject: "false"}, nil, policy.OptedOut, "",
			"get serviceaccounts, list limitranges, list resourcequotas"},
		{"not asked", "/pods/annotated", nil, nil, nil, policy.NotAsked, "", "get serviceaccounts, list limitranges, list resourcequotas"},
		{"not Prometheus", "/pods/enabled", notPrometheus, nil, nil, policy.NotPrometheus, "", ""},
		{"paused", "/pods/enabled", nil, nil, func(p *policy.Policy) { p.Paused = true }, policy.Paused, "paused", "get serviceaccounts"},
		{"not granted", "/pods/enabled", nil, nil, func(p *policy.Policy) { p.Grants[0].Namespaces = []policy.Glob{"elsewhere"} },
			policy.NotGranted, "no grant", "get serviceaccounts"},
		{"unknown destination", "/pods/enabled", annotate(policy.AnnotationDestinations, "moon"), nil, nil, policy.UnknownDestination,
			`"moon"`, "get serviceaccounts"},
		{"invalid annotation", "/pods/enabled", annotate(policy.AnnotationInject, "yes"), nil, nil, policy.InvalidAnnotation, `"yes"`, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			if test.policy != nil {
				test.policy(f.policy)
			}
			if test.account != nil {
				f.createAccount(account, test.account)
			}
			f.client.ClearActions()
			answer := f.review(test.path, podRequest(t, operatorPod, test.pod))
			f.wantUntouched(answer, test.warning)
			f.wantCounted("pod", "skip", test.reason)
			if got := f.reads(); got != test.reads {
				t.Errorf("reads: got %q, want %q", got, test.reads)
			}
		})
	}
}

// The service account can request what the namespace leaves optional.
func TestServiceAccountAsks(t *testing.T) {
	f := newFixture(t)
	f.createAccount(account, map[string]string{policy.AnnotationInject: "true"})
	if answer := f.review("/pods/annotated", podRequest(t, operatorPod, nil)); answer.Patch == nil {
		t.Errorf("got no patch, warnings %q", answer.Warnings)
	}
	// A misspelt annotation of the pod is warned of, and does not overrule the service account.
	answer := f.review("/pods/annotated", podRequest(t, operatorPod, annotate("ampbridge.io/destinationz", "moon")))
	if answer.Patch == nil || len(answer.Warnings) != 1 || !strings.Contains(answer.Warnings[0], "did you mean") {
		t.Errorf("with a misspelt annotation: patch %.20s, warnings %q", answer.Patch, answer.Warnings)
	}
}

// A pod without a service account name gets the account that the API server would set.
func TestDefaultServiceAccount(t *testing.T) {
	f := newFixture(t)
	f.createAccount("default", nil)
	f.policy.Grants[0].ServiceAccounts = []policy.Glob{"default"}
	answer := f.review("/pods/enabled", podRequest(t, operatorPod, func(pod map[string]any) {
		delete(pod["spec"].(map[string]any), "serviceAccountName")
		delete(pod["spec"].(map[string]any), "serviceAccount")
	}))
	if answer.Patch == nil {
		t.Errorf("got no patch, warnings %q", answer.Warnings)
	}
}

func TestFailOpen(t *testing.T) {
	unavailable := errors.New("etcdserver: leader changed")
	for _, test := range []struct {
		name   string
		fault  func(*fixture)
		reason policy.Reason
	}{
		{"no policy", func(f *fixture) { f.policy = nil }, webhook.PolicyMissing},
		{"service account missing", func(f *fixture) { f.deleteAccount(account) }, webhook.LookupFailed},
		{"service account unreadable", func(f *fixture) { f.fail("serviceaccounts", unavailable) }, webhook.LookupFailed},
		{"limits unreadable", func(f *fixture) { f.fail("limitranges", unavailable) }, webhook.LookupFailed},
		{"quotas unreadable", func(f *fixture) { f.fail("resourcequotas", unavailable) }, webhook.LookupFailed},
		{"panic in a look-up", func(f *fixture) { f.Cluster = answering(func() { panic("broken") }) }, webhook.InternalError},
		{"panic in a parallel look-up", func(f *fixture) {
			f.client.PrependReactor("list", "limitranges", func(clienttesting.Action) (bool, runtime.Object, error) { panic("broken") })
		}, webhook.InternalError},
		{"panic in the decision", func(f *fixture) { f.Policy = func() *policy.Policy { panic("broken") } }, webhook.InternalError},
	} {
		t.Run(test.name, func(t *testing.T) {
			f := newFixture(t)
			test.fault(f)
			answer := f.review("/pods/enabled", podRequest(t, operatorPod, nil))
			f.wantUntouched(answer, "not injected")
			f.wantCounted("pod", "error", test.reason)
			if !strings.Contains(f.log.String(), `"level":"ERROR"`) {
				t.Errorf("nothing was logged as an error: %s", f.log)
			}
		})
	}
}

// If the API server does not answer, a pod waits only two seconds.
func TestHangingLookup(t *testing.T) {
	hanging := make(chan struct{})
	api := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hanging:
		case <-r.Context().Done():
		}
	}))
	defer api.Close()
	defer close(hanging)
	f := newFixture(t)
	var err error
	if f.Cluster, err = webhook.Kubernetes(&rest.Config{Host: api.URL}); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	answer := f.review("/pods/enabled", podRequest(t, operatorPod, nil))
	f.wantUntouched(answer, "not injected")
	f.wantCounted("pod", "error", webhook.LookupFailed)
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
}

func generateName(t *testing.T, r *admissionv1.AdmissionRequest) string {
	t.Helper()
	var object metav1.PartialObjectMetadata
	testkit.Must(t, json.Unmarshal(r.Object.Raw, &object))
	return object.GenerateName
}

func notPrometheus(pod map[string]any) {
	pod["metadata"].(map[string]any)["labels"] = map[string]any{"app": "web"}
	pod["spec"].(map[string]any)["containers"] = []any{map[string]any{"name": "web", "image": "nginx"}}
}

// createAccount creates or replaces a service account.
func (f *fixture) createAccount(name string, annotations map[string]string) {
	f.Helper()
	f.deleteAccount(name)
	object := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Annotations: annotations}}
	if _, err := f.client.CoreV1().ServiceAccounts(namespace).Create(f.Context(), object, metav1.CreateOptions{}); err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) deleteAccount(name string) {
	_ = f.client.CoreV1().ServiceAccounts(namespace).Delete(f.Context(), name, metav1.DeleteOptions{}) // it may not exist
}

func (f *fixture) fail(resource string, err error) {
	f.client.PrependReactor("*", resource, func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, err })
}

// reads lists the reads from the cluster in alphabetical order.
func (f *fixture) reads() string {
	var list []string
	for _, action := range f.client.Actions() {
		list = append(list, action.GetVerb()+" "+action.GetResource().Resource)
	}
	slices.Sort(list)
	return strings.Join(list, ", ")
}

func (f *fixture) wantUntouched(answer *admissionv1.AdmissionResponse, warning string) {
	f.Helper()
	if answer.Patch != nil || answer.PatchType != nil {
		f.Errorf("got a patch: %s", answer.Patch)
	}
	switch got := strings.Join(answer.Warnings, "\n"); {
	case warning == "" && got != "":
		f.Errorf("warnings: got %q, want none", got)
	case warning != "" && (!strings.HasPrefix(got, "ampbridge: ") || !strings.Contains(got, warning)):
		f.Errorf("warnings: got %q, want one with %q", got, warning)
	}
}

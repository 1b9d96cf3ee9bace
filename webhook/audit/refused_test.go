package audit

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/webhooktest"
	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/breaker/store"
)

func prometheusTemplate(more map[string]string) corev1.PodTemplateSpec {
	return corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: more}, Spec: webhooktest.Prometheus("prometheus")}
}

// refusalFixture has the given objects beside two namespaces, of which "team" is
// labelled, and service accounts.
func refusalFixture(t *testing.T, objects ...runtime.Object) (*refusals, *fake.Clientset) {
	t.Helper()
	for name, labels := range map[string]map[string]string{"team": {policy.LabelInjection: "enabled"}, "teamless": nil} {
		objects = append(objects, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}},
			&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: name, Name: "prometheus"}})
	}
	client := fake.NewClientset(objects...)
	events := 0
	client.PrependReactor("create", "events", func(a clienttesting.Action) (bool, runtime.Object, error) {
		// The API server makes names out of generateName, and the fake does not.
		events++
		a.(clienttesting.CreateAction).GetObject().(*corev1.Event).Name = fmt.Sprint("event-", events)
		return false, nil, nil
	})
	p := policytest.Parse(t, policytest.Granting("prometheus", "team*"))
	return &refusals{
		Options: Options{
			Policy: func() *policy.Policy { return p }, Image: "example.com/i:v1", Namespace: "home", Excluded: []string{"excluded"},
			Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		},
		cluster: cluster{client.CoreV1(), client.AppsV1()}, events: eventRecorder{client: client.CoreV1()}, wake: make(chan struct{}, 1),
		seen: map[string]map[types.UID]*refusal{}, trials: map[breaker.Workload]trial{}, held: map[breaker.Workload]hold{},
	}, client
}

func failedCreate(namespace, kind, name, uid, message string, at time.Time) *corev1.Event {
	return &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace},
		InvolvedObject: corev1.ObjectReference{
			APIVersion: "apps/v1", Kind: kind, Namespace: namespace, Name: name, UID: types.UID(uid),
		},
		Reason: "FailedCreate", Message: message, LastTimestamp: metav1.NewTime(at.Truncate(time.Second)),
	}
}

const limitsMessage = `Error creating: pods "p-" is forbidden: ValidatingAdmissionPolicy 'limits' with binding 'b' denied ` +
	`request: set limits`

// The breaker opens for the workloads of each kind of controller whose pods would be
// injected, and for no others.
func TestRefusalsOpenTheBreaker(t *testing.T) {
	meta := func(namespace, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name, UID: types.UID("uid-" + namespace + "-" + name)}
	}
	hashed := map[string]string{"pod-template-hash": "5d8f"}
	plain := prometheusTemplate(nil)
	plain.Spec.Containers[0] = corev1.Container{Name: "nginx", Image: "nginx"}
	out := prometheusTemplate(nil)
	out.Annotations = map[string]string{policy.AnnotationInject: "false"}
	stateful := func(name string, template corev1.PodTemplateSpec) *appsv1.StatefulSet {
		return &appsv1.StatefulSet{ObjectMeta: meta("team", name), Spec: appsv1.StatefulSetSpec{Replicas: new(int32(1)), Template: template}}
	}
	r, client := refusalFixture(t,
		&appsv1.ReplicaSet{ObjectMeta: meta("team", "web-5d8f"),
			Spec: appsv1.ReplicaSetSpec{Replicas: new(int32(1)), Template: prometheusTemplate(hashed)}},
		&appsv1.DaemonSet{ObjectMeta: meta("team", "ds"), Spec: appsv1.DaemonSetSpec{Template: prometheusTemplate(nil)}},
		stateful("st", prometheusTemplate(nil)), stateful("nginx", plain), stateful("out", out),
		&appsv1.StatefulSet{ObjectMeta: meta("teamless", "st"),
			Spec: appsv1.StatefulSetSpec{Replicas: new(int32(1)), Template: prometheusTemplate(nil)}},
	)
	now := time.Now()
	for _, c := range [][3]string{
		{"team", "ReplicaSet", "web-5d8f"}, {"team", "DaemonSet", "ds"}, {"team", "StatefulSet", "st"}, {"team", "StatefulSet", "nginx"},
		{"team", "StatefulSet", "out"}, {"team", "StatefulSet", "gone"}, {"team", "CloneSet", "st"}, {"teamless", "StatefulSet", "st"},
	} {
		r.note(failedCreate(c[0], c[1], c[2], "uid-"+c[0]+"-"+c[2], limitsMessage, now), now)
	}
	r.note(failedCreate("team", "StatefulSet", "st", "uid-of-another", limitsMessage, now), now)
	r.note(failedCreate("home", "StatefulSet", "st", "uid-home-st", limitsMessage, now), now)
	r.note(failedCreate("excluded", "StatefulSet", "st", "uid-excluded-st", limitsMessage, now), now)
	for range 4 { // five of a namespace are judged at a time
		testkit.Must(t, r.pass(t.Context(), now))
	}
	state, err := store.Read(t.Context(), client.CoreV1().ConfigMaps("home"))
	testkit.Must(t, err)
	var got []string
	for _, e := range state.Entries() {
		got = append(got, fmt.Sprint(e.Namespace, "/", e.Workload, " ", e.Cause, " ", e.By, ": ", e.Message))
	}
	const by = " Refused ValidatingAdmissionPolicy limits: set limits"
	want := []string{"team/DaemonSet/ds" + by, "team/Deployment/web" + by, "team/StatefulSet/st" + by}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	events, err := client.CoreV1().Events("team").List(t.Context(), metav1.ListOptions{})
	testkit.Must(t, err)
	for _, e := range events.Items {
		if e.Reason != eventOpen || !strings.Contains(e.Message, "by ValidatingAdmissionPolicy limits: set limits") ||
			e.InvolvedObject.UID == "" {
			t.Errorf("event %s on %s: %s", e.Reason, e.InvolvedObject.Name, e.Message)
		}
	}
	if len(events.Items) != len(want) {
		t.Errorf("%d events, want %d", len(events.Items), len(want))
	}
}

// If pods are refused without the sidecar too, the entry is removed and does not return for an
// hour. A refusal by another component is a new case.
func TestRefusedWithoutTheSidecarToo(t *testing.T) {
	r, client := refusalFixture(t, &appsv1.StatefulSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "st", UID: "u"},
		Spec:       appsv1.StatefulSetSpec{Replicas: new(int32(1)), Template: prometheusTemplate(nil)},
	})
	begin := time.Now()
	quota := `create Pod st-0 in StatefulSet st failed error: pods "st-0" is forbidden: exceeded quota: q, requested: pods=1`
	for i, step := range []struct {
		at      time.Duration
		message string
		open    bool
	}{
		{0, limitsMessage, true},
		{time.Second, limitsMessage, true}, // it may have begun before the breaker was open
		{time.Minute, limitsMessage, false},
		{2 * time.Minute, limitsMessage, false},
		{3 * time.Minute, quota, true},
		{4 * time.Minute, quota, false},
		{2 * time.Hour, limitsMessage, true},
	} {
		now := begin.Add(step.at)
		r.note(failedCreate("team", "StatefulSet", "st", "u", step.message, now), now)
		testkit.Must(t, r.pass(t.Context(), now))
		state, err := store.Read(t.Context(), client.CoreV1().ConfigMaps("home"))
		testkit.Must(t, err)
		if open := len(state.Entries()) == 1; open != step.open {
			t.Errorf("step %d, after %s: the breaker is open: %v, want %v", i, step.at, open, step.open)
		}
	}
}

// A refusal has no effect if the controller has created its pods in the meantime.
func TestRefusalOfCompleteControllers(t *testing.T) {
	for _, c := range []struct {
		has  int32
		age  time.Duration
		open bool
	}{{1, time.Minute, false}, {0, time.Minute, true}, {1, time.Second, true}, {0, time.Hour, false}} {
		r, client := refusalFixture(t, &appsv1.StatefulSet{
			ObjectMeta: metav1.ObjectMeta{Namespace: "team", Name: "st", UID: "u"},
			Spec:       appsv1.StatefulSetSpec{Replicas: new(int32(1)), Template: prometheusTemplate(nil)},
			Status:     appsv1.StatefulSetStatus{Replicas: c.has},
		})
		now := time.Now()
		r.note(failedCreate("team", "StatefulSet", "st", "u", limitsMessage, now.Add(-c.age)), now)
		testkit.Must(t, r.pass(t.Context(), now))
		state, err := store.Read(t.Context(), client.CoreV1().ConfigMaps("home"))
		testkit.Must(t, err)
		if open := len(state) == 1; open != c.open {
			t.Errorf("%+v: open is %v", c, open)
		}
	}
}

// The number of stored refusals is limited, even if tenants cause very many events, and namespaces
// take turns.
func TestRefusalsAreBounded(t *testing.T) {
	r, _ := refusalFixture(t)
	now := time.Now()
	for n := range 200 {
		for i := range 3 * refusalsPerNamespace {
			r.note(failedCreate(fmt.Sprint("n", n), "ReplicaSet", "r", fmt.Sprint(i), limitsMessage+strings.Repeat("x", 1<<12), now), now)
		}
	}
	total := 0
	for n, of := range r.seen {
		if total += len(of); len(of) > refusalsPerNamespace {
			t.Errorf("%d of %s", len(of), n)
		}
		for _, f := range of {
			if len(f.by)+len(f.text) > 400 {
				t.Fatalf("%d bytes of one", len(f.by)+len(f.text))
			}
		}
	}
	if total > maxRefusals || total != r.n {
		t.Errorf("%d are remembered, %d counted", total, r.n)
	}
	turns := map[string]int{}
	for _, f := range r.next(now) {
		turns[f.workload.Namespace]++
	}
	for n, c := range turns {
		if c > judgedPerNamespace {
			t.Errorf("%d of %s in one pass", c, n)
		}
	}
	if len(turns) < judgedPerPass/judgedPerNamespace {
		t.Errorf("only %d namespaces have a turn", len(turns))
	}
	if r.next(now.Add(2 * refusalLife)); r.n != 0 || len(r.seen) != 0 {
		t.Errorf("%d are remembered for ever", r.n)
	}
}

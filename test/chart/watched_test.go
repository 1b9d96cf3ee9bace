package chart

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	jsonpatch "github.com/evanphx/json-patch/v5"
	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/barepod"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
	"github.com/ampbridge/ampbridge/test/webhooktest"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

// A real Prometheus with the chart's alerts watches the real programs: the webhook and
// sync as the chart starts them, in a real control plane, and pods with sidecar and
// Prometheus. Its clock is sixty times as fast: `for`, ranges and offsets are a sixtieth.
// Thresholds stay.
func TestWatched(t *testing.T) {
	w := newWatched(t)
	if !t.Run("no alert fires in an hour without faults", w.testHour) {
		return
	}
	t.Run("faults fire their alerts", w.testFaults)
	t.Run("each query finds series", w.testQueries)
}

type watched struct {
	*fixture
	server     string
	begun      time.Time
	webhook    *process
	policyFile string
	relayed    *barepod.Pod
	// late has no session: it is started by a test.
	late *barepod.Pod
}

func newWatched(t *testing.T) *watched {
	w := &watched{fixture: newFixture(t, cluster.Options{})}
	for _, name := range []string{"prometheus-k8s", "stranger"} {
		testkit.Must(t, w.ServiceAccount(t.Context(), "monitoring", name))
	}
	values := []string{"-f", valuesFile(t, managed)}
	w.install(t, values...)

	_, environment := w.startAWS(t)
	all := render(t, values...)
	w.policyFile = valuesFile(t, renderedPolicy(t, values...))
	w.webhook = w.startDeployment(t, "ampbridge-webhook", all, w.policyFile)
	sync := w.startDeployment(t, "ampbridge-sync", all, w.policyFile, environment...)

	site := barepod.New(t)
	program := tools.Path(t, "prometheus")
	pod := func(delivery policy.Delivery) (*barepod.Pod, int) {
		port := testkit.FreePort(t)
		p := site.Pod(t, barepod.Options{Program: program, Version: "3.15", Delivery: delivery, MetricsPort: port})
		return p, port
	}
	targets := []scrape{
		{"ampbridge-webhook", namespace, "ampbridge-webhook-0", w.webhook.metrics},
		{"ampbridge-sync", namespace, "ampbridge-sync-0", sync.metrics},
	}
	add := func(name string, p *barepod.Pod, port int) {
		targets = append(targets, scrape{"sidecars", "monitoring", name, fmt.Sprintf("127.0.0.1:%d", port)},
			scrape{"prometheus", "monitoring", name, p.Address()})
	}
	relayed, port := pod(policy.DeliveryRelay)
	add("relayed-0", relayed, port)
	signing, port := pod(policy.DeliverySigV4)
	add("signing-0", signing, port)
	late, port := pod(policy.DeliveryRelay)
	add("late-0", late, port)
	w.relayed, w.late = relayed, late
	sync.shows(t, "\nampbridge_audit_last_success_timestamp_seconds 1", "\nampbridge_sync_last_success_timestamp_seconds 1")
	relayed.Start(t)
	signing.Start(t)

	rules := ruleFile(t)
	w.server, w.begun = watch(t, faster(rules), targets), time.Now()
	return w
}

// testHour waits for an hour of the fast clock.
func (w *watched) testHour(t *testing.T) {
	w.review(t, "prometheus-k8s")
	time.Sleep(time.Until(w.begun.Add(62 * time.Second)))
	if up := w.query(t, `count(up == 1)`); len(up) != 1 || up[0].Value[1] != "6" {
		t.Fatalf("targets that are scraped: %v, want 6", up)
	}
	if fired := w.query(t, `count_over_time(ALERTS{alertstate="firing"}[1h])`); len(fired) > 0 {
		t.Errorf("alerts fired: %v", fired)
	}
	if evaluated := w.query(t, `prometheus_rule_evaluation_failures_total > 0`); len(evaluated) > 0 {
		t.Errorf("rules failed: %v", evaluated)
	}
}

// testFaults plays faults from end to end.
func (w *watched) testFaults(t *testing.T) {
	// STS gives a pod no session, from its start.
	stop := w.late.Fail("sts:AssumeRoleWithWebIdentity", awstest.Deny)
	defer stop()
	w.late.Start(t)
	// AMP refuses what another pod writes.
	defer w.relayed.Fail("aps:RemoteWrite", awstest.Respond(http.StatusBadRequest, "ValidationException", "out of order"))()
	// A workload's pods hang on an image that cannot be pulled.
	w.hang(t)
	// Someone has no grant, and then the webhook cannot look up service accounts.
	w.review(t, "stranger")
	testkit.Must(t, w.Client().RbacV1().ClusterRoleBindings().Delete(t.Context(), "ampbridge-webhook", metav1.DeleteOptions{}))
	testkit.Eventually(t, "a look-up fails", func() bool {
		w.review(t, "prometheus-k8s")
		return len(w.query(t, `ampbridge_admission_decisions_total{decision="error"}`)) > 0
	})
	// The policy has a mistake.
	testkit.WriteFile(t, w.policyFile, "kind: Policy\nno-such-field: 1\n")
	for _, alert := range []string{
		`AmpbridgeNoSession",pod="late-0`, `AmpbridgeWritesRefused",pod="relayed-0`, `AmpbridgeSamplesRefused",pod="relayed-0`,
		"AmpbridgePolicyRefused", "AmpbridgeNotGranted", "AmpbridgeAdmissionErrors", "AmpbridgePodsHang", "AmpbridgeCircuitOpen",
	} {
		testkit.Eventually(t, alert+" fires", func() bool {
			// Some are over soon, by this clock.
			return len(w.query(t, `last_over_time(ALERTS{alertstate="firing",alertname="`+alert+`"}[1h])`)) > 0
		})
	}
	for _, alert := range []string{`AmpbridgeNoSession",pod="relayed-0`, `AmpbridgeSamplesRefused",pod="signing-0`} {
		if found := w.query(t, `ALERTS{alertname="`+alert+`"}`); len(found) > 0 {
			t.Errorf("an alert about a pod that is well: %v", found)
		}
	}
}

// testQueries runs each query of the alerts and of the dashboard as it stands, and asks
// for each of its selectors by itself: it must find a series, so that a metric or a label
// that no program exports is found out.
func (w *watched) testQueries(t *testing.T) {
	// A kernel without the CPU controller shows no throttling.
	_, err := os.Stat("/sys/fs/cgroup/cpu.stat")
	throttling := err == nil
	if _, err := os.Stat("/sys/fs/cgroup/cpu/cpu.stat"); err == nil {
		throttling = true
	}
	asked := 0
	check := func(from, expression string) {
		w.query(t, expression)
		var parsed struct{ Data json.RawMessage }
		testkit.Must(t, get(t, w.server+"/api/v1/parse_query?query="+url.QueryEscape(expression), &parsed))
		var node any
		testkit.DecodeJSON(t, parsed.Data, &node)
		found := selectors(node)
		if len(found) == 0 {
			t.Errorf("%s: %s selects nothing", from, expression)
		}
		for _, selector := range found {
			asked++
			if strings.Contains(selector, "ampbridge_cpu_throttled") && !throttling {
				continue
			}
			if len(w.query(t, "last_over_time("+selector+"[1h])")) == 0 {
				t.Errorf("%s: no program exports %s", from, selector)
			}
		}
	}
	for _, r := range alertRules(t) {
		check(r.Alert, r.Expr)
	}
	variables := strings.NewReplacer("$cluster", ".*", "$namespace", ".*", "$system", namespace, "$__rate_interval", "1m")
	dashboard := readDashboard(t)
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			expression := variables.Replace(target.Expr)
			if strings.Contains(expression, "$") {
				t.Errorf("%s: unknown variable in %s", panel.Title, expression)
			}
			check("the dashboard's panel "+panel.Title, expression)
			// The figures at the top have one answer.
			if answer := w.query(t, expression); panel.Type == "stat" && len(answer) != 1 {
				t.Errorf("%s: %s: %v", panel.Title, expression, answer)
			}
		}
	}
	for _, v := range dashboard.Templating.List {
		if metric, label, ok := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(v.Definition, "label_values("), ")"), "}, "); ok {
			check("the variable "+v.Name, variables.Replace(metric+"}"))
			if label == "namespace" && len(w.query(t, variables.Replace(metric+`,namespace!=""}`))) == 0 {
				t.Errorf("the variable %s finds no %s", v.Name, label)
			}
		}
	}
	if asked < 80 {
		t.Errorf("only %d selectors", asked)
	}
	// The check itself: what no program exports is found out.
	if len(w.query(t, `last_over_time(ampbridge_session_vald[1h])`)) > 0 {
		t.Error("a misspelt metric is found")
	}
}

// selectors returns the vector selectors of a query that the API has parsed, without
// offsets and ranges.
func selectors(node any) (list []string) {
	switch n := node.(type) {
	case []any:
		for _, child := range n {
			list = append(list, selectors(child)...)
		}
	case map[string]any:
		if kind := n["type"]; kind == "vectorSelector" || kind == "matrixSelector" {
			var matchers []string
			for _, m := range n["matchers"].([]any) {
				matcher := m.(map[string]any)
				matchers = append(matchers, fmt.Sprintf("%s%s%q", matcher["name"], matcher["type"], matcher["value"]))
			}
			return []string{"{" + strings.Join(matchers, ",") + "}"}
		}
		for _, child := range n {
			list = append(list, selectors(child)...)
		}
	}
	return list
}

// review asks the webhook about a pod of a service account, as the API server does, and
// returns the pod with what the webhook changes.
func (w *watched) review(t *testing.T, serviceAccount string) (pod corev1.Pod) {
	t.Helper()
	raw, err := json.Marshal(prometheusPod(serviceAccount))
	testkit.Must(t, err)
	body, err := json.Marshal(admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "1", Kind: metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Resource:  metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Namespace: "monitoring", Name: "review", Operation: admissionv1.Create, Object: runtime.RawExtension{Raw: raw},
		},
	})
	testkit.Must(t, err)
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		"https://"+w.webhook.addr+registration.PodPath+string(policy.InjectionEnabled), bytes.NewReader(body))
	testkit.Must(t, err)
	request.Header.Set("Content-Type", "application/json")
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
	response, err := client.Do(request)
	testkit.Must(t, err)
	text := testkit.ReadBody(t, response)
	if response.StatusCode != http.StatusOK {
		t.Fatalf("the webhook answers with %s", response.Status)
	}
	var answer admissionv1.AdmissionReview
	testkit.DecodeJSON(t, text, &answer)
	if patch := answer.Response.Patch; len(patch) > 0 {
		decoded, err := jsonpatch.DecodePatch(patch)
		testkit.Must(t, err)
		raw, err = decoded.Apply(raw)
		testkit.Must(t, err)
	}
	testkit.DecodeJSON(t, raw, &pod)
	return pod
}

// hang makes a workload with an injected pod that hangs on the sidecar's image.
func (w *watched) hang(t *testing.T) {
	t.Helper()
	injected := w.review(t, "prometheus-k8s")
	if len(injected.Spec.InitContainers) == 0 {
		t.Fatal("the webhook does not inject")
	}
	template := corev1.PodTemplateSpec{
		ObjectMeta: metav1.ObjectMeta{Labels: injected.Labels, Annotations: injected.Annotations}, Spec: injected.Spec,
	}
	_, err := w.Client().AppsV1().Deployments("monitoring").Create(t.Context(), &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: "hangs"},
		Spec:       appsv1.DeploymentSpec{Selector: &metav1.LabelSelector{MatchLabels: template.Labels}, Template: template},
	}, metav1.CreateOptions{})
	testkit.Must(t, err)
	pods := w.Client().CoreV1().Pods("monitoring")
	testkit.Eventually(t, "the pod is there, and hangs", func() bool {
		list, err := pods.List(t.Context(), metav1.ListOptions{LabelSelector: "app=hangs"})
		testkit.Must(t, err)
		if len(list.Items) == 0 {
			return false
		}
		pod := list.Items[0]
		image := pod.Spec.InitContainers[0].Image
		pod.Status.Phase = corev1.PodPending
		pod.Status.InitContainerStatuses = []corev1.ContainerStatus{{
			Name: sidecarconfig.ContainerName, Image: image, Started: new(false),
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{
				Reason: "ImagePullBackOff", Message: "Back-off pulling image " + image,
			}},
		}}
		_, err = pods.UpdateStatus(t.Context(), &pod, metav1.UpdateOptions{})
		return err == nil
	})
}

// prometheusPod is a pod that can be injected.
func prometheusPod(serviceAccount string) *corev1.Pod {
	return &corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "review", Namespace: "monitoring", Labels: map[string]string{"app": "hangs"}},
		Spec:       webhooktest.Prometheus(serviceAccount),
	}
}

type sample struct {
	Metric map[string]string
	Value  []any
}

func (w *watched) query(t *testing.T, expression string) []sample {
	t.Helper()
	var answer struct{ Data struct{ Result []sample } }
	if err := get(t, w.server+"/api/v1/query?query="+url.QueryEscape(expression), &answer); err != nil {
		t.Error(err)
	}
	return answer.Data.Result
}

// get decodes what Prometheus answers.
func get(t *testing.T, url string, v any) error {
	t.Helper()
	text, err := testkit.Request(t.Context(), http.MethodGet, url)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(text), v)
}

// faster makes the rules' clock sixty times as fast: a duration in minutes or hours is a
// sixtieth.
func faster(rules string) string {
	sixtieth := func(s string) string {
		return strings.NewReplacer("m", "s", "h", "m").Replace(s)
	}
	rules = regexp.MustCompile(`for: \d+[mh]\b`).ReplaceAllStringFunc(rules, func(s string) string {
		return "for: " + sixtieth(s[len("for: "):])
	})
	rules = regexp.MustCompile(`offset \d+[mh]\b`).ReplaceAllStringFunc(rules, func(s string) string {
		return "offset " + sixtieth(s[len("offset "):])
	})
	return regexp.MustCompile(`\[\d+[mh]\]`).ReplaceAllStringFunc(rules, sixtieth)
}

// scrape is a target, with the labels that the operator gives it.
type scrape struct{ job, namespace, pod, address string }

// watch starts a Prometheus with the rules.
func watch(t *testing.T, rules string, targets []scrape) (server string) {
	t.Helper()
	dir := t.TempDir()
	testkit.WriteFile(t, filepath.Join(dir, "rules.yml"), rules)
	config := "global: {scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}\nrule_files: [rules.yml]\nscrape_configs:\n"
	for i, s := range targets {
		config += fmt.Sprintf("- job_name: %q\n  static_configs: [{targets: [%q], labels: {job: %s, namespace: %s, pod: %s}}]\n",
			fmt.Sprint(i), s.address, s.job, s.namespace, s.pod)
	}
	testkit.WriteFile(t, filepath.Join(dir, "prometheus.yml"), config)
	addr := testkit.FreeAddr(t)
	run(t, tools.Path(t, "prometheus"), "--config.file="+filepath.Join(dir, "prometheus.yml"),
		"--storage.tsdb.path="+filepath.Join(dir, "data"), "--web.listen-address="+addr, "--log.level=warn")
	testkit.EventuallyEmpty(t, func() string { return answers(t, "http://"+addr+"/-/ready", "Ready") })
	return "http://" + addr
}

type grafanaDashboard struct {
	Templating struct {
		List []struct{ Name, Definition string }
	}
	Panels []struct {
		Title, Type string
		Targets     []struct{ Expr string }
	}
}

func readDashboard(t *testing.T) (d grafanaDashboard) {
	t.Helper()
	testkit.DecodeJSON(t, chartFile(t, "files", "dashboard.json"), &d)
	return d
}

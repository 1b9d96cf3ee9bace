package admission_test

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
	"github.com/ampbridge/ampbridge/webhook"
)

// A policy with mistakes is refused when it is applied, and the error lists all mistakes. Policies of a
// version that the webhook does not know are accepted, as are all other ConfigMaps. The last good version
// survives a restart.
func TestPolicyIsReviewed(t *testing.T) {
	kubectl := tools.Path(t, "kubectl")
	f := newCluster(t)
	i := f.install(t)
	accepted := f.Client().CoreV1().ConfigMaps(home)
	_, err := accepted.Create(
		t.Context(),
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: webhook.AcceptedConfigMap}},
		metav1.CreateOptions{},
	)
	testkit.Must(t, err)
	testkit.Must(t, f.Namespace(t.Context(), "test-elsewhere", nil))
	p := f.start(t, i)
	p.ready(t)
	f.register(t, p, i)

	base := testkit.ReadFile(t, "testdata/policy.yaml")
	good := base
	wrong := strings.Replace(good, "destinations: [", "destinations: [centrall, ", 1)
	apply := func(namespace, name, version, text string) (string, error) {
		object := &corev1.ConfigMap{
			TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "ConfigMap"},
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
			Data:       map[string]string{"policy.yaml": text},
		}
		if version != "" {
			object.Annotations = map[string]string{policy.AnnotationVersion: version}
		}
		data, err := json.Marshal(object)
		testkit.Must(t, err)
		cmd := exec.CommandContext(t.Context(), kubectl, "--kubeconfig", f.Kubeconfig(), "apply", "-f", "-")
		cmd.Stdin = bytes.NewReader(data)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	// The API server needs a moment to notice the registration.
	var refusal string
	testkit.Eventually(t, "a policy with a wrong destination is refused", func() bool {
		out, err := apply(home, "ampbridge-policy", policy.SchemaVersion, wrong+"pausd: true\n")
		refusal = out
		return err != nil
	})
	t.Logf("kubectl apply: %s", refusal)
	for _, want := range []string{"policy.webhook.ampbridge.io", "policy.yaml: line ", "grants[0].destinations[0]", `"centrall"`,
		"pausd: unknown field: did you mean paused?"} {
		if !strings.Contains(refusal, want) {
			t.Errorf("kubectl does not show %s", want)
		}
	}
	for _, step := range []struct {
		what, namespace, name, version, text string
		refused                              bool
		want                                 string
	}{
		{"a good policy", home, "ampbridge-policy", policy.SchemaVersion, good, false, ""},
		{"an upgrade, before the new webhook runs", home, "ampbridge-policy", "1000", good + "fieldOfTheFuture: 1\n", false,
			"Warning: ampbridge: the policy was not checked"},
		{"its rollback", home, "ampbridge-policy", policy.SchemaVersion, good, false, ""},
		{"the newer policy with this version's annotation", home, "ampbridge-policy", policy.SchemaVersion, good + "fieldOfTheFuture: 1\n", true,
			"fieldOfTheFuture"},
		{"a rollback to an older version", home, "ampbridge-policy", "0", "old: 1\n", false, "Warning: "},
		{"another ConfigMap", home, "other", "", wrong, false, ""},
		{"the same name elsewhere", "test-elsewhere", "ampbridge-policy", "", wrong, false, ""},
	} {
		out, err := apply(step.namespace, step.name, step.version, step.text)
		if (err != nil) != step.refused || !strings.Contains(out, step.want) || step.want == "" && strings.Contains(out, "Warning") {
			t.Errorf("%s: got %v: %s", step.what, err, out)
		}
	}
	metrics, err := f.Metrics(t.Context())
	testkit.Must(t, err)
	if n := strings.Count(metrics, "policy.webhook.ampbridge.io"); n == 0 {
		t.Error("the API server counts no call")
	}

	testkit.Eventually(t, "the good policy is kept", func() bool {
		object, err := accepted.Get(t.Context(), webhook.AcceptedConfigMap, metav1.GetOptions{})
		testkit.Must(t, err)
		return object.Data["accepted.yaml"] == good
	})
	p.stop()
	testkit.WriteFile(t, f.policyFile, wrong)
	again := f.start(t, i)
	again.ready(t)
	if log := f.log.String(); !strings.Contains(log, "policy restored") {
		t.Errorf("the log does not mention the copy: %s", log)
	}
	if text := again.scrape(
		t,
	); !strings.Contains(text, "ampbridge_policy_from_accepted_copy 1") ||
		!strings.Contains(text, "ampbridge_policy_last_load_success 0") {
		t.Errorf("the metrics do not show the copy")
	}
}

// Package kinds_test is the conformance test: every kind of Prometheus that
// ampbridge serves, made by whoever makes it in real life (prometheus-operator,
// the prometheus-community chart, hands), with every way by which a changed
// configuration reaches it. docs/compatibility.md is its table in prose.
//
// Pods run as the API server stored them after admission, but for their ports:
// see [env.Ports].
package kinds_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/kubelet"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

func TestMain(m *testing.M) {
	kubelet.Init()
	os.Exit(m.Run())
}

const (
	// promised is within what time a change that has reached the source is live,
	// block included; slack is for machines that are busy with other tests.
	promised, slack = 2 * time.Second, 4 * time.Second
)

// row is one line of the table.
type row struct {
	name   string
	reload inject.Reload
	// tag of the Prometheus image.
	tag string
	// create makes the pod's owner, and returns the pod as the API server
	// stored it.
	create func(*fixture, asked) (made, error)
}

// asked is what a row's maker is to make.
type asked struct {
	testing.TB
	// name is unique among the rows, and a DNS label.
	name string
	tag  string
	// config is the user's configuration; it changes.
	config string
	ports  env.Ports
}

// made is a pod, and how its user changes its configuration.
type made struct {
	pod *corev1.Pod
	set func(ctx context.Context, config string) error
}

const (
	current = "v3.15.0"
	sdkV1   = "v3.1.0" // the last generation of Prometheus with version 1 of the AWS SDK
)

var rows = []row{
	{"operator-prometheus", inject.ReloadByReloader, current, operators("prometheus.yaml", "prometheus-%s-0")},
	{"sdk-v1-operator-prometheus", inject.ReloadByReloader, sdkV1, operators("prometheus.yaml", "prometheus-%s-0")},
	{"operator-agent", inject.ReloadByReloader, current, operators("agent.yaml", "prom-agent-%s-0")},
	{"sdk-v1-operator-agent", inject.ReloadByReloader, sdkV1, operators("agent.yaml", "prom-agent-%s-0")},
	{"operator-agent-daemonset", inject.ReloadByReloader, current, operators("agent-daemonset.yaml", "prom-agent-%s-")},
	{"chart-deployment", inject.ReloadByReloader, current, chart("chart-deployment.yaml", asIs)},
	{"sdk-v1-chart-deployment", inject.ReloadByReloader, sdkV1, chart("chart-deployment.yaml", asIs)},
	{"chart-daemonset", inject.ReloadByReloader, current, chart("chart-daemonset.yaml", asIs)},
	{"chart-statefulset", inject.ReloadByReloader, current, chart("chart-deployment.yaml", asStatefulSet)},
	{"chart-secret", inject.ReloadByReloader, current, chart("chart-deployment.yaml", fromSecret)},
	{"chart-configmap-reload", inject.ReloadByReloader, current, chart("chart-deployment.yaml", withConfigmapReload)},
	{"hand-default-path", inject.ReloadNone, current, hand(defaultPath)},
	{"hand-flag-and-value", inject.ReloadByReloader, current, hand(flagAndValue)},
	{"hand-shell", inject.ReloadBySelf, current, hand(shell)},
	{"hand-projected", inject.ReloadBySelf, current, hand(projected)},
	{"hand-feature", inject.ReloadBySelf, current, hand(feature)},
	{"sdk-v1-hand-feature", inject.ReloadBySelf, sdkV1, hand(feature)},
	{"hand-sub-path", inject.ReloadNone, current, hand(subPath)},
	{"hand-agent", inject.ReloadBySelf, current, hand(agent)},
	{"hand-agent-v2", inject.ReloadByReloader, "v2.42.0", hand(agentV2)},
	{"hand-named-container", inject.ReloadBySelf, current, hand(namedContainer)},
}

func TestKinds(t *testing.T) {
	f := newFixture(t)
	f.startOperator(t)
	// One after the other: the last two change the policy.
	t.Run("rows", func(t *testing.T) {
		for _, r := range rows {
			t.Run(r.name, func(t *testing.T) {
				t.Parallel() // they wait most of the time
				conforms(t, f, r)
			})
		}
	})
	t.Run("two-accounts", func(t *testing.T) { twoAccounts(t, f) })
	t.Run("newer-field", func(t *testing.T) { newerField(t, f) })
}

// conforms runs a row's pod: its samples arrive signed, and a change of the
// user's is live with the block in it, without a restart.
func conforms(t *testing.T, f *fixture, r row) {
	ctx, begun := t.Context(), time.Now()
	ports, err := env.NewPorts()
	if err != nil {
		t.Fatal(err)
	}
	a := asked{TB: t, name: r.name, tag: r.tag, config: configuration("first-"+r.name, ports), ports: ports}
	m, err := r.create(f, a)
	if err != nil {
		t.Fatal(err)
	}
	var mark inject.Injected
	if err := json.Unmarshal([]byte(m.pod.Annotations[inject.AnnotationInjected]), &mark); err != nil {
		log, _ := f.WebhookLog()
		t.Fatalf("the pod is not injected: %v\n%s", err, log)
	}
	if mark.Reload != r.reload {
		t.Errorf("reload is %q, want %q", mark.Reload, r.reload)
	}
	p := f.run(t, ports.Move(m.pod))
	p.arrives("first-" + r.name)
	started := time.Since(begun)
	took := "with the next start"
	if r.reload != inject.ReloadNone {
		// Twice: a reloader that watches the file, and not its directory, is told
		// of the first change by the kubelet's way of writing, and of no other.
		var slowest time.Duration
		for _, job := range []string{"second-" + r.name, "third-" + r.name} {
			lag := p.changes(func() error { return m.set(ctx, configuration(job, ports)) }, job)
			if slowest = max(slowest, lag); lag > promised+slack {
				t.Errorf("the change was live %s after it had reached the source, more than %s", lag, promised)
			}
			p.arrives(job)
		}
		took = fmt.Sprintf("live after %.1f s", slowest.Seconds())
	}
	p.unharmed()
	t.Logf("%-28s %-8s %q: first sample after %.1f s, change %s", r.name, r.tag, string(r.reload), started.Seconds(), took)
}

// subject is a pod that runs.
type subject struct {
	*testing.T
	*env.Prometheus
	fixture *fixture
}

// run plays the kubelet for a pod until the test ends.
func (f *fixture) run(t *testing.T, pod *corev1.Pod) *subject {
	t.Helper()
	p := f.PrometheusOf(pod)
	p.StartFor(t)
	return &subject{t, p, f}
}

func (p *subject) eventually(what string, condition func() bool) {
	p.Helper()
	p.Eventually(p.T, what, condition)
}

// arrives waits for samples of a job in the workspace. AWS's double stores none
// that is not signed by a session of the workspace's role.
func (p *subject) arrives(job string) { p.arrivesIn(p.fixture.Workspace.ID, job) }

func (p *subject) arrivesIn(workspace, job string) {
	p.Helper()
	promql := fmt.Sprintf(`up{job=%q,cluster=%q}`, job, env.ClusterName)
	p.eventually("samples of job "+job, func() bool {
		found, err := p.fixture.Cloud.Query(p.Context(), workspace, promql)
		return err == nil && len(found) == 1
	})
}

// changes has the user change the configuration, and returns how long after the
// change has reached the source volume Prometheus has applied it, with the block
// in it.
func (p *subject) changes(change func() error, job string) time.Duration {
	p.Helper()
	data := filepath.Join(p.Pod.VolumeDir(sidecarconfig.VolumeSource), "..data")
	before, err := os.Readlink(data)
	if err != nil {
		p.Fatal(err)
	}
	if err := change(); err != nil {
		p.Fatal(err)
	}
	var reached time.Time
	p.eventually("the change to reach the source", func() bool {
		now, err := os.Readlink(data)
		reached = time.Now()
		return err == nil && now != before
	})
	p.eventually("the change to be live", func() bool {
		loaded := env.LoadedConfig(p.Context(), p.Object)
		return strings.Contains(loaded, "job_name: "+job+"\n") && strings.Contains(loaded, "ampbridge-central")
	})
	return time.Since(reached)
}

// unharmed fails the test if anything in the pod ever restarted, or Prometheus
// refused a configuration.
func (p *subject) unharmed() {
	p.Helper()
	for _, containers := range [][]corev1.Container{p.Object.Spec.InitContainers, p.Object.Spec.Containers} {
		for _, c := range containers {
			if n := p.Pod.Container(c.Name).Restarts(); n != 0 {
				p.Errorf("container %s restarted %d times; exit codes %v", c.Name, n, p.Pod.Container(c.Name).ExitCodes())
			}
		}
	}
	p.CheckLoaded(p.T)
	for _, w := range p.fixture.Cloud.Writes(p.fixture.Workspace.ID) {
		if !w.Stored() {
			p.Errorf("a write at %s was refused: %d %s", w.Time.Format(time.TimeOnly), w.Status, w.Reason)
		}
	}
}

// configuration has the server scrape itself under a name.
func configuration(job string, ports env.Ports) string {
	return fmt.Sprintf(`global:
  scrape_interval: 1s
scrape_configs:
- job_name: %s
  static_configs:
  - targets: [%s]
  metric_relabel_configs:
  - {source_labels: [__name__], regex: (up|scrape_.*), action: keep}
`, job, ports.Target())
}

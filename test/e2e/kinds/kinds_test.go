// Package kinds_test is the conformance test. It tests every kind of Prometheus that ampbridge supports,
// created by the same program or person as in production (prometheus-operator, the prometheus-community
// chart, manual manifests), with every way in which a changed configuration reaches it.
// docs/reference/compatibility.md has its table.
//
// Pods run as the API server stored them after admission, except for their ports: see [env.Ports].
package kinds_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/kubelet"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

func TestMain(m *testing.M) { kubelet.Main(m) }

const (
	// promised is how soon a change that has reached the source must be live, with the block. slack is for
	// machines that are busy with other tests.
	promised, slack = 2 * time.Second, 4 * time.Second
)

// row is one line of the table.
type row struct {
	name   string
	reload inject.Reload
	// why is a part of the reason for the relay; empty if the delivery is sigv4.
	why string
	// tag is the tag of the Prometheus image.
	tag string
	// create creates the pod's owner, and returns the pod as the API server stored it.
	create func(*fixture, asked) (made, error)
}

// asked describes what a row's create must create.
type asked struct {
	testing.TB
	// name is a DNS label that is unique among the rows.
	name string
	tag  string
	// config is the user's configuration. It changes during the test.
	config string
	ports  env.Ports
}

// made is a pod, with the function with which its user changes the configuration.
type made struct {
	pod *corev1.Pod
	set func(ctx context.Context, config string) error
	// applies makes Prometheus apply a change in a way that the webhook cannot detect. If nil, Prometheus
	// applies it at its next start.
	applies func(*subject)
}

const (
	current = "v3.15.0"
	sdkV1   = "v3.1.0"  // the last generation of Prometheus with version 1 of the AWS SDK
	old     = "v2.22.0" // it does not support sigv4
)

var rows = []row{
	{"operator-prometheus", inject.ReloadByReloader, webConfig, current, operators("prometheus.yaml", "prometheus-%s-0")},
	{"sdk-v1-operator-prometheus", inject.ReloadByReloader, webConfig, sdkV1, operators("prometheus.yaml", "prometheus-%s-0")},
	{"operator-agent", inject.ReloadByReloader, webConfig, current, operators("agent.yaml", "prom-agent-%s-0")},
	{"sdk-v1-operator-agent", inject.ReloadByReloader, webConfig, sdkV1, operators("agent.yaml", "prom-agent-%s-0")},
	{"operator-agent-daemonset", inject.ReloadByReloader, webConfig, current, operators("agent-daemonset.yaml", "prom-agent-%s-")},
	{"chart-deployment", inject.ReloadByReloader, "", current, chart("chart-deployment.yaml", asIs)},
	{"sdk-v1-chart-deployment", inject.ReloadByReloader, "", sdkV1, chart("chart-deployment.yaml", asIs)},
	{"chart-daemonset", inject.ReloadByReloader, "", current, chart("chart-daemonset.yaml", asIs)},
	{"chart-statefulset", inject.ReloadByReloader, "", current, chart("chart-deployment.yaml", asStatefulSet)},
	{"chart-secret", inject.ReloadByReloader, "", current, chart("chart-deployment.yaml", fromSecret)},
	{"chart-configmap-reload", inject.ReloadByReloader, "", current, chart("chart-deployment.yaml", withConfigmapReload)},
	{"chart-other-tag", inject.ReloadByReloader, "the label app.kubernetes.io/version is 3.14", current,
		chart("chart-deployment.yaml", withOldLabel)},
	{"hand-default-path", inject.ReloadNone, noReloader, current, hand(defaultPath)},
	{"hand-flag-and-value", inject.ReloadByReloader, "", current, hand(flagAndValue)},
	{"hand-shell", inject.ReloadBySelf, "", current, hand(shell)},
	{"hand-projected", inject.ReloadBySelf, "", current, hand(projected)},
	{"hand-feature", inject.ReloadBySelf, "", current, hand(feature)},
	{"sdk-v1-hand-feature", inject.ReloadBySelf, "", sdkV1, hand(feature)},
	{"hand-annotation", inject.ReloadBySelf, "annotation asks for the relay", current, hand(annotated)},
	{"hand-sub-path", inject.ReloadNone, "mounted with subPath", current, hand(subPath)},
	{"hand-agent", inject.ReloadBySelf, "", current, hand(agent)},
	{"hand-agent-v2", inject.ReloadByReloader, "", "v2.42.0", hand(agentV2)},
	{"hand-old", inject.ReloadByReloader, "2.22 cannot sign", old, hand(flagAndValue)},
	{"hand-named-container", inject.ReloadBySelf, "", current, hand(namedContainer)},
	{"hand-signal", inject.ReloadNone, noReloader, current, applying(hangUp, hand(signalled))},
	{"hand-rbac-proxy", inject.ReloadNone, noReloader, current, hand(rbacProxy)},
	{"hand-alertmanager-reloader", inject.ReloadNone, "does not call Prometheus's own reload address", current, hand(othersReloader)},
	{"hand-expanded-once", inject.ReloadNone, "written only once", current, hand(expandedOnce)},
	{"hand-unknown-version", inject.ReloadNone, "version of Prometheus is not known", current, applying(byItself, hand(unknownVersion))},
	{"hand-own-aws-files", inject.ReloadBySelf, "sets AWS_SHARED_CREDENTIALS_FILE", current, hand(ownFiles)},
	{"hand-env-from", inject.ReloadBySelf, "has envFrom", current, hand(envFrom)},
}

const (
	webConfig  = "--web.config.file"
	noReloader = "nothing in the pod reloads Prometheus"
)

func TestKinds(t *testing.T) {
	f := newFixture(t)
	f.startOperator(t)
	// They run one after the other, because the last two change the policy.
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

// conforms runs a row's pod. Its samples must arrive signed. A change of the user's configuration must be
// live together with the block, without a restart.
func conforms(t *testing.T, f *fixture, r row) {
	begun := time.Now()
	ports, err := env.NewPorts()
	testkit.Must(t, err)
	a := asked{TB: t, name: r.name, tag: r.tag, config: configuration("first-"+r.name, ports), ports: ports}
	m, err := r.create(f, a)
	testkit.Must(t, err)
	if !env.Injected(m.pod) {
		log, err := f.WebhookLog()
		t.Fatalf("the pod is not injected (%v)\n%s", err, log)
	}
	mark := injection(t, m.pod)
	if mark.Reload != r.reload {
		t.Errorf("reload is %q, want %q", mark.Reload, r.reload)
	}
	delivery := policy.DeliverySigV4
	if r.why != "" {
		delivery = policy.DeliveryRelay
	}
	if mark.Delivery["central"] != delivery || mark.Why != "" != (r.why != "") || !strings.Contains(mark.Why, r.why) {
		t.Errorf("delivery is %q because %q, want %s because %q", mark.Delivery, mark.Why, delivery, r.why)
	}
	moved := ports.Move(m.pod)
	moved.Spec.ShareProcessNamespace = nil // here all pods are processes of this machine
	p := f.run(t, moved)
	p.arrives("first-" + r.name)
	started := time.Since(begun)
	took := "with the next start"
	if r.reload != inject.ReloadNone || m.applies != nil {
		// The change is made twice. A reloader that watches the file instead of its directory would notice
		// only the first change, because of the kubelet's way of writing.
		var slowest time.Duration
		for _, job := range []string{"second-" + r.name, "third-" + r.name} {
			lag := p.changes(m, configuration(job, ports), job)
			if slowest = max(slowest, lag); lag > promised+slack {
				t.Errorf("the change was live %s after it had reached the source, more than %s", lag, promised)
			}
			p.arrives(job)
		}
		took = fmt.Sprintf("live after %.1f s", slowest.Seconds())
	}
	p.unharmed()
	p.signs(delivery == policy.DeliverySigV4)
	t.Logf("%-28s %-8s %q, %s: first sample after %.1f s, change %s", r.name, r.tag, string(r.reload), delivery, started.Seconds(), took)
}

// subject is a running pod.
type subject struct {
	*testing.T
	*env.Prometheus
	fixture *fixture
}

// run runs a pod, as the kubelet would, until the test ends.
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

// arrives waits for samples of a job in the workspace. AWS's double stores only samples that are signed by a
// session of the workspace's role.
func (p *subject) arrives(job string) { p.arrivesIn(p.fixture.Workspace.ID, job) }

func (p *subject) arrivesIn(workspace, job string) {
	p.Helper()
	promql := fmt.Sprintf(`up{job=%q,cluster=%q}`, job, env.ClusterName)
	p.eventually("samples of job "+job, func() bool {
		found, err := p.fixture.Cloud.Query(p.Context(), workspace, promql)
		return err == nil && len(found) == 1
	})
}

// changes writes a new configuration as the user would. It returns how long after the change reached the
// source volume Prometheus has applied it, together with the block.
func (p *subject) changes(m made, config, job string) time.Duration {
	p.Helper()
	source := p.Pod.VolumeDir(sidecarconfig.VolumeSource)
	before, err := testkit.VolumeVersion(source)
	testkit.Must(p, err)
	testkit.Must(p, m.set(p.Context(), config))
	var reached time.Time
	p.eventually("the change to reach the source", func() bool {
		now, err := testkit.VolumeVersion(source)
		reached = time.Now()
		return err == nil && now != before
	})
	p.eventually("the change to be live", func() bool {
		if m.applies != nil {
			m.applies(p)
		}
		return strings.Contains(env.LoadedConfig(p.Context(), p.Object), "job_name: "+job+"\n") && p.hasBlock()
	})
	return time.Since(reached)
}

// hasBlock reports whether Prometheus has a block for the workspace, with any delivery. It does not check the
// block's name, because a block for an unknown version has none.
func (p *subject) hasBlock() bool {
	return strings.Contains(env.LoadedConfig(p.Context(), p.Object), "/workspaces/"+p.fixture.Workspace.ID+"/api/v1/remote_write")
}

// signs checks who signs: Prometheus, by its configuration, or the relay.
func (p *subject) signs(want bool) {
	p.Helper()
	loaded := env.LoadedConfig(p.Context(), p.Object)
	if !p.hasBlock() || strings.Contains(loaded, "sigv4:") != want || strings.Contains(loaded, "password_file:") == want {
		p.Errorf("Prometheus must sign: %t; its configuration is\n%s", want, loaded)
	}
}

// unharmed fails the test if anything in the pod was restarted, or if Prometheus refused a configuration.
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

// configuration returns a configuration with which the server scrapes itself, with a job name.
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

// Package startonly_test runs a real Prometheus in pods that nothing reloads:
// it has to call STS itself, at the very moment at which a failure ends it. So
// it is given the block only while STS provably answers, and whatever STS does
// costs it one start at most.
package startonly_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/kubelet"
)

func TestMain(m *testing.M) {
	kubelet.Init()
	os.Exit(m.Run())
}

var faults = []struct {
	name  string
	fault awstest.Fault
}{{"denying", awstest.Deny}, {"hanging", awstest.Hang}, {"refused", awstest.Refuse}}

// subject is one Prometheus under test.
type subject struct {
	*testing.T
	*env.Prometheus
}

// start runs the chart's pod without its reloader, with external labels; it ends
// with the test.
func start(t *testing.T, e *env.Env, name, labels string, change func(*corev1.Pod)) *subject {
	t.Helper()
	config := strings.Replace(env.ScrapeSelf(name, ""), "scrape_interval: 1s", "scrape_interval: 1s, external_labels: {"+labels+"}", 1)
	p, err := e.CreatePrometheus(t.Context(), env.Chart{Name: name, Config: config, Change: func(pod *corev1.Pod) {
		pod.Spec.Containers = pod.Spec.Containers[1:]
		if change != nil {
			change(pod)
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if mark := p.Object.Annotations["ampbridge.io/injected"]; !strings.Contains(mark, `"reload":"start-only"`) {
		t.Fatalf("injected: %q", mark)
	}
	p.StartFor(t)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.Server().Logs())
			t.Log(p.Sidecar().Logs())
		}
	})
	return &subject{t, p}
}

func (p *subject) eventually(what string, condition func() bool) {
	p.Helper()
	p.Eventually(p.T, what, condition)
}

func (p *subject) ready() {
	p.Helper()
	p.EventuallyReady(p.T, time.Now())
}

// writes reports whether the running Prometheus has the block.
func (p *subject) writes() bool { return p.Writes(p.Context()) }

func (p *subject) arrived() int {
	p.Helper()
	return p.Arrived(p.T)
}

// restarts is how often the server has been started again.
func (p *subject) restarts() int { return p.Server().Restarts() }

// restart kills the server and waits until another one is ready.
func (p *subject) restart() {
	p.Helper()
	// A Prometheus that ends before the sidecar has seen it ready counts as one
	// that did not come up.
	p.eventually("the sidecar to see that it is ready", func() bool {
		text, err := os.ReadFile(filepath.Join(p.Pod.VolumeDir(sidecarconfig.VolumeCredentials), sidecarconfig.StatusFile))
		var status sidecarconfig.Status
		return err == nil && json.Unmarshal(text, &status) == nil && status.Prometheus.Ready
	})
	before := p.restarts()
	if err := p.Server().Kill(syscall.SIGKILL); err != nil {
		p.Fatal(err)
	}
	p.eventually("the server to be started again", func() bool { return p.restarts() > before })
	p.ready()
}

// served reports whether the last configuration that the sidecar served has the
// block: what the next start reads.
func (p *subject) served() bool {
	last := ""
	for line := range strings.Lines(p.Sidecar().Logs()) {
		if strings.Contains(line, `"configuration served"`) {
			last = line
		}
	}
	return strings.Contains(last, `"destinations":["central"]`)
}

// TestPrometheusStartsWhateverSTSDoes: whatever STS does when the pod starts, Prometheus comes up at the
// first attempt, on its own configuration; its next start has the block once STS
// has recovered.
func TestPrometheusStartsWhateverSTSDoes(t *testing.T) {
	e := env.StartSynced(t, env.Options{})
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			fault := e.Cloud.Fail("sts:*", f.fault)
			defer fault.Stop()
			p := start(t, e, "start-"+f.name, "", nil)
			p.ready()
			if p.writes() || p.restarts() != 0 {
				t.Errorf("Prometheus writes: %t, after %d restarts", p.writes(), p.restarts())
			}
			fault.Stop()
			p.eventually("the block to be served", p.served)
			p.restart()
			p.eventually("samples", func() bool { return p.arrived() > 0 })
			if n := p.restarts(); n != 1 {
				t.Errorf("%d restarts, want the one of this test", n)
			}
		})
	}
}

// TestOneStartFailsAtMostWhenSTSFailsLater: samples arrive; then STS fails, and Prometheus is killed at the
// same moment. It comes up, with one failed start at most, and has the block
// again after the next restart.
func TestOneStartFailsAtMostWhenSTSFailsLater(t *testing.T) {
	e := env.StartSynced(t, env.Options{})
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			p := start(t, e, "later-"+f.name, "", nil)
			p.ready()
			p.eventually("samples", func() bool { return p.arrived() > 0 })
			if n := p.restarts(); n != 0 {
				t.Errorf("%d restarts before anything failed", n)
			}
			fault := e.Cloud.Fail("sts:*", f.fault)
			defer fault.Stop()
			p.restart()
			if n := p.restarts(); n > 2 {
				t.Errorf("%d restarts: more than one failed start", n)
			}
			if p.writes() {
				t.Error("Prometheus came up with the block although STS fails")
			}
		})
	}
}

// TestOneStartFailsWhenOnlyPrometheusCannotReachSTS: the sidecar gets sessions, and Prometheus,
// whose owner leads its calls elsewhere, does not. One start fails.
func TestOneStartFailsWhenOnlyPrometheusCannotReachSTS(t *testing.T) {
	e := env.StartSynced(t, env.Options{})
	p := start(t, e, "elsewhere", "", func(pod *corev1.Pod) {
		server := &pod.Spec.Containers[0]
		server.Env = append(server.Env, corev1.EnvVar{Name: "AWS_ENDPOINT_URL_STS", Value: "http://127.0.0.1:1"})
	})
	p.eventually("the failed start", func() bool { return p.restarts() > 0 })
	p.ready()
	p.restart()
	if n := p.restarts(); n != 2 {
		t.Errorf("%d restarts, want a failed start and the one of this test", n)
	}
	if p.writes() {
		t.Error("Prometheus came up with the block although it cannot reach STS")
	}
}

// TestConfigurationMountedAsOneFileIsServed: the configuration mounted with subPath, with an identity and
// a cluster label of the owner's.
func TestConfigurationMountedAsOneFileIsServed(t *testing.T) {
	e := env.StartSynced(t, env.Options{})
	p := start(t, e, "single-file", "cluster: own", func(pod *corev1.Pod) {
		server := &pod.Spec.Containers[0]
		server.VolumeMounts[0] = corev1.VolumeMount{
			Name:      "config-volume",
			MountPath: "/etc/config/prometheus.yml",
			SubPath:   "prometheus.yml",
		}
		server.Env = append(
			server.Env,
			corev1.EnvVar{Name: "AWS_ACCESS_KEY_ID", Value: "AKIAOWN"},
			corev1.EnvVar{Name: "AWS_SECRET_ACCESS_KEY", Value: "own"},
		)
	})
	p.ready()
	p.eventually("samples", func() bool { return p.arrived() > 0 })
	if n := p.restarts(); n != 0 {
		t.Errorf("%d restarts", n)
	}
	samples, err := e.Cloud.Query(t.Context(), e.Workspace.ID, `up{job="single-file"}`)
	if err != nil {
		t.Fatal(err)
	}
	for _, sample := range samples {
		if sample.Metric["cluster"] != "own" {
			t.Errorf("labels %v: the owner's own cluster label is gone", sample.Metric)
		}
	}
}

// TestVolumesMountedInsideTheConfigurationStay: other volumes are mounted inside the configuration's
// directory, which is read-only by then. The sidecar has made room for them.
func TestVolumesMountedInsideTheConfigurationStay(t *testing.T) {
	e := env.StartSynced(t, env.Options{})
	p := start(t, e, "nested", "", func(pod *corev1.Pod) {
		pod.Spec.Volumes = append(
			pod.Spec.Volumes,
			corev1.Volume{Name: "targets", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			corev1.Volume{
				Name: "more",
				VolumeSource: corev1.VolumeSource{
					ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "nested"}},
				},
			},
		)
		server := &pod.Spec.Containers[0]
		server.VolumeMounts = append(server.VolumeMounts,
			corev1.VolumeMount{Name: "targets", MountPath: "/etc/config/targets"},
			corev1.VolumeMount{Name: "more", MountPath: "/etc/config/more.yml", SubPath: "rules.yml"})
	})
	p.ready()
	p.eventually("samples", func() bool { return p.arrived() > 0 })
	if n := p.restarts(); n != 0 {
		t.Errorf("%d restarts", n)
	}
	// The mounts are still in the way after the configuration has changed.
	if err := e.SetConfig(t.Context(), p.Object, "global: {scrape_interval: 1s}\n# changed\n"); err != nil {
		t.Fatal(err)
	}
	p.eventually("the change to be served", func() bool {
		return strings.Count(p.Sidecar().Logs(), "configuration served") > 1
	})
	p.restart()
	if n := p.restarts(); n != 1 {
		t.Errorf("%d restarts, want the one of this test", n)
	}
}

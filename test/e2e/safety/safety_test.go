package safety_test

import (
	"context"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/env"
)

// TestStart: whatever STS does while a pod starts, Prometheus comes up on its
// own configuration, and gets the block without a restart once STS recovers.
func TestStart(t *testing.T) {
	s := scene(t)
	begun := time.Now()
	plain := start(t, s, env.Chart{Name: "plain", Config: config("plain", ""), Annotations: map[string]string{"ampbridge.io/inject": "false"}})
	if env.Injected(plain.pod) {
		t.Fatal("the pod that opted out was injected")
	}
	baseline := plain.ready(begun)
	t.Logf("%-10s ready after %.1f s", "uninjected", baseline.Seconds())

	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			stop := fault.start(s)
			defer stop()
			name := "start-" + strings.ToLower(fault.name)
			begun := time.Now()
			p := start(t, s, env.Chart{Name: name, Config: config(name, "")})
			took := p.ready(begun)
			t.Logf("%-10s ready after %.1f s", fault.name, took.Seconds())
			// The promise is 5 s more than without; twice the baseline leaves room
			// for a busy machine.
			if limit := 2*baseline + 5*time.Second; took > limit {
				t.Errorf("ready after %s, more than %s", took, limit)
			}
			if _, has := env.Metric(t.Context(), p.pod, `prometheus_remote_storage_shards{`); has {
				t.Error("a remote_write is in the configuration although there is no session")
			}
			if n := p.arrived(); n != 0 {
				t.Errorf("%d samples arrived without a session", n)
			}
			stop()
			p.await("samples after STS recovered", func() bool { return p.arrived() > 0 })
			p.unharmed(0)
		})
	}
}

// TestLater: the same faults while Prometheus runs, with a reload each second
// and the user's own remote_write beside ours. No reload fails, nothing
// restarts, and not one sample is lost.
func TestLater(t *testing.T) {
	s := scene(t)
	url, received := sink(t)
	p := start(t, s, env.Chart{Name: "later", Config: config("later", "remote_write:\n- {name: mine, url: \""+url+"\"}\n")})
	p.ready(time.Now())
	p.await("the first samples", func() bool { return p.arrived() > 0 })
	since := time.Now()

	ctx, cancel := context.WithCancel(t.Context())
	var reloading sync.WaitGroup
	reloading.Go(func() {
		for ctx.Err() == nil {
			// A server that is being killed on purpose cannot answer: that is no
			// failed reload, but an HTTP status is.
			if err := env.Reload(ctx, p.pod); err != nil && strings.Contains(err.Error(), "/-/reload: ") {
				t.Errorf("reload: %v", err)
			}
			time.Sleep(time.Second)
		}
	})
	for _, fault := range faults {
		stop := fault.start(s)
		// Longer than any call's time-out, so that reloads meet the fault in
		// every state of the sidecar; and a change of the user's in the middle.
		time.Sleep(4 * time.Second)
		if err := s.SetConfig(t.Context(), p.pod, config("later", "remote_write:\n- {name: mine, url: \""+url+"\"}\n# during "+fault.name+"\n")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second)
		stop()
	}
	p.unharmed(0)
	if v := p.failed(); v != 0 {
		t.Errorf("%v samples failed", v)
	}
	// All that was scraped until now has to arrive; a scrape takes a moment to
	// be sent.
	scraped := p.scraped(since)
	p.await("every scraped sample", func() bool { return p.arrived() >= scraped })
	t.Logf("%d scrapes during four faults, all arrived", scraped)
	if received.Load() == 0 {
		t.Error("the user's own remote_write received nothing")
	}

	// A container restart in the middle of an outage comes up at once: with its
	// block, since the session is still valid.
	stop := s.Cloud.Fail("sts:*", awstest.Hang).Stop
	defer stop()
	for _, container := range []string{"prometheus-server", "ampbridge-config"} {
		killed, before := time.Now(), p.run.Container(container).Restarts()
		if err := p.run.Container(container).Kill(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		p.await(container+" to be back", func() bool { return p.run.Container(container).Restarts() > before })
		t.Logf("%s killed: ready after %.1f s", container, p.ready(killed).Seconds())
		already := p.arrived()
		p.await("samples after "+container+" was killed", func() bool { return p.arrived() > already+1 })
	}
	cancel()
	reloading.Wait()
	p.unharmed(1)
}

// TestByHand sets up remote_write as guides do: a projected token, AWS_ROLE_ARN
// and sigv4 in the configuration, no sidecar. It is not a test of ampbridge, but
// of the reason for it.
func TestByHand(t *testing.T) {
	s := scene(t)
	url, _ := sink(t)
	byHand := func(pod *corev1.Pod) {
		expiration := int64(3600)
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
			Sources: []corev1.VolumeProjection{{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Audience: "sts.amazonaws.com", ExpirationSeconds: &expiration, Path: "token"}}},
		}}})
		server := &pod.Spec.Containers[1]
		server.VolumeMounts = append(server.VolumeMounts, corev1.VolumeMount{Name: "token", MountPath: "/var/run/secrets/aws", ReadOnly: true})
		server.Env = []corev1.EnvVar{
			{Name: "AWS_ROLE_ARN", Value: "arn:aws:iam::" + env.AccountID + ":role/ampbridge/" + env.ClusterName + "/ampbridge." + env.ClusterName + ".central"},
			{Name: "AWS_WEB_IDENTITY_TOKEN_FILE", Value: "/var/run/secrets/aws/token"},
			{Name: "AWS_REGION", Value: env.Region},
			{Name: "AWS_ENDPOINT_URL_STS", Value: s.Cloud.URL},
		}
	}
	sigv4 := "remote_write:\n- {name: mine, url: \"" + url + "\"}\n- {name: amp, url: \"" + s.Workspace.RemoteWriteURL(s.Cloud.URL) + "\", sigv4: {region: " + env.Region + "}}\n"
	optOut := map[string]string{"ampbridge.io/inject": "false"}

	for _, fault := range faults {
		t.Run("start/"+fault.name, func(t *testing.T) {
			stop := fault.start(s)
			defer stop()
			name := "by-hand-" + strings.ToLower(fault.name)
			p := start(t, s, env.Chart{Name: name, Config: config(name, sigv4), Annotations: optOut, Change: byHand})
			if fault.name == "hanging" {
				time.Sleep(10 * time.Second)
				if env.Ready(t.Context(), p.pod) {
					t.Error("Prometheus is ready although STS hangs: the sidecar may no longer be needed")
				}
				return
			}
			p.await("Prometheus to exit because STS failed", func() bool { return p.server().Restarts() > 0 })
			if codes := p.server().ExitCodes(); codes[0] != 1 {
				t.Errorf("exit codes %v, want 1 first", codes)
			}
		})
	}

	t.Run("panic", func(t *testing.T) {
		p := start(t, s, env.Chart{Name: "by-hand-panic", Config: config("by-hand-panic", sigv4), Annotations: optOut, Change: byHand})
		p.ready(time.Now())
		p.await("samples", func() bool { return p.arrived() > 0 })
		stop := s.Cloud.Fail("sts:*", awstest.Deny).Stop
		defer stop()
		if err := env.Reload(t.Context(), p.pod); err == nil {
			t.Error("a reload without STS succeeded: the sidecar may no longer be needed")
		}
		stop()
		_ = env.Reload(t.Context(), p.pod) // the server dies while it answers
		p.await("Prometheus to panic at the reload after the failed one", func() bool { return p.server().Restarts() > 0 })
		if logs := p.server().Logs(); !strings.Contains(logs, "panic: duplicate metrics collector registration attempted") {
			t.Error("Prometheus ended, but not with the panic that is known")
		}
	})
}

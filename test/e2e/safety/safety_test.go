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
	"github.com/ampbridge/ampbridge/test/testkit"
)

// TestPrometheusStartsWhateverSTSDoes starts a pod during each fault of STS. Prometheus must start with the
// relay's block. What it scrapes during the fault must arrive after STS recovers.
func TestPrometheusStartsWhateverSTSDoes(t *testing.T) {
	e := env.StartSynced(t, env.Options{})
	begun := time.Now()
	plain := e.StartPrometheus(
		t,
		env.Chart{Name: "plain", Config: env.ScrapeSelf("plain", ""), Annotations: map[string]string{"ampbridge.io/inject": "false"}},
	)
	if env.Injected(plain.Object) {
		t.Fatal("the pod that opted out was injected")
	}
	baseline := plain.EventuallyReady(t, begun)
	t.Logf("%-10s ready after %.1f s", "uninjected", baseline.Seconds())

	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			stop := fault.start(e)
			defer stop()
			name := "start-" + strings.ToLower(fault.name)
			begun := time.Now()
			p := e.StartPrometheus(t, env.Chart{Name: name, Config: env.ScrapeSelf(name, "")})
			took := p.EventuallyReady(t, begun)
			t.Logf("%-10s ready after %.1f s", fault.name, took.Seconds())
			// The promise is at most 5 s more than without injection. Twice the baseline allows for a busy
			// machine.
			if limit := 2*baseline + 5*time.Second; took > limit {
				t.Errorf("ready after %s, more than %s", took, limit)
			}
			if !p.Writes(t.Context()) {
				t.Error("no remote_write is in the configuration: what is scraped now would be lost")
			}
			p.Eventually(t, "a scrape", func() bool { return scraped(t, p, begun) > 0 })
			if n := p.Arrived(t); n != 0 {
				t.Errorf("%d samples arrived without a session", n)
			}
			taken := scraped(t, p, begun)
			stop()
			p.Eventually(t, "every sample of the outage", func() bool { return p.Arrived(t) >= taken })
			p.CheckUnharmed(t, 0)
		})
	}
}

// TestNoSampleIsLostWhateverSTSDoes has the same faults while Prometheus runs, with a reload every second and
// the user's own remote_write in addition to ampbridge's. No reload fails, nothing restarts, and no sample is
// lost.
func TestNoSampleIsLostWhateverSTSDoes(t *testing.T) {
	e := env.StartSynced(t, env.Options{})
	url, received := sink(t)
	p := e.StartPrometheus(
		t,
		env.Chart{Name: "later", Config: env.ScrapeSelf("later", "remote_write:\n- {name: mine, url: \""+url+"\"}\n")},
	)
	p.EventuallyReady(t, time.Now())
	p.Eventually(t, "the first samples", func() bool { return p.Arrived(t) > 0 })
	since := time.Now()

	ctx, cancel := context.WithCancel(t.Context())
	var reloading sync.WaitGroup
	reloading.Go(func() {
		for ctx.Err() == nil {
			// A server that the test kills cannot answer. That is not a failed reload, but an HTTP status is.
			if err := env.Reload(ctx, p.Object); err != nil && strings.Contains(err.Error(), "/-/reload: ") {
				t.Errorf("reload: %v", err)
			}
			time.Sleep(time.Second)
		}
	})
	for _, fault := range faults {
		stop := fault.start(e)
		// This is longer than the timeout of any call, so reloads happen in every state of the sidecar. In
		// the middle the user changes the configuration.
		time.Sleep(4 * time.Second)
		if err := e.SetConfig(
			t.Context(),
			p.Object,
			env.ScrapeSelf("later", "remote_write:\n- {name: mine, url: \""+url+"\"}\n# during "+fault.name+"\n"),
		); err != nil {
			t.Fatal(err)
		}
		time.Sleep(4 * time.Second)
		stop()
	}
	p.CheckUnharmed(t, 0)
	if v := samplesLost(t, p); v != 0 {
		t.Errorf("%v samples failed", v)
	}
	// All samples scraped until now must arrive. It takes a moment until a scrape is sent.
	taken := scraped(t, p, since)
	p.Eventually(t, "every scraped sample", func() bool { return p.Arrived(t) >= taken })
	t.Logf("%d scrapes during four faults, all arrived", taken)
	if received.Load() == 0 {
		t.Error("the user's own remote_write received nothing")
	}

	// A container that restarts during an outage is ready immediately and has its block, because the session
	// is still valid.
	stop := e.Cloud.Fail("sts:*", awstest.Hang).Stop
	defer stop()
	for _, container := range []string{env.ServerContainer, "ampbridge-config"} {
		killed, before := time.Now(), p.Pod.Container(container).Restarts()
		testkit.Must(t, p.Pod.Container(container).Kill(syscall.SIGKILL))
		p.Eventually(t, container+" to be back", func() bool { return p.Pod.Container(container).Restarts() > before })
		t.Logf("%s killed: ready after %.1f s", container, p.EventuallyReady(t, killed).Seconds())
		already := p.Arrived(t)
		p.Eventually(t, "samples after "+container+" was killed", func() bool { return p.Arrived(t) > already+1 })
	}
	cancel()
	reloading.Wait()
	p.CheckUnharmed(t, 1)
}

// TestSetUpByHandFailsWithSTS configures remote_write as guides do: a projected token, AWS_ROLE_ARN and sigv4
// in the configuration, without a sidecar. It does not test ampbridge, but shows why ampbridge is needed.
func TestSetUpByHandFailsWithSTS(t *testing.T) {
	e := env.StartSynced(t, env.Options{})
	url, _ := sink(t)
	byHand := func(pod *corev1.Pod) {
		expiration := int64(3600)
		pod.Spec.Volumes = append(
			pod.Spec.Volumes,
			corev1.Volume{Name: "token", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{
					{
						ServiceAccountToken: &corev1.ServiceAccountTokenProjection{
							Audience:          "sts.amazonaws.com",
							ExpirationSeconds: &expiration,
							Path:              "token",
						},
					},
				},
			}}},
		)
		server := &pod.Spec.Containers[1]
		server.VolumeMounts = append(
			server.VolumeMounts,
			corev1.VolumeMount{Name: "token", MountPath: "/var/run/secrets/aws", ReadOnly: true},
		)
		server.Env = []corev1.EnvVar{
			{
				Name:  "AWS_ROLE_ARN",
				Value: env.RoleARN,
			},
			{Name: "AWS_WEB_IDENTITY_TOKEN_FILE", Value: "/var/run/secrets/aws/token"},
			{Name: "AWS_REGION", Value: env.Region},
			{Name: "AWS_ENDPOINT_URL_STS", Value: e.Cloud.URL},
		}
	}
	sigv4 := "remote_write:\n- {name: mine, url: \"" + url + "\"}\n- {name: amp, url: \"" + e.Workspace.RemoteWriteURL(
		e.Cloud.URL,
	) + "\", sigv4: {region: " + env.Region + "}}\n"
	optOut := map[string]string{"ampbridge.io/inject": "false"}

	for _, fault := range faults {
		t.Run("start/"+fault.name, func(t *testing.T) {
			stop := fault.start(e)
			defer stop()
			name := "by-hand-" + strings.ToLower(fault.name)
			p := e.StartPrometheus(t, env.Chart{Name: name, Config: env.ScrapeSelf(name, sigv4), Annotations: optOut, Change: byHand})
			if fault.name == "hanging" {
				time.Sleep(10 * time.Second)
				if env.Ready(t.Context(), p.Object) {
					t.Error("Prometheus is ready although STS hangs: the sidecar may no longer be needed")
				}
				return
			}
			p.Eventually(t, "Prometheus to exit because STS failed", func() bool { return p.Server().Restarts() > 0 })
			if codes := p.Server().ExitCodes(); codes[0] != 1 {
				t.Errorf("exit codes %v, want 1 first", codes)
			}
		})
	}

	t.Run("panic", func(t *testing.T) {
		p := e.StartPrometheus(
			t,
			env.Chart{Name: "by-hand-panic", Config: env.ScrapeSelf("by-hand-panic", sigv4), Annotations: optOut, Change: byHand},
		)
		p.EventuallyReady(t, time.Now())
		p.Eventually(t, "samples", func() bool { return p.Arrived(t) > 0 })
		stop := e.Cloud.Fail("sts:*", awstest.Deny).Stop
		defer stop()
		if err := env.Reload(t.Context(), p.Object); err == nil {
			t.Error("a reload without STS succeeded: the sidecar may no longer be needed")
		}
		stop()
		_ = env.Reload(t.Context(), p.Object) // the server ends while it answers
		p.Eventually(t, "Prometheus to panic at the reload after the failed one", func() bool { return p.Server().Restarts() > 0 })
		if logs := p.Server().Logs(); !strings.Contains(logs, "panic: duplicate metrics collector registration attempted") {
			t.Error("Prometheus ended, but not with the panic that is known")
		}
	})
}

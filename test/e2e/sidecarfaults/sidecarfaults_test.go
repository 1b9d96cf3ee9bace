// Package sidecarfaults_test tests faults of the sidecar itself and pods that are difficult to inject. It
// prints the effect of each on a real Prometheus. A row fails the test if it harms Prometheus more than it
// documents.
//
//	go test ./test/e2e/sidecarfaults -v
package sidecarfaults_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/kubelet"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

func TestMain(m *testing.M) { kubelet.Main(m) }

// held is the result for which nothing in the pod can be responsible: an init container that does not start
// blocks the pod's other containers.
const held = "not started: held in init, the circuit breaker's case"

// faults are the rows in the table's order. Each function returns what happened to Prometheus.
var faults = []struct {
	name string
	play func(*testing.T, *env.Env) string
}{
	{"killed ten times in a row while Prometheus runs", killed},
	{"hangs while Prometheus runs", hanging},
	{"crashes at every start", crashing},
	{"an image that cannot be had", absent},
	{"token missing, token unreadable", tokenless},
	{"port 9095 taken", portTaken},
	{"configuration volume takes no writes", unwritable},
	{"Prometheus runs as root", root},
	{"arbitrary user id, as OpenShift gives", arbitrary},
	{"other init containers and sidecars", neighbours},
	// This is the last row, because all rows share the double's clock.
	{"clocks two hours apart at the start", skewed},
}

func TestSidecarFaults(t *testing.T) {
	e := env.StartSynced(t, env.Options{})
	var table strings.Builder
	table.WriteString("| fault | Prometheus |\n| --- | --- |\n")
	for _, fault := range faults {
		t.Run(fault.name, func(t *testing.T) {
			fmt.Fprintf(&table, "| %s | %s |\n", fault.name, fault.play(t, e))
		})
	}
	t.Log("\n" + table.String())
}

func killed(t *testing.T, e *env.Env) string {
	p := start(t, e, "killed", nil)
	p.ready()
	p.flowing()
	for n := range 10 {
		testkit.Must(t, p.Sidecar().Kill(syscall.SIGKILL))
		p.eventually("the sidecar's next run", func() bool { return p.Sidecar().Restarts() > n && p.Sidecar().Running() })
		p.unharmed()
	}
	p.served()
	return "not restarted, no failed reload, samples go on"
}

// hanging stops the process, so it writes no new heartbeat. It makes the last heartbeat old instead of
// waiting.
func hanging(t *testing.T, e *env.Env) string {
	p := start(t, e, "hanging", nil)
	p.ready()
	p.flowing()
	testkit.Must(t, p.Sidecar().Kill(syscall.SIGSTOP))
	past := time.Now().Add(-time.Hour)
	testkit.Must(t, os.Chtimes(filepath.Join(p.Pod.VolumeDir(sidecarconfig.VolumeCredentials), "heartbeat"), past, past))
	time.Sleep(time.Minute) // three probes
	p.eventually("the sidecar's next run", func() bool { return p.Sidecar().Restarts() > 0 && p.Sidecar().Running() })
	p.served()
	return "not restarted, no failed reload, samples go on; the liveness probe restarts the sidecar"
}

func crashing(t *testing.T, e *env.Env) string {
	const image = "registry.example/crashing"
	program := tools.Build(t, "./crashing")
	e.AddImage(kubelet.Image{Match: image, Binaries: map[string]string{"/config-sidecar": program}, User: 65534})
	p := startWith(t, e, "crashing", image+":v1")
	p.eventually("the sidecar to have crashed three times", func() bool { return len(p.Sidecar().ExitCodes()) >= 3 })
	for _, code := range p.Sidecar().ExitCodes() {
		if code != 1 {
			t.Errorf("the sidecar ended with %d, not with its own 1", code)
		}
	}
	p.held()
	return held
}

func absent(t *testing.T, e *env.Env) string {
	p := startWith(t, e, "absent", "registry.example/absent:v1")
	p.eventually("the image to be missed", func() bool {
		waiting := p.Sidecar().Status().State.Waiting
		return waiting != nil && waiting.Reason == "ErrImagePull"
	})
	time.Sleep(2 * time.Second) // as long as several starts of a pod that is not blocked
	p.held()
	return held
}

// startWith runs a pod with that sidecar image, by a policy that exists only during the row.
func startWith(t *testing.T, e *env.Env, name, image string) *subject {
	t.Helper()
	testkit.Must(t, e.SetPolicy(e.Policy()+"sidecar: {image: "+image+"}\n"))
	p := createWith(t, e, name, image)
	// Back already: the pod keeps what it was given.
	testkit.Must(t, e.SetPolicy(e.Policy()))
	createWith(t, e, name+"-after", env.SidecarImage)
	p.StartFor(t)
	return p
}

// createWith creates pods until the webhook has read the policy with that image, and returns the pod that has
// it.
func createWith(t *testing.T, e *env.Env, name, image string) *subject {
	t.Helper()
	deadline := time.Now().Add(testkit.Timeout)
	for n := 0; ; n++ {
		p := create(t, e, fmt.Sprintf("%s-%d", name, n), nil)
		if p.Object.Spec.InitContainers[0].Image == image {
			return p
		}
		if time.Now().After(deadline) {
			t.Fatalf("the sidecar's image is %s, want %s", p.Object.Spec.InitContainers[0].Image, image)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func tokenless(t *testing.T, e *env.Env) string {
	e.Cloud.SetSessionLife(20 * time.Second)
	defer e.Cloud.SetSessionLife(0)
	spoilers := []struct {
		name           string
		spoil, restore func(file string) error
	}{
		{"missing", func(f string) error { return os.Rename(f, f+".hidden") }, func(f string) error { return os.Rename(f+".hidden", f) }},
		{"unreadable", func(f string) error { return os.Chmod(f, 0) }, func(f string) error { return os.Chmod(f, 0o600) }},
	}
	pods := make([]*subject, len(spoilers))
	for i, spoiler := range spoilers {
		pods[i] = start(t, e, "token-"+spoiler.name, nil)
	}
	for i, p := range pods {
		p.ready()
		p.eventually("the block", p.hasBlock)
		testkit.Must(t, spoilers[i].spoil(p.token()))
	}
	for _, p := range pods {
		p.eventually("the relay's block, which needs no session", p.relays)
		p.unharmed()
	}
	for i, p := range pods {
		testkit.Must(t, spoilers[i].restore(p.token()))
	}
	for _, p := range pods {
		p.flowing()
		p.unharmed()
	}
	return "runs on; writes wait with the relay until the token is back; no failed reload"
}

func (p *subject) token() string {
	return filepath.Join(p.Pod.VolumeDir(sidecarconfig.VolumeToken), "token")
}

func portTaken(t *testing.T, e *env.Env) string {
	// Pods share the host's network here. Until this test gets the port, the sidecar of another test has it.
	testkit.Run(t, "another program on the port", func(ctx context.Context) error { return take(ctx, ":9095") })
	p := start(t, e, "port-taken", nil)
	p.ready()
	p.flowing()
	if !strings.Contains(p.Sidecar().Logs(), "metrics are not served") {
		t.Error("the sidecar has not met the taken port")
	}
	p.unharmed()
	return "ready, samples; the sidecar's metrics wait for the port"
}

// take listens on the address as soon as it can, until ctx ends.
func take(ctx context.Context, address string) error {
	for ctx.Err() == nil {
		var config net.ListenConfig
		socket, err := config.Listen(ctx, "tcp", address)
		if err == nil {
			<-ctx.Done()
			return socket.Close()
		}
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// The containers have no capabilities, so the directory's mode applies to them, whichever user runs the test.
// Writes fail as on a full volume.
func unwritable(t *testing.T, e *env.Env) string {
	p := start(t, e, "unwritable", nil)
	p.ready()
	p.flowing()
	dir := p.Pod.VolumeDir("config-volume")
	chmod := func(mode os.FileMode) {
		t.Helper()
		testkit.Must(t, os.Chmod(dir, mode))
	}
	chmod(0o555)
	defer chmod(0o755)
	changed := strings.ReplaceAll(env.ScrapeSelf(p.Object.Name, ""), "scrape_interval: 1s", "scrape_interval: 2s")
	testkit.Must(t, e.SetConfig(t.Context(), p.Object, changed))
	p.eventually("the sidecar to fail at the change", func() bool { return strings.Contains(p.Sidecar().Logs(), "permission denied") })
	if applied := env.LoadedConfig(t.Context(), p.Object); strings.Contains(applied, "scrape_interval: 2s") {
		t.Error("the change got through: the volume takes writes")
	}
	p.flowing()
	p.unharmed()
	chmod(0o755)
	p.eventually("the change", func() bool {
		return p.hasBlock() && strings.Contains(env.LoadedConfig(t.Context(), p.Object), "scrape_interval: 2s")
	})
	p.unharmed()
	return "runs on with the last configuration, samples go on; the change is live when there is space"
}

func root(t *testing.T, e *env.Env) string {
	return served(t, e, "root", func(pod *corev1.Pod) {
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: new(int64(0))}
	})
}

func arbitrary(t *testing.T, e *env.Env) string {
	return served(t, e, "arbitrary", func(pod *corev1.Pod) {
		const user = int64(1000650000)
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{
			RunAsUser: new(user), RunAsGroup: new(int64(0)), RunAsNonRoot: new(true), FSGroup: new(user),
		}
	})
}

// served waits for the block and for samples; nothing must have happened to Prometheus.
func (p *subject) served() {
	p.Helper()
	p.eventually("the block", p.hasBlock)
	p.flowing()
	p.unharmed()
}

// served runs a pod whose user is its own: it has to be served like any other.
func served(t *testing.T, e *env.Env, name string, change func(*corev1.Pod)) string {
	t.Helper()
	p := start(t, e, name, change)
	p.ready()
	p.served()
	return "ready, samples"
}

func neighbours(t *testing.T, e *env.Env) string {
	port := testkit.FreePort(t)
	p := start(t, e, "neighbours", func(pod *corev1.Pod) {
		always := corev1.ContainerRestartPolicyAlways
		pod.Spec.InitContainers = []corev1.Container{{
			Name: "mesh", Image: pod.Spec.Containers[0].Image, RestartPolicy: &always,
			Args: []string{"--watched-dir=/tmp", fmt.Sprintf("--listen-address=127.0.0.1:%d", port), "--reload-url=http://127.0.0.1:1/"},
		}, {
			Name: "prepare", Image: pod.Spec.Containers[1].Image, Command: []string{"/bin/prometheus", "--version"},
		}}
	})
	if first := p.Object.Spec.InitContainers[0].Name; first != sidecarconfig.ContainerName {
		t.Errorf("the first init container is %s", first)
	}
	p.ready()
	p.flowing()
	if !p.Pod.Container("mesh").Running() {
		t.Error("the other sidecar does not run")
	}
	if codes := p.Pod.Container("prepare").ExitCodes(); len(codes) != 1 || codes[0] != 0 {
		t.Errorf("the other init container ended with %v, want one 0", codes)
	}
	p.unharmed()
	return "ready, samples; the others start after the sidecar and keep running"
}

func skewed(t *testing.T, e *env.Env) string {
	const skew = 2 * time.Hour
	e.Cloud.Advance(skew)
	p := start(t, e, "skewed", nil)
	p.ready()
	p.eventually("the relay's block, since the token has expired for STS", p.relays)
	refused := false
	for _, call := range e.Cloud.Calls() {
		refused = refused || call.Code == "ExpiredTokenException"
	}
	if !refused {
		t.Error("STS has not seen an expired token")
	}
	p.unharmed()
	e.Cloud.Advance(-skew)
	p.flowing()
	p.unharmed()
	return "ready; writes wait with the relay until the clocks agree, no restart"
}

// Command demo runs the main job, end to end: from a labelled namespace to
// samples in an AMP workspace, everything real but AWS itself, which is played
// by a double that verifies what AWS would. It prints each step as it
// succeeds, and names the one that fails.
//
//	go run ./test/demo [-stay]
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/kubelet"
)

func main() {
	kubelet.Init()
	stay := flag.Bool("stay", false, "keep everything running at the end, and say where to look")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	rest.SetDefaultWarningHandler(rest.NoWarnings{}) // the demo shows what the webhook changed
	d := &demo{ctx: ctx, out: os.Stdout, begun: time.Now()}
	err := errors.Join(d.run(*stay), d.close())
	stop()
	if err != nil {
		d.say("demo: failed: %v\n", err)
		os.Exit(1)
	}
	d.say("%s\n", d.verdict)
}

type demo struct {
	ctx     context.Context
	out     io.Writer
	begun   time.Time
	env     *env.Env
	server  *env.Prometheus
	verdict string
}

func (d *demo) run(stay bool) (err error) {
	d.say("ampbridge: from a labelled namespace to samples in a workspace\n")
	for _, step := range []struct {
		name string
		run  func() (string, error)
	}{
		{"programs", d.programs},
		{"AWS", d.cloud},
		{"Kubernetes", d.cluster},
		{"policy", d.policy},
		{"webhook", d.webhook},
		{"trust", d.trust},
		{"admission", d.admission},
		{"session", d.session},
		{"Prometheus", d.prometheus},
		{"samples", d.samples},
	} {
		told, err := step.run()
		if err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
		d.say(
			"%5.1fs  ✓ %-11s %s\n",
			time.Since(d.begun).Seconds(),
			step.name,
			strings.ReplaceAll(told, "\n", "\n"+strings.Repeat(" ", 22)),
		)
	}
	if stay {
		shell, err := d.env.WriteShell()
		if err != nil {
			return err
		}
		d.say(`
It keeps running; Ctrl-C ends it.
  Prometheus         http://127.0.0.1:%[1]s
  its configuration  http://127.0.0.1:%[1]s/config
  webhook metrics    %[2]s
  in another shell:
    . %[3]s
    kubectl get pods -A
    ampbridge status --policy %[4]s
`, env.Port(d.server.Object), d.env.MetricsURL, shell, d.env.PolicyFile)
		<-d.ctx.Done()
	}
	return nil
}

func (d *demo) programs() (_ string, err error) {
	d.env, err = env.Prepare(d.ctx, env.Options{Few: true, Progress: os.Stderr})
	return "a real kube-apiserver and Prometheus, and ampbridge", err
}

func (d *demo) cloud() (string, error) {
	if err := d.env.StartCloud(d.ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf(
		"account %s with workspace %s; the double verifies tokens, trust and SigV4",
		d.env.Account.ID,
		d.env.Workspace.ID,
	), nil
}

func (d *demo) cluster() (string, error) {
	if err := d.env.StartCluster(d.ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("API server at %s\nissuer %s\nnamespace %s labelled ampbridge.io/injection=enabled, service account %s",
		d.env.Cluster.URL, d.env.Cluster.Issuer, env.Namespace, env.ServiceAccount), nil
}

func (d *demo) policy() (string, error) {
	if err := d.env.SetPolicy(d.env.Policy()); err != nil {
		return "", err
	}
	_, err := d.env.Ampbridge(d.ctx, "validate", d.env.PolicyFile)
	return "valid: one destination, granted to one service account", err
}

func (d *demo) webhook() (string, error) {
	return "its own process, registered in the API server over TLS, ready", d.env.StartWebhook(d.ctx)
}

// trust runs sync twice: the second run must find nothing to do.
func (d *demo) trust() (string, error) {
	plan, err := d.env.Sync(d.ctx)
	if err != nil {
		return "", err
	}
	writes := d.writes()
	if _, err := d.env.Sync(d.ctx); err != nil {
		return "", err
	}
	if again := d.writes(); again != writes || writes == 0 {
		return "", fmt.Errorf("sync made %d writes, and %d more when run again", writes, again-writes)
	}
	return "ampbridge sync --once, then once more without a write:\n" + strings.TrimSpace(plan), nil
}

// writes counts the changing calls that IAM has seen.
func (d *demo) writes() (n int) {
	for _, call := range d.env.Cloud.Calls() {
		if call.Service == "iam" && !strings.HasPrefix(call.Action, "Get") && !strings.HasPrefix(call.Action, "List") {
			n++
		}
	}
	return n
}

func (d *demo) admission() (_ string, err error) {
	d.server, err = d.env.CreatePrometheus(d.ctx, env.Chart{Name: "prometheus-server", Config: env.SelfScrape, Change: env.NoReloader})
	if err != nil {
		return "", err
	}
	if !env.Injected(d.server.Object) {
		log, _ := d.env.WebhookLog()
		return "", fmt.Errorf("the API server stored the pod without the sidecar\n%s", log)
	}
	return "the API server stored the pod as the webhook patched it:\n" + describe(d.server.Object), nil
}

// describe shows what the patch added.
func describe(pod *corev1.Pod) string {
	var b strings.Builder
	for _, v := range pod.Spec.Volumes {
		source, err := json.Marshal(v.VolumeSource)
		if err == nil && (strings.HasPrefix(v.Name, "ampbridge-") || v.EmptyDir != nil && v.EmptyDir.Medium == corev1.StorageMediumMemory) {
			fmt.Fprintf(&b, "+ volume %-22s %s\n", v.Name, source)
		}
	}
	for _, c := range pod.Spec.InitContainers {
		fmt.Fprintf(&b, "+ native sidecar %-14s %s\n", c.Name, c.Image)
	}
	for _, c := range pod.Spec.Containers {
		for _, e := range c.Env {
			if strings.HasPrefix(e.Name, "AWS_") {
				fmt.Fprintf(&b, "+ env in %s: %s=%s\n", c.Name, e.Name, e.Value)
			}
		}
	}
	fmt.Fprintf(&b, "+ annotation ampbridge.io/injected %s", pod.Annotations["ampbridge.io/injected"])
	return b.String()
}

// session runs the pod and waits for the sidecar's call to STS.
func (d *demo) session() (_ string, err error) {
	if err = d.server.Start(d.ctx, nil); err != nil {
		return "", err
	}
	err = d.server.WaitFor(d.ctx, "an AssumeRoleWithWebIdentity that STS granted", func() bool {
		for _, call := range d.env.Cloud.Calls() {
			if call.Action == "AssumeRoleWithWebIdentity" && call.Code == "" {
				return true
			}
		}
		return false
	})
	return "the sidecar showed the pod's token to STS, which verified it and gave a session", err
}

func (d *demo) prometheus() (string, error) {
	err := d.server.WaitFor(d.ctx, "Prometheus to be ready with the block in its configuration", func() bool {
		shards, ok := env.Metric(d.ctx, d.server.Object, "prometheus_remote_storage_shards{remote_name=\"ampbridge-central\"")
		return ok && shards > 0 && env.Ready(d.ctx, d.server.Object)
	})
	return "ready, with remote_write and its profile in place; it never called STS", err
}

func (d *demo) samples() (string, error) {
	const mine = `{job="prometheus",cluster="` + env.ClusterName + `"}`
	var found []awstest.Sample
	var failed error
	if err := d.server.WaitFor(d.ctx, "samples in the workspace", func() bool {
		found, failed = d.env.Cloud.Query(d.ctx, d.env.Workspace.ID, mine+`[5m]`)
		return len(found) > 0
	}); err != nil {
		writes := d.env.Cloud.Writes(d.env.Workspace.ID)
		return "", errors.Join(
			fmt.Errorf("%w\n%d writes reached the workspace, the latest %+v", err, len(writes), writes[max(len(writes)-1, 0):]),
			failed,
		)
	}
	series := map[string]bool{}
	for _, sample := range found {
		series[fmt.Sprint(sample.Metric)] = true
	}
	d.verdict = fmt.Sprintf("demo: ok: %d samples of %d series in workspace %s", len(found), len(series), d.env.Workspace.ID)
	return fmt.Sprintf(
		"queried back out of the workspace, %.0f s after the pod's creation",
		time.Since(d.server.Object.CreationTimestamp.Time).Seconds(),
	), nil
}

func (d *demo) close() error {
	var err error
	if d.server != nil {
		err = d.server.Close()
	}
	if d.env != nil {
		err = errors.Join(err, d.env.Close())
	}
	return err
}

func (d *demo) say(format string, args ...any) { _, _ = fmt.Fprintf(d.out, format, args...) }

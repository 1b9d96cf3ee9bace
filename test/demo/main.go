// Command demo runs the main job, end to end: from a labelled namespace to
// samples in an AMP workspace, every link real but AWS itself, which is played
// by a double that verifies what AWS would. It tells each link as it holds, and
// names the one that fails.
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

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/kubelet"
)

func main() {
	kubelet.Init()
	stay := flag.Bool("stay", false, "keep everything running at the end, and say where to look")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
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
	stage   *env.Stage
	pod     *corev1.Pod
	running *kubelet.Pod
	verdict string
}

// patience bounds each link, so that a broken one is named and not waited for.
const patience = 90 * time.Second

func (d *demo) run(stay bool) (err error) {
	d.say("ampbridge: from a labelled namespace to samples in a workspace\n")
	for _, link := range []struct {
		name string
		hold func() (string, error)
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
		told, err := link.hold()
		if err != nil {
			return fmt.Errorf("%s: %w", link.name, err)
		}
		d.say("%5.1fs  ✓ %-11s %s\n", time.Since(d.begun).Seconds(), link.name, strings.ReplaceAll(told, "\n", "\n"+strings.Repeat(" ", 22)))
	}
	if stay {
		d.say("\nIt keeps running; Ctrl-C ends it.\n  Prometheus      http://127.0.0.1:%s\n  its configuration http://127.0.0.1:%s/config\n  webhook metrics %s\n  API server      kubectl --kubeconfig %s get pods -A\n  AWS's double    AWS_ENDPOINT_URL=%s\n",
			env.Port(d.pod), env.Port(d.pod), d.stage.MetricsURL, d.stage.Cluster.Kubeconfig(), d.stage.Cloud.URL)
		<-d.ctx.Done()
	}
	return nil
}

func (d *demo) programs() (_ string, err error) {
	d.stage, err = env.Prepare(d.ctx, env.Options{Progress: os.Stderr})
	return "a real kube-apiserver, Prometheus and config reloader, and ampbridge, built from source", err
}

func (d *demo) cloud() (string, error) {
	if err := d.stage.StartCloud(d.ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("account %s with workspace %s; the double verifies tokens, trust and SigV4", d.stage.Account.ID, d.stage.Workspace.ID), nil
}

func (d *demo) cluster() (string, error) {
	if err := d.stage.StartCluster(d.ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("API server at %s\nissuer %s\nnamespace %s labelled ampbridge.io/injection=enabled, service account %s",
		d.stage.Cluster.URL, d.stage.Cluster.Issuer, env.Namespace, env.ServiceAccount), nil
}

func (d *demo) policy() (string, error) {
	if err := d.stage.SetPolicy(d.stage.Policy()); err != nil {
		return "", err
	}
	_, err := d.stage.Ampbridge(d.ctx, "validate", d.stage.PolicyFile)
	return "valid: one destination, granted to one service account", err
}

func (d *demo) webhook() (string, error) {
	return "its own process, registered in the API server over TLS, ready", d.stage.StartWebhook(d.ctx)
}

// trust runs sync twice: the second run must find nothing to do.
func (d *demo) trust() (string, error) {
	plan, err := d.stage.Sync(d.ctx)
	if err != nil {
		return "", err
	}
	writes := d.writes()
	if _, err := d.stage.Sync(d.ctx); err != nil {
		return "", err
	}
	if again := d.writes(); again != writes || writes == 0 {
		return "", fmt.Errorf("sync made %d writes, and %d more when run again", writes, again-writes)
	}
	return "ampbridge sync --once, then once more without a write:\n" + strings.TrimSpace(plan), nil
}

// writes counts the changing calls that IAM has seen.
func (d *demo) writes() (n int) {
	for _, call := range d.stage.Cloud.Calls() {
		if call.Service == "iam" && !strings.HasPrefix(call.Action, "Get") && !strings.HasPrefix(call.Action, "List") {
			n++
		}
	}
	return n
}

func (d *demo) admission() (_ string, err error) {
	d.pod, err = d.stage.Create(d.ctx, env.Chart{Name: "prometheus-server", Config: env.SelfScrape})
	if err != nil {
		return "", err
	}
	if !env.Injected(d.pod) {
		log, _ := d.stage.WebhookLog()
		return "", fmt.Errorf("the API server stored the pod without the sidecar\n%s", log)
	}
	return "the API server stored the pod as the webhook patched it:\n" + describe(d.pod), nil
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
	if d.running, err = d.stage.Run(d.ctx, d.pod, nil); err != nil {
		return "", err
	}
	err = d.await("an AssumeRoleWithWebIdentity that STS granted", func() bool {
		for _, call := range d.stage.Cloud.Calls() {
			if call.Action == "AssumeRoleWithWebIdentity" && call.Code == "" {
				return true
			}
		}
		return false
	})
	return "the sidecar showed the pod's token to STS, which verified it and gave a session", err
}

func (d *demo) prometheus() (string, error) {
	err := d.await("Prometheus to be ready with the block in its configuration", func() bool {
		shards, ok := env.Metric(d.ctx, d.pod, "prometheus_remote_storage_shards{remote_name=\"ampbridge-central\"")
		return ok && shards > 0 && env.Ready(d.ctx, d.pod)
	})
	return "ready, with remote_write and its profile in place; it never called STS", err
}

func (d *demo) samples() (string, error) {
	const mine = `{job="prometheus",cluster="` + env.ClusterName + `"}`
	var found []awstest.Sample
	var failed error
	if err := d.await("samples in the workspace", func() bool {
		found, failed = d.stage.Cloud.Query(d.ctx, d.stage.Workspace.ID, mine+`[5m]`)
		return len(found) > 0
	}); err != nil {
		writes := d.stage.Cloud.Writes(d.stage.Workspace.ID)
		return "", errors.Join(fmt.Errorf("%w\n%d writes reached the workspace, the latest %+v", err, len(writes), writes[max(len(writes)-1, 0):]), failed)
	}
	series := map[string]bool{}
	for _, sample := range found {
		series[fmt.Sprint(sample.Metric)] = true
	}
	d.verdict = fmt.Sprintf("demo: ok: %d samples of %d series in workspace %s", len(found), len(series), d.stage.Workspace.ID)
	return fmt.Sprintf("queried back out of the workspace, %.0f s after the pod's creation", time.Since(d.pod.CreationTimestamp.Time).Seconds()), nil
}

func (d *demo) await(what string, condition func() bool) error {
	ctx, cancel := context.WithTimeout(d.ctx, patience)
	defer cancel()
	return d.running.Await(ctx, what, condition)
}

func (d *demo) close() error {
	var err error
	if d.running != nil {
		err = d.running.Close()
	}
	if d.stage != nil {
		err = errors.Join(err, d.stage.Close())
	}
	return err
}

func (d *demo) say(format string, args ...any) { _, _ = fmt.Fprintf(d.out, format, args...) }

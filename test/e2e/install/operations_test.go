//go:build linux && e2e

package install

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/test/env"
)

const (
	// elsewhere is a namespace without any relation to ampbridge.
	elsewhere = "elsewhere"
	// upgradePods is how many pods are created while the webhook is upgraded.
	upgradePods = 500
	creators    = 2
)

// operations tests what a platform engineer does on a working cluster. The two Prometheus pods of the chain
// run during the whole test.
func operations(e *environment) {
	e.must(e.Namespace(e.Context(), elsewhere, nil))
	running := e.injectedPods()
	if len(running) != 2 {
		e.Fatalf("%d injected pods run, want the chart's and the operator's", len(running))
	}
	e.others()
	e.upgrades()
	e.allReplicasDead()
	e.uninstall()
}

// others checks that pods for which ampbridge is not meant cause no call.
func (e *environment) others() {
	e.Helper()
	before := e.webhookCalls()
	e.runs(e.pod(elsewhere, "anything", nil))
	e.runs(e.pod(elsewhere, "prometheus", prometheusLabels))
	e.runs(e.pod(monitoring, "anything", nil))
	if after := e.webhookCalls(); after != before || before == 0 {
		e.Fatalf("the API server called the webhook %.0f times for other pods, %.0f before", after-before, before)
	}
	e.proved(
		"pods of unlabelled namespaces, and other pods of labelled ones: no call (%.0f in all so far), by the API server's own metrics",
		before,
	)
}

// upgrades installs the next version and then the earlier one. During that time pods are created and a replica is deleted.
func (e *environment) upgrades() {
	e.Helper()
	open := e.apiServerSum("apiserver_admission_webhook_fail_open_count")
	ctx, stop := context.WithCancel(e.Context())
	defer stop()
	names := make(chan string)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var problems []error
	created := 0
	for range creators {
		wg.Go(func() {
			for name := range names {
				// The pods are gated, because only admission matters here, and 500 servers would be too many.
				pod := e.pod(monitoring, name, prometheusLabels)
				pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/never"}}
				stored, err := e.Client().CoreV1().Pods(monitoring).Create(ctx, pod, metav1.CreateOptions{})
				if err == nil && !env.Injected(stored) {
					err = fmt.Errorf("pod %s is not injected", name)
				}
				mu.Lock()
				created++
				if err != nil {
					problems = append(problems, err)
				}
				mu.Unlock()
			}
		})
	}
	upgraded := make(chan struct{})
	wg.Go(func() {
		defer close(names)
		for i := 0; ; i++ {
			select {
			case <-upgraded:
				if i >= upgradePods {
					return
				}
			case <-ctx.Done():
				return
			default:
			}
			names <- fmt.Sprintf("upgrade-%04d", i)
		}
	})
	e.install(nextVersion)
	replicas := e.pods(systemNamespace, "app.kubernetes.io/component=webhook")
	e.must(e.Client().CoreV1().Pods(systemNamespace).Delete(e.Context(), replicas[0].Name, metav1.DeleteOptions{}))
	e.install(version)
	close(upgraded)
	wg.Wait()
	if err := errors.Join(problems...); err != nil {
		e.Fatal(err)
	}
	if now := e.apiServerSum("apiserver_admission_webhook_fail_open_count"); now != open {
		e.Fatalf("the API server gave up on the webhook %.0f times", now-open)
	}
	e.must(e.Client().CoreV1().Pods(monitoring).DeleteCollection(e.Context(), metav1.DeleteOptions{GracePeriodSeconds: new(int64)},
		metav1.ListOptions{LabelSelector: "upgrade=yes"}))
	e.proved("two helm upgrades, a replica deleted between them, %d pods created during that time: all injected, no call failed", created)
	e.undisturbed("the upgrades, with a sidecar of %s beside a webhook of %s", version, nextVersion)
}

// allReplicasDead checks the behaviour if no webhook replica answers the API server.
func (e *environment) allReplicasDead() {
	e.Helper()
	e.scale(0)
	e.runs(e.pod(elsewhere, "meanwhile", nil))
	e.runs(e.pod(monitoring, "meanwhile", nil))
	pod := e.roll(byChart)
	if env.Injected(pod) {
		e.Fatalf("pod %s is injected, by no webhook", pod.Name)
	}
	e.podReady(pod)
	e.proved("no webhook replica: pods start as usual, and %s starts uninjected", pod.Name)
	e.Eventually(e.T, "the auditor reports "+pod.Name, func(ctx context.Context) error {
		events, err := e.Client().CoreV1().Events(monitoring).List(ctx, metav1.ListOptions{FieldSelector: "reason=InjectionMissed"})
		// The event belongs to the workload, because pods come and go.
		if err == nil &&
			!slices.ContainsFunc(events.Items, func(ev corev1.Event) bool { return strings.Contains(ev.Message, "pod "+pod.Name+":") }) {
			err = fmt.Errorf("%d events InjectionMissed, none about this pod", len(events.Items))
		}
		return err
	})
	e.proved("the auditor reports it with an event InjectionMissed that names the pod and the command that fixes it")
	e.scale(2)
	pod = e.roll(byChart)
	if !env.Injected(pod) {
		e.Fatalf("pod %s is not injected", pod.Name)
	}
	e.ready(pod)
}

// uninstall leaves the running pods unchanged and removes everything else. The product can be installed
// again.
func (e *environment) uninstall() {
	e.Helper()
	e.helm("uninstall", release, "--namespace", systemNamespace, "--wait", "--timeout", "3m")
	e.Eventually(e.T, "nothing of the chart is left", func(context.Context) error {
		left := e.inventory()
		maps.DeleteFunc(left, func(object string, _ bool) bool { return e.found[object] })
		if len(left) > 0 {
			return fmt.Errorf("helm uninstall left %s", strings.Join(slices.Sorted(maps.Keys(left)), ", "))
		}
		return nil
	})
	e.proved("helm uninstall: nothing of the chart is left, nor the webhook's registration")
	e.undisturbed("the uninstall")
	e.runs(e.pod(monitoring, "afterwards", prometheusLabels))
	e.install(version)
	pod := e.roll(byChart)
	if !env.Injected(pod) {
		e.Fatalf("pod %s is not injected after the chart is installed again", pod.Name)
	}
	e.ready(pod)
	e.samples(pod, byChart)
	e.proved("installed again: injected, and at work, as before")
}

// undisturbed checks that the pods of the chain still run without a restart, and that their samples still
// arrive.
func (e *environment) undisturbed(format string, args ...any) {
	e.Helper()
	for _, pod := range e.injectedPods() {
		for _, s := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
			if s.RestartCount > 0 && s.State.Terminated == nil {
				e.Errorf("container %s of %s was restarted %d times", s.Name, pod.Name, s.RestartCount)
			}
		}
		e.writes(&pod)
	}
	e.proved("injected pods run on through %s; their samples arrive", fmt.Sprintf(format, args...))
}

// prometheusLabels are the labels that detection uses.
var prometheusLabels = map[string]string{"app.kubernetes.io/name": "prometheus", "upgrade": "yes"}

// pod returns a small pod that the restricted standard admits. With labels it is a Prometheus with the
// service account that the policy grants.
func (e *environment) pod(namespace, name string, labels map[string]string) *corev1.Pod {
	e.Helper()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64),
			SecurityContext: &corev1.PodSecurityContext{
				RunAsNonRoot:   new(true),
				SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
			},
			Containers: []corev1.Container{
				{
					Name:  "main",
					Image: reloaderImage,
					Args:  []string{"--listen-address=:8080", "--watched-dir=/etc/prometheus", "--reload-url=http://127.0.0.1:1"},
					SecurityContext: &corev1.SecurityContext{
						AllowPrivilegeEscalation: new(false),
						Capabilities:             &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
					},
					VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/etc/prometheus"}},
				},
			},
			Volumes: []corev1.Volume{{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
				LocalObjectReference: corev1.LocalObjectReference{Name: "prometheus-server"}, Optional: new(true),
			}}}},
		},
	}
	if labels != nil {
		c := &pod.Spec.Containers[0]
		c.Image, c.Args = prometheusImage, []string{"--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"}
		if namespace == monitoring {
			pod.Spec.ServiceAccountName = byChart.serviceAccount
		}
	}
	return pod
}

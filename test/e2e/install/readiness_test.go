//go:build linux && e2e

package install

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/node"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

// readinessRounds is how often each pod is started. With less than five rounds the test only checks that the
// pods start, because a single start proves little on a shared machine.
var readinessRounds = flag.Int("readiness", 1, "how often to measure what injection adds to readiness; five or more are judged")

const (
	emptyImage = "localhost/empty:1"
	// addedBudget is how much longer than with an empty native sidecar with the same probe Prometheus may
	// take until it is ready, in the median.
	addedBudget = 500 * time.Millisecond
)

// startOf is one way in which the measured Prometheus starts.
type startOf struct {
	name string
	// stsDown is the fault of each call to STS; the zero value means that STS works.
	stsDown awstest.Fault
	change  func(*corev1.Pod)
}

// TestReadiness measures how long Prometheus takes from the creation of its pod until it is ready: with a
// native sidecar that does nothing, and injected with both deliveries, while STS works and while it never
// answers. `make bench-readiness` runs it five times.
func TestReadiness(t *testing.T) {
	cloud := startAWS(t)
	images := append(foreignImages(t, cloud.CA), archive(node.Dir(), version), emptySidecar(t))
	e := start(t, cloud, policy.Workspace{}, "start", "https://oidc.eks."+region+".amazonaws.com/id/0B0E0B0E0B0E0B0E0B0E0B0E0B0E0B0E", images)
	e.install(version)
	e.applyFile(byChart.file)
	e.trusted(byChart)
	// When this pod has a session, the trust works, and the measurement can begin.
	e.session(e.injected(byChart))

	working := awstest.Slow(0)
	kinds := []startOf{
		{"an empty native sidecar", working, beside},
		{"injected, relay, STS works", working, relayed},
		{"injected, sigv4, STS works", working, signed},
		{"injected, relay, STS never answers", awstest.Hang, relayed},
		{"injected, sigv4, STS never answers", awstest.Hang, signed},
	}
	server, ready := map[string][]time.Duration{}, map[string][]time.Duration{}
	e.starts("start-first", kinds[0]) // the first pod of an image is slower
	// The order of the ways changes in each round, so that other load on the machine affects all of them.
	for round := range *readinessRounds {
		for i := range kinds {
			kind := kinds[(i+round)%len(kinds)]
			fault := cloud.Fail("sts:AssumeRoleWithWebIdentity", kind.stsDown)
			s, r := e.starts(fmt.Sprintf("start-%d-%d", round, i), kind)
			fault.Stop()
			server[kind.name], ready[kind.name] = append(server[kind.name], s), append(ready[kind.name], r)
		}
	}
	fmt.Printf("| from the creation of the pod, median of %d (smallest to largest) "+
		"| Prometheus is ready | added | the pod is ready | added |\n"+
		"| --- | --- | --- | --- | --- |\n", *readinessRounds)
	base := kinds[0].name
	for _, kind := range kinds {
		added := median(server[kind.name]) - median(server[base])
		fmt.Printf("| %s | %s | %.2f s | %s | %.2f s |\n", kind.name, spread(server[kind.name]), added.Seconds(),
			spread(ready[kind.name]), (median(ready[kind.name]) - median(ready[base])).Seconds())
		if *readinessRounds >= 5 && added > addedBudget {
			t.Errorf("%s: %s more than with an empty native sidecar, the budget is %s", kind.name, added, addedBudget)
		}
	}
}

// emptySidecar builds the image of the sidecar that does nothing.
func emptySidecar(t *testing.T) string {
	t.Helper()
	program := tools.Build(t, "./empty", "-ldflags", "-s -w")
	file := filepath.Join(node.Dir(), "empty.tar")
	image := node.Image{Name: emptyImage, Files: map[string]string{"/empty": program}, Entrypoint: []string{"/empty"}, User: "65532:65532"}
	testkit.Must(t, image.Write(file))
	return file
}

// beside adds a native sidecar to the pod that does nothing and has the same probe as the config sidecar.
func beside(pod *corev1.Pod) {
	signed(pod)
	pod.Annotations = map[string]string{policy.AnnotationInject: "false"}
	pod.Spec.InitContainers = []corev1.Container{{
		Name: "empty", Image: emptyImage, RestartPolicy: new(corev1.ContainerRestartPolicyAlways),
		StartupProbe: &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"/empty", "ready"}}},
			PeriodSeconds: 1, TimeoutSeconds: 5, FailureThreshold: 60,
		},
		SecurityContext: pod.Spec.Containers[0].SecurityContext,
	}}
}

// signed makes Prometheus reload by itself, so that it can sign.
func signed(pod *corev1.Pod) {
	c := &pod.Spec.Containers[0]
	c.Args = append(c.Args, "--config.auto-reload")
	c.ReadinessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/-/ready", Port: intstr.FromInt32(9090)}},
		PeriodSeconds: 1,
	}
}

func relayed(pod *corev1.Pod) {
	signed(pod)
	pod.Annotations = map[string]string{policy.AnnotationDelivery: string(policy.DeliveryRelay)}
}

// serverReady matches the line in Prometheus's log with a time in milliseconds. The conditions of a pod have
// only seconds, and are as late as the next probe.
var serverReady = regexp.MustCompile(`(?m)^time=(\S+) .*msg="Server is ready to receive web requests\."`)

// starts runs a pod once. It returns how long after its creation Prometheus was ready, and when the API
// server knew it.
func (e *environment) starts(name string, kind startOf) (server, ready time.Duration) {
	e.Helper()
	pod := e.pod(monitoring, name, prometheusLabels)
	kind.change(pod)
	pods := e.Client().CoreV1().Pods(monitoring)
	watch, err := pods.Watch(e.Context(), metav1.ListOptions{FieldSelector: "metadata.name=" + name})
	e.must(err)
	defer watch.Stop()
	begin := time.Now()
	stored, err := pods.Create(e.Context(), pod, metav1.CreateOptions{})
	e.must(err)
	if want := pod.Annotations[policy.AnnotationInject] == ""; env.Injected(stored) != want {
		e.Fatalf("%s: injected: %t, want %t", kind.name, !want, want)
	}
	timeout := time.After(time.Minute)
	for ready == 0 {
		select {
		case <-timeout:
			e.Fatalf("%s: the pod is not ready after a minute", kind.name)
		case event := <-watch.ResultChan():
			if now, is := event.Object.(*corev1.Pod); is && isReady(now) {
				ready = time.Since(begin)
			}
		}
	}
	e.Eventually(e.T, "Prometheus's log contains the time when it was ready", func(ctx context.Context) error {
		line := serverReady.FindStringSubmatch(e.Logs(ctx, monitoring, name, "main"))
		if line == nil {
			return errors.New("not yet")
		}
		at, err := time.Parse(time.RFC3339Nano, line[1])
		server = at.Sub(begin)
		return err
	})
	e.remove(stored)
	return server, ready
}

func median(all []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2]
}

func spread(all []time.Duration) string {
	return fmt.Sprintf("%.2f s (%.2f to %.2f)", median(all).Seconds(), slices.Min(all).Seconds(), slices.Max(all).Seconds())
}

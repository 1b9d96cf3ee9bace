package doctor

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// The head of a report names the context, the versions, the revision of the policy, and when
// the checks ran.
func TestHead(t *testing.T) {
	api := objectServer(t, map[string]any{"/version": map[string]string{"gitVersion": "v1.34.2"}})
	kubeconfig := testkit.TempFile(t, "config", `
apiVersion: v1
kind: Config
current-context: dev-admin
contexts: [{name: dev-admin, context: {cluster: dev}}]
clusters: [{name: dev, cluster: {server: "`+api+`"}}]
`)
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	t.Setenv("AWS_ACCESS_KEY_ID", "")
	const policy = `
apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: dev}
destinations: [{name: central, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0123abcd"}]
trust: {manage: none}
`
	at := time.Date(2026, 11, 28, 10, 11, 12, 13, time.FixedZone("", 3600))
	var out, errs bytes.Buffer
	// Run returns an error, because nothing is installed here. Only the head matters.
	if err := Run(t.Context(), Options{
		Kubeconfig: kubeconfig, System: "ampbridge-system", Policy: "-", Output: JSON, Version: "v0.9.0",
		Now: func() time.Time { return at },
	}, strings.NewReader(policy), &out, &errs); err == nil {
		t.Error("doctor finds nothing wrong")
	}
	var got struct{ Run check.Head }
	testkit.DecodeJSON(t, out.String(), &got)
	if got.Run.Seconds < 0 || got.Run.Seconds > 600 {
		t.Errorf("it took %v seconds", got.Run.Seconds)
	}
	got.Run.Seconds = 0
	want := check.Head{
		Started: time.Date(2026, 11, 28, 9, 11, 12, 0, time.UTC), Context: "dev-admin",
		PolicyRevision: fmt.Sprintf("%x", sha256.Sum256([]byte(policy)))[:12],
		Versions:       check.Versions{Ampbridge: "v0.9.0", Kubernetes: "v1.34.2"},
	}
	testkit.Equal(t, "head", want, got.Run)
}

// The images of sidecars and of Prometheus are counted by pod. With the other modes the
// container is no Prometheus.
func TestVersionsOfPods(t *testing.T) {
	var x runner
	pod := func(image, sidecar string) *runningPod {
		p := &runningPod{Pod: &corev1.Pod{}, container: &corev1.Container{Image: image}}
		if sidecar != "" {
			p.Spec.InitContainers = []corev1.Container{{Name: sidecarconfig.ContainerName, Image: sidecar}}
		}
		return p
	}
	collector := pod("otel:v1", "ampbridge:v2")
	collector.mark.Mode = "relay"
	unclear := pod("", "")
	unclear.container = nil
	for _, p := range []*runningPod{pod("prometheus:v3", "ampbridge:v2"), pod("prometheus:v3", "ampbridge:v1"),
		pod("prometheus:v2", ""),
		collector, unclear} {
		x.noteVersions(p)
	}
	want := check.Versions{
		Sidecars:   map[string]int{"ampbridge:v1": 1, "ampbridge:v2": 2},
		Prometheus: map[string]int{"prometheus:v2": 1, "prometheus:v3": 2},
	}
	testkit.Equal(t, "versions", want, x.checks.Head.Versions)
}

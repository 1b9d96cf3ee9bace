package kubelet

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// report is the output of the probe, see testdata/probe.
type report struct {
	Args, Env, Root []string
	Dir, Hostname   string
	UID, GID        int
	Caps            string
	Files, Writes   map[string]string
}

func (r report) env(name string) string {
	for _, kv := range r.Env {
		if k, v, _ := strings.Cut(kv, "="); k == name {
			return v
		}
	}
	return "(unset)"
}

// newestReport returns the last report that the container has printed.
func newestReport(t *testing.T, c *Container) report {
	t.Helper()
	var r report
	lines := strings.Split(strings.TrimSpace(c.Logs()), "\n")
	testkit.DecodeJSON(t, lines[len(lines)-1], &r)
	return r
}

// newPod returns a pod with containers that are not restarted.
func newPod(containers ...corev1.Container) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "pod-", Labels: map[string]string{"app": "probe"}},
		Spec:       corev1.PodSpec{Containers: containers, RestartPolicy: corev1.RestartPolicyNever},
	}
}

func container(name string, args ...string) corev1.Container {
	return corev1.Container{
		Name: name, Image: image + ":v1", Args: args,
		Env: []corev1.EnvVar{{Name: "NAME", Value: name}},
	}
}

// create stores the pod and returns the API server's answer. It retries, because a namespace has no service
// account in the first moments of a cluster.
func create(t *testing.T, pod *corev1.Pod) *corev1.Pod {
	t.Helper()
	var created *corev1.Pod
	testkit.Eventually(t, "the API server creates the pod", func() bool {
		var err error
		created, err = testbed.client.CoreV1().Pods(namespace).Create(t.Context(), pod, metav1.CreateOptions{})
		if !apierrors.IsForbidden(err) {
			testkit.Must(t, err)
		}
		return err == nil
	})
	return created
}

// run creates the pod and runs it until the end of the test.
func run(t *testing.T, pod *corev1.Pod, change ...func(*Options)) *Pod {
	t.Helper()
	opts := Options{
		Images: Images{{
			Match:      "tests/probe",
			Binaries:   map[string]string{"/bin/probe": testbed.probe},
			Entrypoint: []string{"/bin/probe"}, Cmd: []string{"report"},
			Env: []string{"FROM_IMAGE=yes"}, WorkingDir: "/work", User: 65532,
		}},
		APIServer:      testbed.cluster.URL,
		Dir:            t.TempDir(),
		SyncPeriod:     20 * time.Millisecond,
		RestartBackoff: 20 * time.Millisecond,
	}
	for _, f := range change {
		f(&opts)
	}
	p, err := Run(t.Context(), testbed.client, create(t, pod), opts)
	testkit.CloseAfter(t, p, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.Describe())
		}
	})
	return p
}

func eventually(t *testing.T, p *Pod, what string, condition func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	testkit.Must(t, p.Eventually(ctx, what, condition))
}

func ended(p *Pod) func() bool {
	return func() bool { return p.Phase() == corev1.PodSucceeded || p.Phase() == corev1.PodFailed }
}

func configMap(t *testing.T, data map[string]string) *corev1.ConfigMap {
	t.Helper()
	cm, err := testbed.client.CoreV1().ConfigMaps(namespace).Create(t.Context(),
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "config-"}, Data: data}, metav1.CreateOptions{})
	testkit.Must(t, err)
	return cm
}

func update(t *testing.T, cm *corev1.ConfigMap, data map[string]string) {
	t.Helper()
	cm = cm.DeepCopy()
	cm.Data, cm.ResourceVersion = data, ""
	_, err := testbed.client.CoreV1().ConfigMaps(namespace).Update(t.Context(), cm, metav1.UpdateOptions{})
	testkit.Must(t, err)
}

func configMapVolume(cm *corev1.ConfigMap) corev1.Volume {
	return corev1.Volume{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: cm.Name},
	}}}
}

func emptyDir(name string) corev1.Volume {
	return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}}
}

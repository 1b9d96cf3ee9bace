package kubelet

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/ampbridge/ampbridge/test/testkit"
)

func TestRestartPolicy(t *testing.T) {
	for _, tt := range []struct {
		policy   corev1.RestartPolicy
		code     int
		restarts bool
		phase    corev1.PodPhase
	}{
		{corev1.RestartPolicyAlways, 0, true, corev1.PodRunning},
		{corev1.RestartPolicyAlways, 3, true, corev1.PodRunning},
		{corev1.RestartPolicyOnFailure, 3, true, corev1.PodRunning},
		{corev1.RestartPolicyOnFailure, 0, false, corev1.PodSucceeded},
		{corev1.RestartPolicyNever, 3, false, corev1.PodFailed},
		{corev1.RestartPolicyNever, 0, false, corev1.PodSucceeded},
	} {
		t.Run(fmt.Sprintf("%s after exit %d", tt.policy, tt.code), func(t *testing.T) {
			pod := newPod(container("main", "exit", strconv.Itoa(tt.code)))
			pod.Spec.RestartPolicy = tt.policy
			p := run(t, pod)
			c := p.Container("main")
			if tt.restarts {
				eventually(t, p, "three restarts", func() bool { return c.Restarts() >= 3 })
			} else {
				eventually(t, p, "the end", ended(p))
				if c.Restarts() != 0 {
					t.Errorf("got %d restarts, want none", c.Restarts())
				}
			}
			if p.Phase() != tt.phase {
				t.Errorf("got phase %s, want %s", p.Phase(), tt.phase)
			}
			for _, code := range c.ExitCodes() {
				if code != int32(tt.code) {
					t.Errorf("got exit codes %v, want all %d", c.ExitCodes(), tt.code)
				}
			}
		})
	}
}

func TestKillIsRestarted(t *testing.T) {
	pod := newPod(container("main", "sleep"))
	pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	p := run(t, pod)
	c := p.Container("main")
	eventually(t, p, "running", c.Running)
	pid := c.PID()
	testkit.Must(t, c.Kill(syscall.SIGKILL))
	eventually(t, p, "another process", func() bool { return c.Running() && c.PID() != pid })
	if got := c.ExitCodes(); !slices.Equal(got, []int32{137}) || c.Restarts() != 1 || c.StartedAt().IsZero() {
		t.Errorf("got exit codes %v, %d restarts, start at %s, want [137], 1 and a time", got, c.Restarts(), c.StartedAt())
	}
}

// TestSidecars checks the order of containers. Init containers start in order, and each sidecar's startup
// probe must succeed before the next one starts. They end in reverse order, after the ordinary containers.
func TestSidecars(t *testing.T) {
	cm := configMap(t, map[string]string{"a": "1"})
	always := corev1.ContainerRestartPolicyAlways
	serve := func(name string) corev1.Container {
		c := container(name, "serve", "127.0.0.1:"+strconv.Itoa(testkit.FreePort(t)))
		c.VolumeMounts = []corev1.VolumeMount{{Name: "shared", MountPath: "/shared"}, {Name: "config", MountPath: "/config"}}
		return c
	}
	first, second, setup, main := serve("first"), serve("second"), container("setup", "exit", "0"), serve("main")
	first.RestartPolicy, second.RestartPolicy = &always, &always
	first.StartupProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1000, ProbeHandler: corev1.ProbeHandler{
		Exec: &corev1.ExecAction{Command: []string{"/bin/probe", "exists", "/config/go"}},
	}}
	pod := newPod(main)
	pod.Spec.InitContainers = []corev1.Container{first, setup, second}
	pod.Spec.Volumes = []corev1.Volume{emptyDir("shared"), configMapVolume(cm)}
	p := run(t, pod)

	eventually(t, p, "the first sidecar", p.Container("first").Running)
	time.Sleep(1200 * time.Millisecond) // longer than a period of its probe
	if p.Container("setup").Status().State.Waiting == nil || !p.InitDone().IsZero() || p.Phase() != corev1.PodPending {
		t.Fatalf("the second init container did not wait for the first's startup probe:\n%s", p.Describe())
	}
	update(t, cm, map[string]string{"go": ""})
	eventually(t, p, "ready", p.Ready)
	if p.InitDone().IsZero() || p.Phase() != corev1.PodRunning {
		t.Errorf("got phase %s, initialised %s, want a running pod", p.Phase(), p.InitDone())
	}
	if got := p.Container("setup").ExitCodes(); !slices.Equal(got, []int32{0}) {
		t.Errorf("setup: got exit codes %v, want one 0", got)
	}
	testkit.Must(t, p.Container("first").Kill(syscall.SIGKILL))
	eventually(t, p, "the sidecar's restart", func() bool { return p.Container("first").Restarts() == 1 && p.Ready() })
	if main := p.Container("main"); main.Restarts() != 0 || !main.Running() {
		t.Error("a sidecar's restart touched an ordinary container")
	}
	eventually(t, p, "signal handlers", func() bool {
		return strings.Count(p.Container("first").Logs(), "\n") == 2 && strings.Contains(p.Container("main").Logs(), "\n") &&
			strings.Contains(p.Container("second").Logs(), "\n")
	})

	p.stop()
	<-p.Done()
	ends := testkit.ReadFile(t, filepath.Join(p.VolumeDir("shared"), "ends"))
	if got, want := strings.Fields(ends), []string{"main", "second", "first"}; !slices.Equal(got, want) {
		t.Errorf("containers ended in the order %v, want %v", got, want)
	}
}

func TestFailedInitContainer(t *testing.T) {
	for policy, phase := range map[corev1.RestartPolicy]corev1.PodPhase{
		corev1.RestartPolicyNever: corev1.PodFailed, corev1.RestartPolicyOnFailure: corev1.PodPending,
		corev1.RestartPolicyAlways: corev1.PodPending,
	} {
		t.Run(string(policy), func(t *testing.T) {
			pod := newPod(container("main", "sleep"))
			pod.Spec.RestartPolicy = policy
			pod.Spec.InitContainers = []corev1.Container{container("setup", "exit", "1")}
			p := run(t, pod)
			if setup := p.Container("setup"); phase == corev1.PodPending {
				eventually(t, p, "restarts", func() bool { return setup.Restarts() >= 2 })
			} else {
				eventually(t, p, "the end", ended(p))
			}
			if got := p.Phase(); got != phase || p.Container("main").Running() {
				t.Errorf("got phase %s, want %s and no ordinary container", got, phase)
			}
		})
	}
}

func TestProbes(t *testing.T) {
	port := testkit.FreePort(t)
	c := container("main", "serve", "127.0.0.1:"+strconv.Itoa(port))
	c.Ports = []corev1.ContainerPort{{Name: "web", ContainerPort: int32(port)}}
	healthy := corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/healthy", Port: intstr.FromString("web")}}
	c.StartupProbe = &corev1.Probe{
		PeriodSeconds:    1,
		FailureThreshold: 30,
		ProbeHandler:     corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(port)}},
	}
	c.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1, ProbeHandler: healthy}
	c.LivenessProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 3, ProbeHandler: healthy}
	c.VolumeMounts = []corev1.VolumeMount{{Name: "shared", MountPath: "/shared"}}
	pod := newPod(c)
	pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	pod.Spec.Volumes = []corev1.Volume{emptyDir("shared")}
	p := run(t, pod)
	eventually(t, p, "ready", p.Ready)

	_, err := testkit.Request(t.Context(), http.MethodGet, fmt.Sprintf("http://127.0.0.1:%d/sick", port))
	testkit.Must(t, err)
	main := p.Container("main")
	eventually(t, p, "not ready", func() bool { return !main.Ready() && main.Restarts() == 0 })
	// The new run has a new root, without the file that made the old run fail its probe.
	eventually(t, p, "ready after the liveness probe's restart", func() bool { return main.Restarts() == 1 && p.Ready() })
	if got := main.ExitCodes(); !slices.Equal(got, []int32{0}) {
		t.Errorf("got exit codes %v, want one 0: SIGTERM lets the program end", got)
	}
}

func TestFailedStartupProbeRestarts(t *testing.T) {
	c := container("main", "sleep")
	c.StartupProbe = &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1, ProbeHandler: corev1.ProbeHandler{
		Exec: &corev1.ExecAction{Command: []string{"/bin/probe", "exists", "/no"}},
	}}
	pod := newPod(c)
	pod.Spec.RestartPolicy = corev1.RestartPolicyAlways
	p := run(t, pod)
	eventually(t, p, "a restart", func() bool { return p.Container("main").Restarts() >= 1 })
	if p.Ready() {
		t.Error("ready without having started")
	}
}

func TestClose(t *testing.T) {
	pod := newPod(container("main", "stubborn"))
	pod.Spec.TerminationGracePeriodSeconds = new(int64(60))
	p := run(t, pod, func(o *Options) { o.MaxGrace = 300 * time.Millisecond })
	main := p.Container("main")
	eventually(t, p, "its child", func() bool { return strings.Contains(main.Logs(), "child") })
	var child int
	if _, err := fmt.Sscanf(main.Logs(), "child %d", &child); err != nil {
		t.Fatal(err)
	}
	pid := main.PID()
	testkit.Must(t, p.Close())
	if got := main.ExitCodes(); !slices.Equal(got, []int32{137}) {
		t.Errorf("got exit codes %v, want [137]: it ignores SIGTERM", got)
	}
	for _, pid := range []int{pid, child} {
		eventuallyGone(t, pid)
	}
	if _, err := os.Stat(p.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pod's directory: got %v, want it gone", err)
	}
	if mounts := testkit.ReadFile(t, "/proc/self/mountinfo"); strings.Contains(mounts, p.dir) {
		t.Errorf("mounts are left:\n%s", mounts)
	}
	if err := p.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

func TestStatusAndDeletion(t *testing.T) {
	c := container("main", "sleep")
	pod := newPod(c)
	pod.Spec.NodeName = "node-1" // the API server removes a pod without a node at once, but only its kubelet may remove one with a node
	p := run(t, pod)
	pods := testbed.client.CoreV1().Pods(namespace)
	eventually(t, p, "its status in the API server", func() bool {
		got, err := pods.Get(t.Context(), p.spec.Name, metav1.GetOptions{})
		return err == nil && got.Status.Phase == corev1.PodRunning && len(got.Status.ContainerStatuses) == 1 &&
			got.Status.ContainerStatuses[0].Ready
	})
	testkit.Must(t, pods.Delete(t.Context(), p.spec.Name, metav1.DeleteOptions{}))
	eventually(t, p, "the end", ended(p))
	testkit.Eventually(t, "the API server removes the deleted pod", func() bool {
		_, err := pods.Get(t.Context(), p.spec.Name, metav1.GetOptions{})
		return apierrors.IsNotFound(err)
	})
}

func TestLastStatusIsReported(t *testing.T) {
	p := run(t, newPod(container("main", "sleep")))
	eventually(t, p, "running", p.Ready)
	testkit.Must(t, p.Close())
	got, err := testbed.client.CoreV1().Pods(namespace).Get(t.Context(), p.spec.Name, metav1.GetOptions{})
	testkit.Must(t, err)
	if s := got.Status; s.Phase != corev1.PodFailed || s.ContainerStatuses[0].State.Terminated == nil ||
		s.ContainerStatuses[0].State.Terminated.ExitCode != 143 {
		t.Errorf("got status %+v, want phase Failed and exit code 143: SIGTERM ended it", s)
	}
}

func TestUnsupported(t *testing.T) {
	for want, change := range map[string]func(*corev1.PodSpec){
		"spec.shareProcessNamespace": func(s *corev1.PodSpec) { s.ShareProcessNamespace = new(true) },
		"spec.volumes[0] (v)": func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/"}}}}
		},
		"spec.volumes[0].projected.sources[0] (v)": func(s *corev1.PodSpec) {
			s.Volumes = []corev1.Volume{{Name: "v", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{
				Sources: []corev1.VolumeProjection{{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{}}}}}}}
		},
		"spec.containers[0] (main).lifecycle": func(s *corev1.PodSpec) {
			s.Containers[0].Lifecycle = &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{}}}
		},
		"spec.containers[0] (main).livenessProbe.grpc": func(s *corev1.PodSpec) {
			s.Containers[0].LivenessProbe = &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{}}}
		},
		"spec.containers[0] (main).volumeMounts /x: the pod has no volume \"v\"": func(s *corev1.PodSpec) {
			s.Containers[0].VolumeMounts = []corev1.VolumeMount{{Name: "v", MountPath: "/x"}}
		},
	} {
		pod := newPod(container("main"))
		change(&pod.Spec)
		p, err := Run(t.Context(), testbed.client, pod, Options{})
		if err == nil {
			_ = p.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error that names %s", err, want)
		}
	}
}

func TestInitMustBeCalled(t *testing.T) {
	initCalled.Store(false)
	defer initCalled.Store(true)
	if _, err := Run(
		t.Context(),
		testbed.client,
		newPod(container("main")),
		Options{},
	); err == nil ||
		!strings.Contains(err.Error(), "kubelet.Init") {
		t.Errorf("got %v, want an error that names kubelet.Init", err)
	}
}

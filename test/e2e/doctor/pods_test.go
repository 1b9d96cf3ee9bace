package doctor_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/kubelet"
	"github.com/ampbridge/ampbridge/test/tools"
	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/breaker/store"
)

const (
	selfScrape = `global: {scrape_interval: 1s}
scrape_configs:
- job_name: self
  static_configs: [{targets: ["127.0.0.1:%s"]}]
`
	// nodesRole has a service discovery that calls EC2 with the default identity.
	nodesRole = selfScrape + `- job_name: nodes
  ec2_sd_configs:
  - region: eu-west-1
    refresh_interval: 1h
`
)

// pods injects faults into existing pods.
func (s *fixture) pods() {
	s.Run("not injected", func(t *testing.T) {
		s := s.in(t)
		s.labelNamespace("null")
		s.createPod("late", nil)
		s.labelNamespace(`"enabled"`)
		s.waitForInjection(true)
		a := s.onlyFailed(check.Pods, "was not injected when it was created")
		s.follow(a.finding().Fix)
		s.createPod("late", nil) // its controller
		s.podPasses("late")
	})
	s.Run("refused with the sidecar", func(t *testing.T) {
		s := s.in(t)
		s.labelNamespace("null")
		s.createPod("refused", nil)
		s.labelNamespace(`"enabled"`)
		s.waitForInjection(true)
		s.must(store.Change(s.Context(), s.kube.Client().CoreV1().ConfigMaps(system), func(state breaker.State) breaker.State {
			return state.With(breaker.Entry{
				Workload: breaker.Of(namespace, "refused", "", "", nil), Revision: "0123456789ab", Cause: breaker.Refused,
				By: "ValidatingAdmissionPolicy limits", Message: "every container needs a CPU limit", Since: time.Now(),
			})
		}))
		s.onlyFailed(check.Pods,
			"ValidatingAdmissionPolicy limits refused the pods of its workload with the sidecar: every container needs a CPU limit")
		s.try(s.kube.Client().CoreV1().ConfigMaps(system).Delete(s.Context(), breaker.ConfigMap, metav1.DeleteOptions{}))
		s.deletePod("refused")

		// The API server never stored these pods. Only an event reports them, without their service account.
		event := &corev1.Event{
			ObjectMeta:     metav1.ObjectMeta{Name: "never-stored"},
			InvolvedObject: corev1.ObjectReference{APIVersion: "apps/v1", Kind: "StatefulSet", Namespace: namespace, Name: "server"},
			Reason:         "FailedCreate", Type: corev1.EventTypeWarning, LastTimestamp: metav1.Now(),
			Message: `create Pod server-0 in StatefulSet server failed error: pods "server-0" is forbidden: ValidatingAdmissionPolicy ` +
				`'limits' with binding 'limits' denied request: every container needs a CPU limit`,
		}
		s.must(s.kube.Client().CoreV1().Events(namespace).Create(s.Context(), event, metav1.CreateOptions{}))
		a := s.runDoctor(fault{})
		if a.status != unchecked || !contains(a.text(), "StatefulSet server of the namespace cannot create its pods: "+
			"ValidatingAdmissionPolicy limits refuses them: every container needs a CPU limit") {
			s.Errorf("status %d\n%s", a.status, a.text())
		}
		s.try(s.kube.Client().CoreV1().Events(namespace).Delete(s.Context(), event.Name, metav1.DeleteOptions{}))
	})
	s.Run("static keys win over the role", func(t *testing.T) {
		s := s.in(t)
		s.createPod("keys", func(pod *corev1.Pod) {
			pod.Spec.Containers[1].Env = []corev1.EnvVar{
				{Name: "AWS_ROLE_ARN", Value: "arn:aws:iam::111122223333:role/by-hand"},
				{Name: "AWS_ACCESS_KEY_ID", Value: "AKIAEXAMPLE"}, {Name: "AWS_SECRET_ACCESS_KEY", Value: "example"},
			}
		})
		s.onlyFailed(check.Identity, "static keys win")
		s.deletePod("keys")
		s.createPod("keys", nil)
		s.podPasses("keys")
	})
	s.Run("self-assume in a remote_write of one's own", func(t *testing.T) {
		s := s.in(t)
		role := "arn:aws:iam::" + accountID + ":role/ampbridge/demo/" + roleName
		config := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "itself"}, Data: map[string]string{
			"prometheus.yml": "remote_write:\n- url: " +
				"https://aps-workspaces.eu-west-1.amazonaws.com/workspaces/ws-1/api/v1/remote_write\n  sigv4: {region: eu-west-1, role_arn: " +
				"\"" + role + "\"}\n",
		}}
		s.must(s.kube.Client().CoreV1().ConfigMaps(namespace).Create(s.Context(), config, metav1.CreateOptions{}))
		s.createPod("itself", nil)
		s.onlyFailed(check.Identity, "would have to assume itself")
		config.Data["prometheus.yml"] = "{}\n"
		s.must(s.kube.Client().CoreV1().ConfigMaps(namespace).Update(s.Context(), config, metav1.UpdateOptions{}))
		s.podPasses("itself")
	})
	s.Run("the sidecar's image cannot be had", func(t *testing.T) {
		s := s.in(t)
		s.createPod("waits", nil)
		// The status that a kubelet sets.
		s.must(s.kube.Client().CoreV1().Pods(namespace).Patch(
			s.Context(),
			"waits",
			types.MergePatchType,
			[]byte(
				`{"status":{"phase":"Pending","initContainerStatuses":[{"name":"ampbridge-config","image":"x","imageID":"","ready":false,`+
					`"restartCount":0,"state":{"waiting":{"reason":"ImagePullBackOff","message":"not found"}}}]}}`,
			),
			metav1.PatchOptions{},
			"status",
		))
		a := s.onlyFailed(check.Sidecar, "ImagePullBackOff: not found")
		s.follow(a.finding().Fix)
		s.createPod("waits", nil)
		s.podPasses("waits")
	})
	s.Run("it runs", func(t *testing.T) { s.in(t).livePod() })
}

// livePod runs a whole pod: Prometheus, its reloader, the sidecar.
func (s *fixture) livePod() {
	port := freePort(s.T, s.host)
	stop := s.runPod("live", port, selfScrape, nil)
	s.waitForAll("live")
	s.waits("live")
	s.stuck("live")

	// The user adds a service discovery that used the node's identity so far.
	s.must(s.kube.Client().CoreV1().ConfigMaps(namespace).Patch(s.Context(), "live", types.MergePatchType,
		fmt.Appendf(nil, `{"data":{"prometheus.yml":%q}}`, fmt.Sprintf(nodesRole, port)), metav1.PatchOptions{}))
	// Pods of test/kubelet share the machine's ports, so another test's sidecar may use port 9095
	// for a while.
	s.eventually("only the identity fails", func() bool {
		s.address("live")
		a := s.runDoctor(fault{})
		return slices.Equal(a.Failed, []check.ID{check.Identity}) && contains(a.finding().Message, "no longer the node's role")
	})
	stop()

	// The fix: the annotation, and a new pod.
	port = freePort(s.T, s.host)
	stop = s.runPod("apart", port, nodesRole, func(pod *corev1.Pod) {
		pod.Annotations = map[string]string{policy.AnnotationEnvironment: string(policy.EnvironmentSidecar)}
	})
	defer stop()
	s.waitForAll("apart")
}

// waits runs doctor --wait while AMP fails, and once more after AMP works again.
func (s *fixture) waits(pod string) {
	s.Helper()
	failing := s.account.Fail("aps:RemoteWrite", awstest.Respond(400, "ValidationException", "no"))
	policyText, err := os.Open(s.policyFile)
	s.try(err)
	defer func() { _ = policyText.Close() }()
	cmd := exec.CommandContext(s.Context(), s.ampbridge, "doctor", "--kubeconfig", s.kube.Kubeconfig(), "--policy", "-", "--wait",
		timeout.String())
	cmd.Env, cmd.Stdin = s.environ(), policyText
	var out bytes.Buffer
	cmd.Stdout = &out
	said, err := cmd.StderrPipe()
	s.try(err)
	s.try(cmd.Start())
	lines := bufio.NewScanner(said)
	if !lines.Scan() || !strings.Contains(lines.Text(), "failed (write") {
		s.Errorf("doctor waits for no write: %q", lines.Text())
	}
	if a := s.runDoctor(fault{args: []string{"--wait", "1s"}}); a.status != 1 || contains(a.stderr, "doctor waits") {
		s.Errorf("a time that is over: status %d\n%s", a.status, a.stderr)
	}
	failing.Stop()
	ended := make(chan error, 1)
	go func() {
		for lines.Scan() {
		}
		ended <- cmd.Wait()
	}()
	for {
		select {
		case err := <-ended:
			if err != nil || strings.Count(out.String(), "checks passed") != 1 {
				s.Errorf("doctor --wait: %v\n%s", err, out.String())
			}
			return
		case <-time.After(200 * time.Millisecond):
			s.address(pod)
		}
	}
}

// stuck lets AMP fail. The check fails if samples are retried, refused or pending for ever.
func (s *fixture) stuck(pod string) {
	s.Helper()
	for _, c := range []struct {
		name, message string
		fault         awstest.Fault
	}{
		{"AMP fails", "and none was sent", awstest.ServerError},
		{"AMP does not answer", "and none was sent", awstest.Hang},
		{"AMP refuses everything", "none is known to be accepted", awstest.Respond(400, "ValidationException", "no")},
	} {
		failing := s.account.Fail("aps:RemoteWrite", c.fault)
		s.eventually("doctor finds remote_write stuck: "+c.name, func() bool {
			s.address(pod)
			// Doctor's own sample would fail first.
			a := s.runDoctor(fault{args: []string{"--no-write"}})
			return a.status == 1 && slices.Equal(a.Failed, []check.ID{check.Flow}) && contains(a.finding().Message, c.message)
		})
		failing.Stop()
		// What was refused stays a warning until Prometheus starts again.
		s.eventually("it flows again", func() bool {
			s.address(pod)
			a := s.runDoctor(fault{})
			return a.status == 0 && (a.Status(check.Flow) == check.Pass || contains(a.text(), "samples were refused since the start"))
		})
	}
}

// address gives the pod the machine's address, because the API server does not proxy to a
// loopback address. It does so again after test/kubelet has written its own address.
func (s *fixture) address(name string) {
	s.Helper()
	s.must(s.kube.Client().CoreV1().Pods(namespace).Patch(s.Context(), name, types.MergePatchType,
		fmt.Appendf(nil, `{"status":{"podIP":%q,"podIPs":[{"ip":%q}]}}`, s.host, s.host), metav1.PatchOptions{}, "status"))
}

// waitForAll waits until every check passes, including the checks of the pod.
func (s *fixture) waitForAll(pod string) {
	s.Helper()
	var a answer
	for deadline := time.Now().Add(timeout); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		s.address(pod)
		a = s.runDoctor(fault{})
		if a.status == 0 &&
			!slices.ContainsFunc(check.All, func(r check.Check) bool {
				return a.Status(r.ID) != check.Pass && r.ID != check.SyncLeads &&
					r.ID != check.Read
			}) {
			return
		}
	}
	s.Fatalf("not within %s: every check passes\n%s", timeout, a.text())
}

// onlyFailed runs doctor, and expects that exactly this check fails.
func (s *fixture) onlyFailed(id check.ID, message string) answer {
	s.Helper()
	a := s.runDoctor(fault{})
	if len(a.Failed) != 1 || a.Failed[0] != id || a.status != 1 || !contains(a.finding().Message, message) {
		s.Fatalf("failed: %v, status %d; want %s (%q)\n%s", a.Failed, a.status, id, message, a.text())
	}
	return a
}

// podPasses expects that the checks of the fixed pod pass, and deletes it.
func (s *fixture) podPasses(name string) {
	s.Helper()
	a := s.runDoctor(fault{})
	if a.status != unchecked || a.Status(check.Pods) != check.Pass || a.Status(check.Identity) != check.Pass {
		s.Fatalf("status %d\n%s", a.status, a.text())
	}
	s.deletePod(name)
}

// createPod creates a Prometheus pod, and its configuration where the row has none.
func (s *fixture) createPod(name string, change func(*corev1.Pod)) *corev1.Pod {
	s.Helper()
	_, err := s.kube.Client().CoreV1().ConfigMaps(namespace).Create(s.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"prometheus.yml": "{}\n"},
	}, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		s.try(err)
	}
	pod, err := s.kube.Client().CoreV1().Pods(namespace).Create(s.Context(), prometheusPod(name, change), metav1.CreateOptions{})
	s.try(err)
	return pod
}

func (s *fixture) deletePod(name string) {
	s.Helper()
	s.kubectl(args{words: []string{"delete", "pod", name}, flags: map[string]string{"--namespace": namespace}})
}

// runPod does the work of the kubelet.
func (s *fixture) runPod(name, port, config string, change func(*corev1.Pod)) (stop func()) {
	s.Helper()
	s.must(s.kube.Client().CoreV1().ConfigMaps(namespace).Create(s.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string]string{"prometheus.yml": fmt.Sprintf(config, port)},
	}, metav1.CreateOptions{}))
	pod := s.createPod(name, func(pod *corev1.Pod) {
		reloaderPort := freePort(s.T, "127.0.0.1")
		pod.Spec.Containers[0].Args = []string{
			"--watched-dir=/etc/config",
			"--listen-address=127.0.0.1:" + reloaderPort,
			"--reload-url=http://127.0.0.1:" + port + "/-/reload",
		}
		pod.Spec.Containers[1].Args = []string{
			"--config.file=/etc/config/prometheus.yml",
			"--storage.tsdb.path=/data",
			"--web.enable-lifecycle",
			"--web.listen-address=0.0.0.0:" + port,
		}
		pod.Spec.Containers[1].VolumeMounts = append(
			pod.Spec.Containers[1].VolumeMounts,
			corev1.VolumeMount{Name: "data", MountPath: "/data"},
		)
		pod.Spec.Volumes = append(
			pod.Spec.Volumes,
			corev1.Volume{Name: "data", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
		)
		if change != nil {
			change(pod)
		}
	})
	log, err := os.Create(filepath.Join(s.dir, name+".log"))
	s.try(err)
	run, err := kubelet.Run(s.root.Context(), s.kube.Client(), pod, kubelet.Options{Dir: s.dir, Log: log, Images: s.images(s.T)})
	s.try(err)
	s.Cleanup(func() { _ = run.Close() })
	s.eventually("the pod is ready", run.Ready)
	return func() {
		s.try(run.Close())
		s.deletePod(name)
		s.try(log.Close())
	}
}

// images are the images on the node.
func (s *fixture) images(t *testing.T) kubelet.Images {
	t.Helper()
	sidecar := filepath.Join(s.dir, "config-sidecar")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", sidecar, "github.com/ampbridge/ampbridge/cmd/config-sidecar")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the sidecar: %v\n%s", err, out)
	}
	reloader, err := tools.Find(t.Context(), "prometheus-config-reloader", os.Stderr)
	s.try(err)
	// It has every service discovery; the newest one is built with few.
	prometheus, err := tools.Find(t.Context(), "prometheus-3.1", os.Stderr)
	s.try(err)
	const nobody = 65534
	return kubelet.Images{
		{
			Match:      "prometheus/prometheus",
			Binaries:   map[string]string{"/bin/prometheus": prometheus},
			Entrypoint: []string{"/bin/prometheus"},
			WorkingDir: "/prometheus",
			Volumes:    []string{"/prometheus"},
			User:       nobody,
		},
		{
			Match:      "prometheus-operator/prometheus-config-reloader",
			Binaries:   map[string]string{"/bin/prometheus-config-reloader": reloader},
			Entrypoint: []string{"/bin/prometheus-config-reloader"},
			User:       nobody,
		},
		{
			Match:      "registry.example/ampbridge",
			Binaries:   map[string]string{"/config-sidecar": sidecar},
			Entrypoint: []string{"/config-sidecar"},
			User:       nobody,
		},
	}
}

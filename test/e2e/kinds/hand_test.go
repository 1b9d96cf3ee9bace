package kinds_test

import (
	"context"
	"strings"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/env"
)

// hand returns a function that creates a pod as users write them. change gets a pod with its configuration in
// a ConfigMap, and sets how Prometheus finds the configuration.
func hand(change func(*corev1.Pod)) func(*fixture, asked) (made, error) {
	return func(f *fixture, a asked) (made, error) {
		if err := f.create(a, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: a.name, Namespace: env.Namespace},
			Data:       map[string]string{"prometheus.yml": a.config},
		}); err != nil {
			return made{}, err
		}
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: a.name, Namespace: env.Namespace},
			Spec: corev1.PodSpec{
				ServiceAccountName: env.ServiceAccount,
				Containers: []corev1.Container{{
					Name: "main", Image: "quay.io/prometheus/prometheus:" + a.tag,
					VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/etc/prometheus"}},
				}},
				Volumes: []corev1.Volume{{Name: "config", VolumeSource: corev1.VolumeSource{
					ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: a.name}},
				}}},
			},
		}
		change(pod)
		if err := f.create(a, pod); err != nil {
			return made{}, err
		}
		return made{pod: pod, set: func(ctx context.Context, config string) error {
			return f.setConfigMap(ctx, a.name, "prometheus.yml", config)
		}}, nil
	}
}

// everySecond makes Prometheus check its configuration every second; the default is 30 s.
const everySecond = "--config.auto-reload-interval=1s"

// defaultPath sets no argument, so the image's own arguments are used. Nothing reloads Prometheus.
func defaultPath(*corev1.Pod) {}

// flagAndValue puts the flag and its value as two arguments into the command. A reloader watches the file.
func flagAndValue(pod *corev1.Pod) {
	main := &pod.Spec.Containers[0]
	main.Command = []string{
		"/bin/prometheus",
		"--config.file",
		"/config/prometheus.yml",
		"--web.enable-lifecycle",
		"--storage.tsdb.path=/tmp/data",
	}
	main.VolumeMounts[0].MountPath = "/config"
	pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{
		Name:  "reloader",
		Image: "quay.io/prometheus-operator/prometheus-config-reloader:v0.85.0",
		Args: []string{
			"--config-file=/watched/prometheus.yml",
			"--reload-url=http://localhost:9090/-/reload",
			"--listen-address=:8080",
		},
		VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/watched"}},
	})
}

// shell has the command in a script.
func shell(pod *corev1.Pod) {
	main := &pod.Spec.Containers[0]
	main.Image = "docker.io/busybox/prometheus:v3.15.0"
	main.Command = []string{"/bin/sh", "-c"}
	main.Args = []string{`exec /bin/prometheus --config.file="/etc/prometheus/prometheus.yml" \
  --storage.tsdb.path=/tmp/data --web.listen-address=127.0.0.1:9090 --config.auto-reload ` + everySecond}
}

// projected has the configuration in one directory together with other files.
func projected(pod *corev1.Pod) {
	feature(pod)
	source := pod.Spec.Volumes[0].ConfigMap.LocalObjectReference
	pod.Spec.Volumes[0].VolumeSource = corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
		{
			DownwardAPI: &corev1.DownwardAPIProjection{
				Items: []corev1.DownwardAPIVolumeFile{{Path: "name", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
			},
		},
		{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: source}},
	}}}
}

// feature makes Prometheus 3 watch its configuration by itself.
func feature(pod *corev1.Pod) {
	pod.Spec.Containers[0].Args = []string{"--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/tmp/data",
		"--enable-feature=exemplar-storage,auto-reload-config", everySecond}
}

// subPath mounts the single file, which then never changes.
func subPath(pod *corev1.Pod) {
	pod.Spec.Containers[0].Args = []string{"--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/tmp/data"}
	mount := &pod.Spec.Containers[0].VolumeMounts[0]
	mount.MountPath, mount.SubPath = "/etc/prometheus/prometheus.yml", "prometheus.yml"
}

// agent uses Prometheus 3's agent mode.
func agent(pod *corev1.Pod) {
	pod.Spec.Containers[0].Args = []string{"--config.file=/etc/prometheus/prometheus.yml", "--agent", "--storage.agent.path=/tmp/data",
		"--config.auto-reload", everySecond}
}

// agentV2 uses Prometheus 2's agent mode with a reloader, because that version cannot watch its configuration
// by itself.
func agentV2(pod *corev1.Pod) {
	flagAndValue(pod)
	pod.Spec.Containers[0].Command = []string{"/bin/prometheus", "--config.file", "/config/prometheus.yml", "--web.enable-lifecycle",
		"--enable-feature=agent", "--storage.agent.path=/tmp/data"}
}

// namedContainer has two containers that look like Prometheus, and names the right one.
func namedContainer(pod *corev1.Pod) {
	pod.Annotations = map[string]string{"ampbridge.io/container": "main"}
	feature(pod)
	other := pod.Spec.Containers[0].DeepCopy()
	other.Name, other.VolumeMounts = "other", nil
	other.Args = []string{"--version"}
	pod.Spec.Containers = append(pod.Spec.Containers, *other)
	pod.Spec.RestartPolicy = corev1.RestartPolicyOnFailure
}

// applying creates a row in which Prometheus applies a change in a way that the webhook cannot detect.
func applying(apply func(*subject), create func(*fixture, asked) (made, error)) func(*fixture, asked) (made, error) {
	return func(f *fixture, a asked) (made, error) {
		m, err := create(f, a)
		m.applies = apply
		return m, err
	}
}

// hangUp does what a container in the pod's process namespace would do. byItself does nothing, because
// Prometheus needs no help.
func hangUp(p *subject) {
	if err := p.Pod.Container("main").Kill(syscall.SIGHUP); err != nil {
		p.Error(err)
	}
}

func byItself(*subject) {}

// plain has nothing that makes Prometheus read its configuration again.
func plain(pod *corev1.Pod) {
	pod.Spec.Containers[0].Args = []string{"--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/tmp/data"}
}

// beside adds a container that sees the configuration.
func beside(pod *corev1.Pod, name, image string, args ...string) {
	pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: name, Image: image, Args: args,
		VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/config"}}})
}

// annotated proves sigv4, but requests the relay with the annotation.
func annotated(pod *corev1.Pod) {
	feature(pod)
	pod.Annotations = map[string]string{policy.AnnotationDelivery: string(policy.DeliveryRelay)}
}

// signalled has a reloader that sends a signal.
func signalled(pod *corev1.Pod) {
	plain(pod)
	pod.Spec.ShareProcessNamespace = new(true)
	beside(pod, "reloader", "ghcr.io/x/config-map-reloader-sighup:1")
}

// rbacProxy has a proxy with a configuration of its own.
func rbacProxy(pod *corev1.Pod) {
	plain(pod)
	beside(pod, "kube-rbac-proxy", "quay.io/brancz/kube-rbac-proxy:v0.18.0",
		"--secure-listen-address=0.0.0.0:8443", "--upstream=http://127.0.0.1:9090/", "--config-file=/config/rules.yml")
}

// othersReloader has the reloader of an Alertmanager in the same pod.
func othersReloader(pod *corev1.Pod) {
	plain(pod)
	beside(pod, "alertmanager", "quay.io/prom/alertmanager:v0.28.0", "--config.file=/config/alertmanager.yml")
	beside(pod, "alertmanager-reload", "jimmidyson/configmap-reload:v0.8.0",
		"--volume-dir=/config", "--webhook-url=http://localhost:9093/-/reload")
}

// expandedOnce has an init container that writes the file that Prometheus reads.
func expandedOnce(pod *corev1.Pod) {
	plain(pod)
	pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{
		Name: "out", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}},
	})
	pod.Spec.Containers[0].VolumeMounts[0].Name = "out"
	pod.Spec.InitContainers = []corev1.Container{{
		Name:  "expand",
		Image: "quay.io/prometheus-operator/prometheus-config-reloader:v0.85.0",
		Args: []string{
			"--watch-interval=0", "--listen-address=:8081",
			"--config-file=/in/prometheus.yml", "--config-envsubst-file=/out/prometheus.yml",
		},
		VolumeMounts: []corev1.VolumeMount{{Name: "config", MountPath: "/in"}, {Name: "out", MountPath: "/out"}},
	}}
}

// unknownVersion names its image only by digest.
func unknownVersion(pod *corev1.Pod) {
	feature(pod)
	pod.Spec.Containers[0].Image = "quay.io/prometheus/prometheus@sha256:" + strings.Repeat("0", 64)
}

// ownFiles sets its own AWS files, which do not exist yet.
func ownFiles(pod *corev1.Pod) {
	feature(pod)
	pod.Spec.Containers[0].Env = []corev1.EnvVar{
		{Name: "AWS_SHARED_CREDENTIALS_FILE", Value: "/aws/credentials"}, {Name: "AWS_CONFIG_FILE", Value: "/aws/config"},
	}
}

// envFrom could get AWS variables from another object.
func envFrom(pod *corev1.Pod) {
	feature(pod)
	pod.Spec.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{
		LocalObjectReference: corev1.LocalObjectReference{Name: "aws"}, Optional: new(true),
	}}}
}

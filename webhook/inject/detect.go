package inject

import (
	"cmp"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// Labels with which the two common deployments mark a Prometheus pod.
const (
	labelManagedBy = "app.kubernetes.io/managed-by"
	labelOperator  = "operator.prometheus.io/name"
	labelName      = "app.kubernetes.io/name"
	labelComponent = "app.kubernetes.io/component"
)

// Prometheus reports whether the pod has a container that is Prometheus, or that the pod's owner
// names with the annotation ampbridge.io/container. container is empty if the container is not
// clear: if the annotation names no container of the pod, or several look like Prometheus. [Inject]
// then skips the pod with a warning.
func Prometheus(pod *Pod) (container string, ok bool) {
	found := candidates(pod)
	if len(found) == 1 {
		return pod.Spec.Containers[found[0]].Name, true
	}
	return "", len(found) > 1 || pod.Metadata.Annotations[policy.AnnotationContainer] != ""
}

// Resembles returns the name of a container that could be Prometheus, for a pod in which
// [Prometheus] found none; empty if there is no such container. The warning then names the
// annotation.
func Resembles(pod *Pod) string {
	for i := range pod.Spec.Containers {
		if c := &pod.Spec.Containers[i]; resembles(c) {
			return c.Name
		}
	}
	return ""
}

// candidates returns the indexes of the containers that could be the Prometheus to inject. The
// first rule that finds any container decides.
func candidates(pod *Pod) []int {
	if name := cmp.Or(pod.Metadata.Annotations[policy.AnnotationContainer], pod.prometheus); name != "" {
		return pod.containers(func(c *Container) bool { return c.Name == name })
	}
	if name := labelledContainer(pod.Metadata.Labels); name != "" {
		if found := pod.containers(func(c *Container) bool { return c.Name == name }); len(found) > 0 {
			return found
		}
	}
	if found := pod.containers(isServer); len(found) > 0 {
		return found
	}
	return pod.containers(func(c *Container) bool { return prometheusImage(c) && !checks(c) })
}

// labelledContainer returns the name of the Prometheus container for pods with the labels of a
// common deployment.
func labelledContainer(labels map[string]string) string {
	switch {
	case labels[labelManagedBy] == "prometheus-operator" && labels[labelOperator] != "":
		return "prometheus"
	case labels[labelName] == "prometheus" && labels[labelComponent] == "server":
		return "prometheus-server"
	}
	return ""
}

// isServer reports whether the container certainly runs a Prometheus server. It has flags that only
// Prometheus has, or it has a Prometheus image and runs the image's own program or one with the
// name prometheus.
func isServer(c *Container) bool {
	if checks(c) {
		return false
	}
	program, _ := c.commandLine()
	return prometheusArguments(c) || prometheusImage(c) && (program == "" || path.Base(program) == "prometheus")
}

// serverImage matches the names of images with Prometheus. The builds for one platform are
// published as prometheus-linux-amd64 and so on.
var serverImage = regexp.MustCompile(`^prometheus(-linux-[a-z0-9]+)?$`)

func prometheusImage(c *Container) bool { return serverImage.MatchString(imageName(c.Image)) }

// serverFlag matches flags that, of all programs with --config.file, only a Prometheus server has.
// It does not match --web.enable-lifecycle, because alert forwarders have it, and not
// --storage.path, because Alertmanager has it.
var serverFlag = regexp.MustCompile(`^--?(storage\.(tsdb|agent|remote|local)\.|query\.|rules\.|web\.console\.|` +
	`web\.enable-(admin-api|remote-write-receiver|otlp-receiver)(=|$)|config\.auto-reload|agent$)`)

// serverFeatures are the values of --enable-feature that only Prometheus has.
var serverFeatures = []string{
	"agent", "auto-reload-config", "exemplar-storage", "expand-external-labels", "extra-scrape-metrics",
	"memory-snapshot-on-shutdown", "native-histograms", "otlp-write-receiver", "remote-write-receiver",
}

// prometheusArguments distinguishes Prometheus from exporters, which also have --config.file. It
// checks the plain arguments and not the script of a shell, because the webhook's match condition
// cannot read scripts either.
func prometheusArguments(c *Container) bool {
	args := c.arguments()
	return hasFlag(args, "config.file") && (slices.ContainsFunc(args, serverFlag.MatchString) ||
		slices.ContainsFunc(slices.Collect(valuesOf(args, "enable-feature")), func(features string) bool {
			return slices.ContainsFunc(strings.Split(features, ","), func(f string) bool { return slices.Contains(serverFeatures, f) })
		}))
}

// resembles reports whether the container could run Prometheus. It has a --config.file with a
// typical path of Prometheus, or --config.file together with --web.enable-lifecycle. The image is
// not known to be another program, and the container does not only check a configuration.
func resembles(c *Container) bool {
	args := c.arguments()
	files := slices.Collect(valuesOf(args, "config.file"))
	if len(files) == 0 || checks(c) || otherImage.MatchString(imageName(c.Image)) {
		return false
	}
	return hasFlag(args, "web.enable-lifecycle") ||
		slices.ContainsFunc(files, func(file string) bool { return !strings.HasPrefix(file, "-") && strings.Contains(file, "prometheus") })
}

// otherImage matches the images of other programs that often run together with Prometheus.
var otherImage = regexp.MustCompile(`alertmanager|exporter|dingtalk|webhook|pushgateway|operator|reload|adapter|proxy|` +
	`thanos|cortex|mimir|loki|tempo|promtail|grafana|vmagent|victoria|statsd|promlens|promu`)

// checks reports whether the container runs promtool and no server. Jobs and hooks do that to check
// a configuration.
func checks(c *Container) bool {
	program, _ := c.commandLine()
	if path.Base(program) == "promtool" {
		return true
	}
	i := slices.IndexFunc(c.arguments(), anyScriptFlag.MatchString) + 1
	if len(c.Command) == 0 || !slices.Contains(shells, path.Base(c.Command[0])) || i == 0 || i == len(c.arguments()) {
		return false
	}
	ran := programs(c.arguments()[i])
	return slices.Contains(ran, "promtool") &&
		!slices.ContainsFunc(ran, func(program string) bool { return program == "prometheus" || strings.Contains(program, "$") })
}

func (p *Pod) containers(match func(*Container) bool) []int {
	var found []int
	for i := range p.Spec.Containers {
		if match(&p.Spec.Containers[i]) {
			found = append(found, i)
		}
	}
	return found
}

// selectContainer returns the index of the container to inject.
func selectContainer(pod *Pod) (int, *policy.Decision) {
	found := candidates(pod)
	if len(found) == 1 {
		return found[0], nil
	}
	if name := pod.Metadata.Annotations[policy.AnnotationContainer]; name != "" && len(found) == 0 {
		return 0, refuse(
			NoSuchContainer,
			"annotation %s names %q, but the pod has no such container: write the name of its Prometheus container",
			policy.AnnotationContainer,
			name,
		)
	}
	if len(found) == 0 {
		return 0, refuse(
			policy.NotPrometheus,
			"no container looks like Prometheus: name the Prometheus container with the annotation %s",
			policy.AnnotationContainer,
		)
	}
	names := make([]string, len(found))
	for i, index := range found {
		names[i] = pod.Spec.Containers[index].Name
	}
	return 0, refuse(
		AmbiguousContainer,
		"several containers look like Prometheus (%s): name one with the annotation %s",
		strings.Join(names, ", "),
		policy.AnnotationContainer,
	)
}

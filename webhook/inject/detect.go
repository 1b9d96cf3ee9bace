package inject

import (
	"cmp"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// Labels by which the two common deployments say what a pod is.
const (
	labelManagedBy = "app.kubernetes.io/managed-by"
	labelOperator  = "operator.prometheus.io/name"
	labelName      = "app.kubernetes.io/name"
	labelComponent = "app.kubernetes.io/component"
)

// Prometheus reports whether a pod has a container that is Prometheus, or that
// its owner names as such with the annotation ampbridge.io/container. container
// is empty where it is not clear which one: where the annotation names none of
// the pod's, or several look like Prometheus. [Inject] then skips, and says so.
func Prometheus(pod *Pod) (container string, ok bool) {
	found := candidates(pod)
	if len(found) == 1 {
		return pod.Spec.Containers[found[0]].Name, true
	}
	return "", len(found) > 1 || pod.Metadata.Annotations[policy.AnnotationContainer] != ""
}

// Resembles returns the name of a container that may be Prometheus, in a pod of
// which [Prometheus] knows none; empty: there is no such container. The warning
// then names the annotation.
func Resembles(pod *Pod) string {
	for i := range pod.Spec.Containers {
		if c := &pod.Spec.Containers[i]; resembles(c) {
			return c.Name
		}
	}
	return ""
}

// candidates are the indexes of the containers that may be the Prometheus that
// is meant. The first rule that finds any decides.
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

// labelledContainer is how a pod's maker calls its Prometheus container.
func labelledContainer(labels map[string]string) string {
	switch {
	case labels[labelManagedBy] == "prometheus-operator" && labels[labelOperator] != "":
		return "prometheus"
	case labels[labelName] == "prometheus" && labels[labelComponent] == "server":
		return "prometheus-server"
	}
	return ""
}

// isServer reports whether the container surely runs a Prometheus server: by
// the flags that only Prometheus has, or by its image with the image's own
// program or one of that name.
func isServer(c *Container) bool {
	if checks(c) {
		return false
	}
	program, _ := c.commandLine()
	return prometheusArguments(c) || prometheusImage(c) && (program == "" || path.Base(program) == "prometheus")
}

// serverImage is the name of an image that holds Prometheus. Its builds for one
// platform are published as prometheus-linux-amd64 and so on.
var serverImage = regexp.MustCompile(`^prometheus(-linux-[a-z0-9]+)?$`)

func prometheusImage(c *Container) bool { return serverImage.MatchString(imageName(c.Image)) }

// serverFlag matches the flags of a server that only Prometheus has, among the
// programs that have --config.file too. Not among them are
// --web.enable-lifecycle, which forwarders of alerts have, and --storage.path,
// which is Alertmanager's.
var serverFlag = regexp.MustCompile(`^--?(storage\.(tsdb|agent|remote|local)\.|query\.|rules\.|web\.console\.|` +
	`web\.enable-(admin-api|remote-write-receiver|otlp-receiver)(=|$)|config\.auto-reload|agent$)`)

// serverFeatures are values of --enable-feature that only Prometheus has.
var serverFeatures = []string{
	"agent", "auto-reload-config", "exemplar-storage", "expand-external-labels", "extra-scrape-metrics",
	"memory-snapshot-on-shutdown", "native-histograms", "otlp-write-receiver", "remote-write-receiver",
}

// prometheusArguments tells Prometheus from the exporters, which have a
// --config.file as well. It looks at arguments as they stand, not into a
// shell's script: the webhook's match condition cannot either.
func prometheusArguments(c *Container) bool {
	args := c.arguments()
	return hasFlag(args, "config.file") && (slices.ContainsFunc(args, serverFlag.MatchString) ||
		slices.ContainsFunc(slices.Collect(valuesOf(args, "enable-feature")), func(features string) bool {
			return slices.ContainsFunc(strings.Split(features, ","), func(f string) bool { return slices.Contains(serverFeatures, f) })
		}))
}

// resembles reports whether the container may run Prometheus: with a
// --config.file that lies where Prometheus keeps its own, or beside
// --web.enable-lifecycle. Images that are known to hold another program, and
// what only checks a configuration, do not.
func resembles(c *Container) bool {
	args := c.arguments()
	files := slices.Collect(valuesOf(args, "config.file"))
	if len(files) == 0 || checks(c) || otherImage.MatchString(imageName(c.Image)) {
		return false
	}
	return hasFlag(args, "web.enable-lifecycle") ||
		slices.ContainsFunc(files, func(file string) bool { return !strings.HasPrefix(file, "-") && strings.Contains(file, "prometheus") })
}

// otherImage matches images of other programs that are found beside Prometheus.
var otherImage = regexp.MustCompile(`alertmanager|exporter|dingtalk|webhook|pushgateway|operator|reload|adapter|proxy|` +
	`thanos|cortex|mimir|loki|tempo|promtail|grafana|vmagent|victoria|statsd|promlens|promu`)

// checks reports whether the container runs promtool and no server, as jobs and
// hooks do that check a configuration.
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

// selectContainer is the index of the container to inject.
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
			"no container looks like Prometheus: name it with the annotation %s",
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

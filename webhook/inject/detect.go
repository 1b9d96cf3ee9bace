package inject

import (
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

// Prometheus tells whether a pod has a container that is Prometheus, or that
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

// candidates are the indexes of the containers that may be the Prometheus that
// is meant. The first rule that finds any decides.
func candidates(pod *Pod) []int {
	if name := pod.Metadata.Annotations[policy.AnnotationContainer]; name != "" {
		return pod.containers(func(c *Container) bool { return c.Name == name })
	}
	if name := labelledContainer(pod.Metadata.Labels); name != "" {
		if found := pod.containers(func(c *Container) bool { return c.Name == name }); len(found) > 0 {
			return found
		}
	}
	return pod.containers(func(c *Container) bool { return imageName(c.Image) == "prometheus" || prometheusArguments(c) })
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

// prometheusArguments tells Prometheus from the exporters, which have a
// --config.file as well. It looks at arguments as they stand, not into a
// shell's script: the webhook's match condition cannot either.
func prometheusArguments(c *Container) bool {
	args := c.arguments()
	return len(flagValues(args, "config.file")) > 0 && slices.ContainsFunc(args, func(arg string) bool {
		flag := strings.TrimLeft(arg, "-")
		return strings.HasPrefix(flag, "storage.tsdb.") || strings.HasPrefix(flag, "storage.agent.") ||
			strings.HasPrefix(flag, "web.console.") || flag == "web.enable-lifecycle" || flag == "agent" && flag != arg
	})
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

// chosen is the index of the container to inject.
func chosen(pod *Pod) (int, *policy.Decision) {
	found := candidates(pod)
	if len(found) == 1 {
		return found[0], nil
	}
	if name := pod.Metadata.Annotations[policy.AnnotationContainer]; name != "" && len(found) == 0 {
		return 0, refuse(NoSuchContainer, "annotation %s names %q, but the pod has no such container: write the name of its Prometheus container", policy.AnnotationContainer, name)
	}
	if len(found) == 0 {
		return 0, refuse(policy.NotPrometheus, "no container looks like Prometheus: name it with the annotation %s", policy.AnnotationContainer)
	}
	names := make([]string, len(found))
	for i, index := range found {
		names[i] = pod.Spec.Containers[index].Name
	}
	return 0, refuse(AmbiguousContainer, "several containers look like Prometheus (%s): name one with the annotation %s", strings.Join(names, ", "), policy.AnnotationContainer)
}

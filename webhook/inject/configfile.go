package inject

// ConfigFile returns the file that the pod's Prometheus loads, or "" if the pod does not show which
// file that is.
func ConfigFile(pod *Pod) string {
	found := candidates(pod)
	if len(found) != 1 {
		return ""
	}
	file, _ := configFile(&pod.Spec.Containers[found[0]])
	return file
}

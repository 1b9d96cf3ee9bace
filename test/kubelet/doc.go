// Package kubelet runs one Kubernetes pod as processes of this machine, with neither a container runtime nor root: it
// plays the kubelet for a pod exactly as a real API server returned it after admission. Tests and the demo use it to
// run a real Prometheus, its real reloader and the config sidecar in the shape that the webhook gave the pod.
//
// What a kubelet does and a container can see is done as the kubelet does it:
//
//   - Volumes of ConfigMaps, Secrets, the downward API, projected ones and empty directories, in the kubelet's
//     AtomicWriter layout, with modes, items, optional sources and live updates. Service account tokens come from the
//     API server's TokenRequest, bound to the pod, and are renewed after 80% of their life. A subPath mount stays on the
//     file that it found when its container started.
//   - Environment, command and arguments, with $(NAME) expanded; nothing of this process's environment leaks in.
//   - Each container has its own user and mount namespace: a memory file system as root with the image's programs,
//     the pod's volumes, /proc, /dev and /tmp in it. readOnlyRootFilesystem, read-only mounts, runAsUser, runAsGroup
//     and runAsNonRoot hold.
//   - Init containers in order, native sidecars (whose startup probe the next container waits for), the restart policy,
//     startup, readiness and liveness probes by exec, HTTP and TCP.
//   - Termination in the kubelet's order (KEP-753): the ordinary containers first, then the sidecars, last one first.
//     A pod deleted from the API server is terminated, and the pod's status there is kept up to date.
//
// What differs from a node:
//
//   - The network is the host's. The pod's address is 127.0.0.1, ports are taken on the host, names resolve as on the
//     host (plus hostAliases); dnsPolicy has no effect.
//   - Processes see the host's process ids and /proc; there is no /sys. When a container ends, so do all processes of its
//     process group; when the program that called Run is killed, the containers' own processes, but not their children.
//   - All containers are one user of the host, whatever they see as their own user id: file ownership never keeps
//     containers of one pod apart, and fsGroup and supplementalGroups change nothing but a token's mode.
//     No container has any capability, not even one that runs as user 0.
//   - Resource limits, seccomp, AppArmor and SELinux are not enforced; emptyDir has no size limit and is on disk
//     also with medium Memory. A persistentVolumeClaim is an empty directory that goes with the pod.
//   - Images are [Images], not pulled. Restarts wait for a constant time instead of a growing one.
//   - Environment variables for Services are those of the API server only.
//
// Whatever else a pod asks for that its containers would miss (hostPath volumes, lifecycle hooks, a shared process
// namespace, gRPC probes and more) is an error of [Run] that names the field.
//
// A container starts by re-executing the program that called Run. That program has to call [Init] first:
//
//	func TestMain(m *testing.M) {
//		kubelet.Init()
//		os.Exit(m.Run())
//	}
package kubelet

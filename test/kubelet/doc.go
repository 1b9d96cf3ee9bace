// Package kubelet runs one Kubernetes pod as processes of this machine, without a container runtime and
// without root. It acts as the kubelet for a pod that a real API server returned after admission. Tests and
// the demo use it to run a real Prometheus, its real reloader and the config sidecar exactly as the webhook
// injected them.
//
// The following works as in the kubelet, as far as a container can observe it:
//
//   - Volumes of ConfigMaps, Secrets, the downward API, projected ones and empty directories, in the layout of the
//     kubelet's AtomicWriter, with modes, items, optional sources and live updates. Service account tokens come from
//     the API server's TokenRequest, are bound to the pod, and are renewed after 80% of their lifetime. A subPath
//     mount keeps showing the file that existed when its container started.
//   - Environment, command and arguments, with $(NAME) expanded. A container gets nothing of this process's
//     environment.
//   - User and mount namespaces. Each container has its own: its root is a file system in memory with the image's
//     programs, the pod's volumes, /proc, /dev and /tmp. readOnlyRootFilesystem, read-only mounts, runAsUser,
//     runAsGroup and runAsNonRoot have their effect.
//   - Init containers in order; native sidecars, with a startup probe that the next container waits for; the restart
//     policy; startup, readiness and liveness probes by exec, HTTP and TCP.
//   - Termination in the kubelet's order (KEP-753): first the ordinary containers, then the sidecars in reverse
//     order. A pod that is deleted from the API server is terminated, and its status there is updated.
//
// The following differs from a node:
//
//   - The network is the host's network. The pod's address is 127.0.0.1, its ports are ports of the host, and names
//     resolve as on the host (plus hostAliases); dnsPolicy has no effect.
//   - Processes see the host's process ids and /proc; there is no /sys. When a container ends, all processes of its
//     process group end too. If the program that called Run is killed, the containers' own processes end, but not
//     their children.
//   - All containers are one user of the host, whatever user id they see. So file ownership never separates the
//     containers of one pod, and fsGroup and supplementalGroups change only the mode of a token. No container has any
//     capability, not even one that runs as user 0.
//   - Resource limits, seccomp, AppArmor and SELinux are not enforced. An emptyDir has no size limit and is on disk,
//     also with medium Memory. A persistentVolumeClaim is an empty directory that is removed with the pod.
//   - Images are [Images] and are not pulled. Restarts wait for a constant time instead of a growing one.
//   - The only environment variables for Services are those of the API server.
//
// If a pod needs something else that its containers would not get (hostPath volumes, lifecycle hooks, a
// shared process namespace, gRPC probes and more), [Run] returns an error that names the field.
//
// To start a container, the program that called Run executes itself again. So that program must call [Init]
// first:
//
//	func TestMain(m *testing.M) {
//		kubelet.Init()
//		os.Exit(m.Run())
//	}
package kubelet

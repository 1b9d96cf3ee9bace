// Package inject turns a decision about a pod or a service account into JSON patch operations. It
// is pure: it uses no API server, no clock and no I/O. The handlers of package webhook and the
// command `ampbridge inject` are thin layers above it.
//
// A pod is read through [Pod], a partial object, and is never written back from it. So members that
// this build does not know stay unchanged. The patch
//
//   - replaces the volume with the Prometheus configuration by an emptyDir of the same name,
//     and moves the volume's source unchanged to a new volume;
//   - adds the config sidecar as the first init container (a native sidecar), which mirrors
//     the new volume into the emptyDir and renews the sessions;
//   - mounts the volume with the sidecar's credentials into the Prometheus container, and
//     sets the variable with their file if Prometheus signs (see delivery.go).
//
// [Inject] does all of this or nothing. If it cannot do all, the pod stays unchanged, and the
// decision has a [policy.Reason] and a warning that names the fix.
package inject

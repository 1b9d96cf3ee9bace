// Package inject turns a decision about a pod, or a service account, into the
// JSON patch operations that carry it out. It is pure: no API server, no clock,
// no I/O. The handlers of package webhook, and `ampbridge inject` offline, are
// thin layers over it.
//
// A pod is read through [Pod], a partial view, and never written back from it:
// what this build does not know stays as it was. The patch
//
//   - puts an emptyDir in the place of the volume that holds the Prometheus
//     configuration, under the same name, and moves that volume's source,
//     verbatim, to a volume of our own;
//   - adds the config sidecar as the first init container (a native sidecar),
//     which mirrors the one into the other and keeps the sessions;
//   - shows the volume of the sidecar's credentials to the Prometheus container, and
//     names the file in it where Prometheus signs (see delivery.go).
//
// [Inject] does all of this or nothing: a pod that cannot be served as a whole
// is left as it was, with a [policy.Reason] and a warning that names the fix.
package inject

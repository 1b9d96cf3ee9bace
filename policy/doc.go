// Package policy is ampbridge's domain: the cluster admin's policy file, the decision which
// service account may write to which workspace, and the documents that follow from it.
//
// Everything here is a pure function of its arguments. The package imports no
// Kubernetes, no AWS SDK, no clock and no I/O, so that every rule of trust can
// be read and tested in one place:
//
//   - [Parse] reads the policy file strictly and reports every mistake at once.
//   - [Policy.Decide] decides whether a pod is injected, with the reason.
//   - [TrustDocument] and [PermissionDocument] return the documents for IAM;
//     [Equal] compares documents by their meaning for IAM.
//   - [Destination.Block] returns the remote_write entry for Prometheus.
//
// These words have the same meaning everywhere in the project: issuer, subject, audience,
// destination, grant, decision, trust document, permission document, block.
package policy

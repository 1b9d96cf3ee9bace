// Package policy is ampbridge's domain: what the cluster admin's policy file
// says, who may write where, and the documents that follow from it.
//
// Everything here is a pure function of its arguments. The package knows no
// Kubernetes, no AWS SDK, no clock and no I/O, so that every rule of trust can
// be read, and tested, in one place:
//
//   - [Parse] reads the policy file strictly and reports every mistake at once.
//   - [Policy.Decide] says whether a pod is injected, and why.
//   - [TrustDocument] and [PermissionDocument] are what IAM is told;
//     [Equal] compares them the way IAM means them.
//   - [Destination.Block] is the remote_write entry that Prometheus is given.
//
// The words used here are the project's vocabulary: issuer, subject, audience,
// destination, grant, decision, trust document, permission document, block.
package policy

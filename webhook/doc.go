// Package webhook is ampbridge's admission webhook: it answers the API server's
// questions about pods and service accounts of labelled namespaces.
//
// A handler is thin. It decodes the review in one pass into a partial object,
// reads what the decision needs from the cluster, and leaves the rest to pure
// code: [policy.Policy.Decide] says whether, package inject says how. Nothing is
// cached but the policy: Prometheus pods are few, so a live read costs little,
// is never stale, and keeps memory flat however many service accounts there are.
//
// The webhook fails open. Whatever goes wrong here, the pod is admitted as it
// was, with a warning that says why; see [policy.Decision] for the reasons and
// the ones that this package adds.
//
// Memory is bounded before it is spent: [Intake] bounds what all requests hold
// together, and an object beyond a bound is admitted as it was.
//
// [Run] is the whole process: webhook server, certificate and policy reload,
// health, metrics, and a shutdown that drops no request. The handlers run on
// net/http's server, not on controller-runtime's: that one bounds neither
// connections nor bodies, and its admission stack decodes a review several times
// over and costs more than the decision itself.
package webhook

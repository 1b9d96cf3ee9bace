// Package webhook is ampbridge's admission webhook. It answers the API server's reviews of pods and
// service accounts in labelled namespaces.
//
// A handler is thin. It decodes the review in one pass into a partial object, and reads from the
// cluster what the decision needs. Pure code does the rest: [policy.Policy.Decide] decides whether
// to inject, and package inject computes the patch. Only the policy is cached. There are few
// Prometheus pods, so a live read costs little, is never stale, and needs no memory for each
// service account.
//
// The webhook fails open. If something goes wrong in the webhook, the pod is admitted unchanged,
// with a warning that gives the reason. See [policy.Decision] for the reasons; this package adds
// some.
//
// Memory is reserved before it is used. [Intake] limits the memory of all requests together, and an
// object that exceeds a limit is admitted unchanged.
//
// [Run] runs the whole process: the webhook server, reload of certificate and policy, health,
// metrics, and a shutdown that drops no request. The handlers run on net/http's server and not on
// controller-runtime's. The latter limits neither connections nor bodies, and its admission code
// decodes a review several times, which costs more than the decision itself.
package webhook

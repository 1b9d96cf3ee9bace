// Package audit finds Prometheus pods that are not as the policy wants: pods that
// were not injected, pods that an older policy injected, and pods that hang on the
// config sidecar. It reports them as events and metrics. It can evict them, and it
// opens the circuit breaker.
//
// [Assess] is the core, and pure: it asks the same functions as the webhook what
// would be done to a stored pod today, and compares. [Run] goes round the
// labelled namespaces, page by page, keeps nothing of a pod but a few words, and
// tells the findings with an event on the pod's controller, once, and as metrics.
//
// It acts on two of them, always through the Eviction API, so that every
// PodDisruptionBudget holds:
//
//   - Repair, off unless the policy says `audit.repair: evict`. A missed or
//     outdated pod that has a controller is evicted, so that its successor is
//     injected as the policy says: one of a workload at a time, when all the
//     others are ready, and few in the whole cluster ([Options.EvictionInterval]).
//     Before that the successor is created in a dry run: a running Prometheus is not
//     evicted where the next one would be refused, or would not be injected.
//     Where a successor is found again, the next attempt waits, longer each time.
//   - The circuit breaker, on unless [Options.NoBreaker]. Where a pod hangs on
//     the config sidecar for longer than [Options.Grace], or where its image does
//     not come within [Options.PullGrace], injection pauses for its workload
//     (package breaker), and the pod is evicted: what comes in its stead starts
//     without the sidecar. Such pods run nothing yet, so no budget and no pace
//     holds them. It also opens where the API server refuses the injected pods of a
//     controller, because somebody's policy forbids the sidecar. That shows in the
//     events FailedCreate of the controller: type refusals watches them.
//
// Unless [Options.NoSidecars], it also reads the status that config sidecars serve at their
// pods' addresses, and tells with an event on the pod what people should know: a session
// that Prometheus has not taken, none at all, a move to the relay, writes that AMP refuses.
// That needs no right of the API server's, but a network that lets it through.
//
// Pods of namespaces without the label, pods that opted out and pods without a
// controller are never evicted.
//
// # Rights
//
// In all namespaces: list and get namespaces; list pods, limitranges and
// resourcequotas; get serviceaccounts; create pods/eviction and events; get replicasets,
// statefulsets and daemonsets, whose templates say what pods would be; with a breaker,
// watch events, the only place where a refusal is written down; and for repairs create
// pods, which an admission policy confines to dry runs. In
// ampbridge's own namespace: create configmaps, and get and update the one named
// ampbridge-breaker. The webhook gets that one, too.
//
// One process at a time runs the auditor: whoever calls [Run] sees to that.
package audit

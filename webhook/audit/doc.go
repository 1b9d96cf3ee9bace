// Package audit finds Prometheus pods that differ from the policy: pods that
// were not injected, pods that an older policy injected, and pods that hang on the
// config sidecar. It reports them as events and metrics. It can evict them, and it
// opens the circuit breaker.
//
// [Assess] is the core, and it is pure: it calls the webhook's functions for a stored pod, and
// compares the results. [Run] reads the labelled namespaces page by page, again and again. It
// keeps only a few words per pod. It reports a finding once, with an event on the pod's
// controller, and as metrics.
//
// It acts in two cases, always through the Eviction API, so that every
// PodDisruptionBudget is respected:
//
//   - Repair, which is off unless the policy has `audit.repair: evict`. A missed or
//     outdated pod with a controller is evicted, so that its successor is
//     injected as the policy says. That happens to one pod of a workload at a time, while all the
//     others are ready, and to few pods in the whole cluster ([Options.EvictionInterval]).
//     Before that the auditor creates the successor in a dry run. It keeps a running Prometheus if
//     its successor would be refused, or would not be injected.
//     If a successor needs a repair again, the next attempt waits, longer each time.
//   - The circuit breaker, which is on unless [Options.NoBreaker] is set. If a pod hangs on
//     the config sidecar for longer than [Options.Grace], or if its image does
//     not arrive within [Options.PullGrace], injection pauses for its workload
//     (package breaker), and the pod is evicted. Its successor starts
//     without the sidecar. Such pods run nothing yet, so no budget and no rate limit
//     protects them. The breaker also opens if the API server refuses the injected pods of a
//     controller, because a policy of the cluster forbids the sidecar. The controller's
//     events FailedCreate show that; type refusals watches them.
//
// Unless [Options.NoSidecars] is set, it also reads the status that config sidecars serve at their
// pods' addresses. It reports problems with an event on the pod: a session
// that Prometheus has not loaded, a missing session, a move to the relay, writes that AMP refuses.
// This needs no right in the API server, but a network that allows the connection.
//
// The auditor never evicts pods in namespaces without the label, pods that opted out, and pods
// without a controller.
//
// # Rights
//
// In all namespaces: list and get namespaces; list pods, limitranges and
// resourcequotas; get serviceaccounts; create pods/eviction and events; get replicasets,
// statefulsets and daemonsets, because of their pod templates; with a breaker,
// watch events, because a refusal is recorded only there; and for repairs create
// pods, which an admission policy limits to dry runs. In
// ampbridge's own namespace: create configmaps, and get and update the one named
// ampbridge-breaker. The webhook needs get for it, too.
//
// Only one process may run the auditor at a time. The caller of [Run] must ensure that.
package audit

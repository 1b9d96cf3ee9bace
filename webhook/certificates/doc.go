// Package certificates provides the webhook's serving certificate. [Directory] reads
// it from files that somebody else writes. [Rotator] makes it, shares it between
// replicas and rotates it.
//
// # A rotation without a gap
//
// The API server calls a webhook only if the CA bundle in the
// MutatingWebhookConfiguration covers the certificate that it is shown. Under
// failurePolicy Ignore a mismatch is silent: pods start uninjected. So at every
// moment each certificate that any replica serves is covered by the bundle that
// any API server knows:
//
//	           Generate   Publish, Announce      Switch           Retire, Publish
//	             │             │                   │                    │
//	served  A ───┼─────────────┼───────────────────┼─ B ────────────────┼──────────
//	bundle  A ───┼─────────────┼─ A B ─────────────┼────────────────────┼─ B ──────
//	             │             │◄── Propagation ──►│◄─── Retirement ───►│
//
// All of it is in one Secret: the current pair, the next one, the authorities
// that are on their way out, and since when. [Next] is the whole order, a pure
// function from that state, the clock and the configuration to one step; a step
// is one write. Whoever dies between two writes leaves a state from which any
// other replica goes on.
//
// There is no leader. Each replica follows the two objects by name, looks at
// both when either changes and once a minute, and writes what is next; the
// Secret's resourceVersion, and the configuration's, decide who was first. A
// look reads the configuration before the Secret, and a rotation writes the
// Secret before the configuration; hence a patch made of a state that is out of
// date rests on a configuration that is out of date too, and is refused.
//
// Whatever strips or changes the bundle (helm upgrade, Argo CD, a person) is
// corrected at once, and a wait for its propagation begins anew. A Secret that is
// deleted is restored by a replica that still serves its certificate. A replica
// that has not been able to look for half of the retirement is not ready. Without
// a configuration nothing is written, so that an uninstall leaves nothing behind.
//
// The ValidatingWebhookConfiguration of the same name, which has the policy
// reviewed, is given the same bundle. It takes no part in the order above: a
// rotation does not wait for it, and it need not exist.
//
// No authority has a private key: each rotation makes a new authority, signs one
// certificate with it, and forgets the key. Who reads the Secret can play the
// webhook until the next rotation, and cannot sign anything.
//
// # Why not open-policy-agent/cert-controller
//
// It updates a Secret that has to exist, waits until the kubelet has mounted the
// change (up to two minutes), keeps a CA key for ten years, and when the CA
// itself changes it replaces the bundle without an overlap: calls fail until all
// replicas have read the new files. Its controllers hold caches of whole kinds;
// here two watches of one object each cost almost no memory.
//
// # Rights
//
// In the webhook's namespace (a Role), for --cert-secret NAME:
//
//	apiGroups: [""]
//	resources: [secrets]
//	resourceNames: [NAME]
//	verbs: [get, watch, update, patch, create]
//
// In the cluster (a ClusterRole), for --webhook-configuration ampbridge:
//
//	apiGroups: [admissionregistration.k8s.io]
//	resources: [mutatingwebhookconfigurations, validatingwebhookconfigurations]
//	resourceNames: [ampbridge]
//	verbs: [get, watch, patch]
//
// Nothing is ever listed. The Secret is made by server-side apply, for which the
// API server knows the name when it asks whether creating is allowed; so
// resourceNames confine that verb too, which they do not for a plain create.
package certificates

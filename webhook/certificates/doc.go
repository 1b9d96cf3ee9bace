// Package certificates provides the webhook's serving certificate. [Directory] reads
// it from files that another program writes. [Rotator] creates it, shares it between
// replicas and rotates it.
//
// # A rotation without a gap
//
// The API server can call a webhook only if the CA bundle in the
// MutatingWebhookConfiguration covers the certificate that the webhook serves. With
// failurePolicy Ignore a mismatch is silent: pods start without injection. So at every
// moment the bundle that any API server knows must cover each certificate that any replica
// serves:
//
//	           Generate   Publish, Announce      Switch           Retire, Publish
//	             │             │                   │                    │
//	served  A ───┼─────────────┼───────────────────┼─ B ────────────────┼──────────
//	bundle  A ───┼─────────────┼─ A B ─────────────┼────────────────────┼─ B ──────
//	             │             │◄── Propagation ──►│◄─── Retirement ───►│
//
// The whole state is in one Secret: the current pair, the next one, the authorities
// that will be removed, and the times of these changes. [Next] is the whole procedure: a pure
// function from that state, the clock and the configuration to one step. Each step
// is one write. If a replica dies between two writes, any other replica can continue from the
// state.
//
// There is no leader. Each replica watches the two objects by name. It reads
// both when either of them changes, and once a minute, and writes the next step. The
// resourceVersion of the Secret and of the configuration decides which replica was first.
// A replica reads the configuration before the Secret, and a rotation writes the
// Secret before the configuration. So if a patch is made from an outdated state, its
// configuration is outdated too, and the API server refuses the patch.
//
// If helm upgrade, Argo CD or a person removes or changes the bundle, a replica corrects it
// at once, and the wait for its propagation starts again. If the Secret is
// deleted, a replica that still serves its certificate restores it. A replica
// that has failed to read the objects for half of the retirement time is not ready. Without
// a configuration nothing is written, so that an uninstall leaves nothing behind.
//
// The ValidatingWebhookConfiguration of the same name, for the review of the policy,
// gets the same bundle. It is not a part of the procedure above: a
// rotation does not wait for it, and it need not exist.
//
// No authority keeps a private key: each rotation creates a new authority, signs one
// certificate with it, and forgets the key. An attacker who reads the Secret can impersonate the
// webhook until the next rotation, and cannot sign anything.
//
// # Why not open-policy-agent/cert-controller
//
// It updates a Secret that has to exist, waits until the kubelet has mounted the
// change (up to two minutes), and keeps a CA key for ten years. When the CA
// itself changes, it replaces the bundle without an overlap: calls fail until all
// replicas have read the new files. Its controllers hold caches of all objects of a kind,
// while two watches of one object each need almost no memory.
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
// Nothing is ever listed. The Secret is created by server-side apply, because the API server then
// knows the name when it checks the right to create. So resourceNames limit the verb create too.
// They cannot limit a normal create.
package certificates

package audit

import (
	"strings"
	"testing"
)

// The messages are those of Kubernetes, of OpenShift and of Kyverno.
func TestBlame(t *testing.T) {
	for _, test := range []struct{ name, message, by, text string }{
		{
			"a ValidatingAdmissionPolicy, of a ReplicaSet",
			`Error creating: pods "prometheus-5d8f-x2x8v" is forbidden: ValidatingAdmissionPolicy 'cpu-limits' with binding 'all' ` +
				`denied request: every container needs a CPU limit`,
			"ValidatingAdmissionPolicy cpu-limits", "every container needs a CPU limit",
		},
		{
			"the same, of a StatefulSet",
			`create Pod prometheus-0 in StatefulSet prometheus failed error: pods "prometheus-0" is forbidden: ` +
				`ValidatingAdmissionPolicy 'registries' with binding 'b' denied request: image "x" is of no known registry`,
			"ValidatingAdmissionPolicy registries", `image "x" is of no known registry`,
		},
		{
			"a policy engine, among similar events",
			`(combined from similar events): Error creating: admission webhook "validate.kyverno.svc-fail" denied the request: ` +
				`resource Pod/a/b was blocked due to the following policies require-limits: ...`,
			"webhook validate.kyverno.svc-fail", "resource Pod/a/b was blocked due to the following policies require-limits: ...",
		},
		{
			"pod security, the sidecar",
			`Error creating: pods "a" is forbidden: violates PodSecurity "restricted:latest": seccompProfile (pod or container ` +
				`"ampbridge-config" must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")`,
			"PodSecurity restricted:latest", `seccompProfile (pod or container "ampbridge-config" must set ` +
				`securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")`,
		},
		{
			"OpenShift",
			`Error creating: pods "a-" is forbidden: unable to validate against any security context constraint: [pod.metadata...: x]`,
			"OpenShift's security context constraint", "[pod.metadata...: x]",
		},
		{
			"a quota that is used up",
			`Error creating: pods "a" is forbidden: exceeded quota: team, requested: requests.memory=32Mi, used: requests.memory=1Gi, limited: ` +
				`requests.memory=1Gi`,
			"ResourceQuota team", "exceeded quota: team, requested: requests.memory=32Mi, used: requests.memory=1Gi, limited: requests.memory=1Gi",
		},
		{
			"a quota that demands more",
			`Error creating: pods "a" is forbidden: failed quota: disk: must specify limits.ephemeral-storage for: ampbridge-config`,
			"ResourceQuota disk", "failed quota: disk: must specify limits.ephemeral-storage for: ampbridge-config",
		},
		{
			"limits", `Error creating: pods "a" is forbidden: maximum memory usage per Pod is 1Gi, but limit is 1342177280`,
			"LimitRange for each Pod", "maximum memory usage per Pod is 1Gi, but limit is 1342177280",
		},
		{
			"an old webhook removed restartPolicy",
			`Error creating: Pod "a" is invalid: spec.initContainers[0].startupProbe: Forbidden: may not be set for init containers ` +
				`without restartPolicy=Always`,
			"the API server's validation",
			"spec.initContainers[0].startupProbe: Forbidden: may not be set for init containers without restartPolicy=Always",
		},
		{"pod security, the user's own container", `Error creating: pods "a" is forbidden: violates PodSecurity "restricted:latest": ` +
			`runAsNonRoot != ` +
			`true (pod or container "prometheus" must set securityContext.runAsNonRoot=true)`, "", ""},
		{"no service account", `Error creating: pods "a-" is forbidden: error looking up service account a/p: serviceaccount "p" not ` +
			`found`, "", ""},
		{"a webhook that does not answer", `Error creating: Internal error occurred: failed calling webhook "x": context deadline ` +
			`exceeded`, "", ""},
		{"the namespace goes", `Error creating: pods "a" is forbidden: unable to create new content in namespace a because it is ` +
			`being terminated`, "", ""},
		{"a timeout", `Error creating: Timeout: request did not complete within requested timeout`, "", ""},
		{"it is there already", `create Pod p-0 in StatefulSet p failed error: pods "p-0" already exists`, "", ""},
	} {
		by, text, plausible := Blame(test.message)
		if by != test.by || text != test.text || plausible != (test.by != "") {
			t.Errorf("%s: got %q, %q, %v", test.name, by, text, plausible)
		}
	}
	if by, text, _ := Blame(`admission webhook "` + strings.Repeat("w", 5000) + `" denied the request: ` + strings.Repeat("\n",
		5000)); len(by) > 96 ||
		len(text) > 256 || strings.Contains(text, "\n") {
		t.Errorf("unbounded: %q %q", by, text)
	}
}

package inject

import (
	stdjson "encoding/json"
	"testing"

	"github.com/ampbridge/ampbridge/test/otherwebhooks"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// A platform changes a pod before and after ampbridge's webhook. The injection stays complete, and
// the next call changes nothing. test/e2e/admission admits the same pods under the platforms'
// rules.
func TestPlatforms(t *testing.T) {
	const user = 1000650000
	for name, change := range map[string]func(map[string]any){
		"SCC restricted-v2":          otherwebhooks.SCC(user, true, "ALL"),
		"SCC restricted":             otherwebhooks.SCC(user, false, "KILL", "MKNOD", "SETUID", "SETGID"),
		"SCC anyuid":                 otherwebhooks.SCC(0, false, "MKNOD"),
		"istio, native":              otherwebhooks.Istio(true),
		"istio, classic":             otherwebhooks.Istio(false),
		"linkerd, native":            otherwebhooks.Linkerd(true),
		"linkerd, classic":           otherwebhooks.Linkerd(false),
		"EKS Pod Identity":           otherwebhooks.PodIdentity,
		"EKS Fargate":                otherwebhooks.Fargate,
		"GKE Autopilot":              otherwebhooks.Autopilot,
		"policy engine that mutates": otherwebhooks.Mutations,
	} {
		for _, base := range pods {
			for _, when := range []string{"before", "after"} {
				t.Run(name+"/"+base+"/"+when, func(t *testing.T) {
					data, o := readFile(t, base+".in.json"), options(t)
					if when == "before" {
						data = changedBy(t, data, change)
					}
					whole := injected(t, data, o)
					// A platform is called again if a webhook has changed the pod.
					text := changedBy(t, whole, change)
					d := granted(t, o.Policy, decode(t, whole).Metadata.Namespace)
					ops, decision := Inject(decode(t, text), d, o)
					after := apply(t, text, ops)
					if decision.Reason != AlreadyInjected {
						t.Fatalf("%+v", decision)
					}
					allOrNothing(t, decode(t, after))
					if more, next := Inject(decode(t, after), d, o); len(more) > 0 || next.Reason != AlreadyInjected {
						t.Errorf("the next call: %s with %s", next.Reason, asYAML(t, more))
					}
					// The platform's own validation checks the pod again: no change of the platform
					// was undone.
					if again := changedBy(t, after, change); string(canonicalText(t, again)) != string(canonicalText(t, after)) {
						t.Error("ampbridge undid what the platform had changed in its sidecar")
					}
				})
			}
		}
	}
}

func changedBy(t *testing.T, data []byte, change func(map[string]any)) []byte {
	t.Helper()
	pod := generic(t, data).(map[string]any)
	change(pod)
	text, err := stdjson.Marshal(pod)
	testkit.Must(t, err)
	return text
}

func canonicalText(t *testing.T, data []byte) []byte {
	t.Helper()
	text, err := stdjson.Marshal(canonical(t, data, false))
	testkit.Must(t, err)
	return text
}

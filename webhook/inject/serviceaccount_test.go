package inject

import (
	stdjson "encoding/json"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
)

func TestAnnotate(t *testing.T) {
	const (
		central = "arn:aws:iam::111122223333:role/ampbridge/dev/ampbridge.dev.central"
		backup  = "arn:aws:iam::444455556666:role/ampbridge/dev/ampbridge.dev.backup"
	)
	type annotations = map[string]string
	for _, c := range []struct {
		name            string
		namespace, sa   string
		injection       policy.Injection
		have, want      annotations
		inject          bool
		reason          policy.Reason
		warningMentions string
		scope           string
	}{
		{"granted", "monitoring", "prometheus-k8s", "enabled", nil, annotations{policy.AnnotationRoleARN: central}, true, policy.Granted, "", ""},
		{"beside other annotations", "monitoring", "prometheus-k8s", "enabled", annotations{"a/b": "c"},
			annotations{"a/b": "c", policy.AnnotationRoleARN: central}, true, policy.Granted, "", ""},
		{"two destinations, in the policy's order", "pair", "prometheus-k8s", "enabled", nil,
			annotations{policy.AnnotationRoleARN: central + "," + backup}, true, policy.Granted, "", ""},
		{"narrowed to one", "pair", "prometheus-k8s", "enabled", annotations{policy.AnnotationDestinations: "backup"},
			annotations{policy.AnnotationDestinations: "backup", policy.AnnotationRoleARN: backup}, true, policy.Granted, "", ""},
		{"pods of an annotated namespace may ask", "monitoring", "prometheus-k8s", "annotated", nil,
			annotations{policy.AnnotationRoleARN: central}, true, policy.Granted, "", ""},
		{"IRSA", "irsa", "prometheus-k8s", "enabled", nil, annotations{policy.AnnotationRoleARN: central, policy.AnnotationIRSA: central},
			true, policy.Granted, "", ""},

		{"there already", "monitoring", "prometheus-k8s", "enabled", annotations{policy.AnnotationRoleARN: central},
			annotations{policy.AnnotationRoleARN: central}, true, AlreadyInjected, "", ""},
		{"an existing value stays", "monitoring", "prometheus-k8s", "enabled", annotations{policy.AnnotationRoleARN: "x"},
			annotations{policy.AnnotationRoleARN: "x"}, true, AnnotationTaken, policy.AnnotationRoleARN, ""},
		{"another's IRSA stays, ours is shown", "irsa", "prometheus-k8s", "enabled", annotations{policy.AnnotationIRSA: "x"},
			annotations{policy.AnnotationIRSA: "x", policy.AnnotationRoleARN: central}, true, AnnotationTaken, policy.AnnotationIRSA, ""},
		{"IRSA is not input for ampbridge", "monitoring", "prometheus-k8s", "enabled", annotations{policy.AnnotationIRSA: "x"},
			annotations{policy.AnnotationIRSA: "x", policy.AnnotationRoleARN: central}, true, policy.Granted, "", ""},

		{"a role of its own", "pair", "prometheus-k8s", "enabled", nil,
			annotations{policy.AnnotationRoleARN: central + ".pair.prometheus-k8s," + backup + ".pair.prometheus-k8s"}, true, policy.Granted, "",
			policy.RoleScopeServiceAccount},
		{"a role of its own, replaces the shared one", "irsa", "prometheus-k8s", "enabled",
			annotations{policy.AnnotationRoleARN: central, policy.AnnotationIRSA: central},
			annotations{policy.AnnotationRoleARN: central + ".irsa.prometheus-k8s", policy.AnnotationIRSA: central + ".irsa.prometheus-k8s"},
			true, policy.Granted, "", policy.RoleScopeServiceAccount},
		{"the shared one, replaces its own", "irsa", "prometheus-k8s", "enabled",
			annotations{policy.AnnotationRoleARN: central + ".irsa.prometheus-k8s", policy.AnnotationIRSA: central + ".irsa.other"},
			annotations{policy.AnnotationRoleARN: central, policy.AnnotationIRSA: central + ".irsa.other"}, true, AnnotationTaken,
			policy.AnnotationIRSA, policy.RoleScopeDestination},

		{"not granted, nothing asked: silence", "monitoring", "default", "enabled", nil, nil, false, policy.NotGranted, "", ""},
		{"not granted, but asked", "monitoring", "default", "enabled", annotations{policy.AnnotationInject: "true"},
			annotations{policy.AnnotationInject: "true"}, false, policy.NotGranted, "grant", ""},
		{"opted out", "monitoring", "prometheus-k8s", "enabled", annotations{policy.AnnotationInject: "false"},
			annotations{policy.AnnotationInject: "false"}, false, policy.OptedOut, "", ""},
		{"not labelled", "monitoring", "prometheus-k8s", "", nil, nil, false, policy.NotLabelled, "label", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			metadata := map[string]any{"name": c.sa, "namespace": c.namespace, "unknown": 1}
			if c.have != nil {
				metadata["annotations"] = c.have
			}
			data, err := stdjson.Marshal(map[string]any{"metadata": metadata, "secrets": []any{}})
			testkit.Must(t, err)
			var sa ServiceAccount
			testkit.Must(t, json.Unmarshal(data, &sa))
			p := testPolicy(t)
			if c.scope != "" {
				p.Trust.RoleScope = c.scope
			}
			ops, d := Annotate(&sa, c.injection, p)
			if d.Inject != c.inject || d.Reason != c.reason {
				t.Errorf("inject %t, %s; want %t, %s", d.Inject, d.Reason, c.inject, c.reason)
			}
			if (d.Warning != "") != (c.warningMentions != "") || !strings.Contains(d.Warning, c.warningMentions) || len(d.Warning) > 256 {
				t.Errorf("warning %q, want one about %q", d.Warning, c.warningMentions)
			}
			after := apply(t, data, ops)
			var got ServiceAccount
			testkit.Must(t, json.Unmarshal(after, &got))
			testkit.Equal(t, "annotations", c.want, got.Metadata.Annotations)
			if !strings.Contains(string(after), `"unknown":1`) {
				t.Errorf("a field was lost: %s", after)
			}
			if c.inject {
				if again, _ := Annotate(&got, c.injection, p); len(again) > 0 {
					t.Errorf("annotating again makes %d operations", len(again))
				}
			}
		})
	}
}

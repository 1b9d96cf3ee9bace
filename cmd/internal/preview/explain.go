package preview

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	kjson "k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/ampbridge/ampbridge/policy"
)

// explain returns what helps with a skipped object, in addition to the decision's warning. The
// webhook is silent about most pods, because they are not meant for it, and it must not show other
// tenants' grants. A person who runs inject asks about this object, and has the policy.
func (r *injection) explain(t *target, d policy.Decision) []string {
	if d.Inject {
		return nil
	}
	var notes []string
	add := func(format string, args ...any) { notes = append(notes, fmt.Sprintf(format, args...)) }
	switch {
	case d.Reason == policy.NotPrometheus && d.Warning == "":
		add("%s", r.noPrometheus(t))
	case d.Reason == policy.NotAsked:
		add(`in a namespace with the label %s, a pod asks with the annotation %s: "true"`, policy.InjectionAnnotated, policy.AnnotationInject)
	case d.Reason == policy.OptedOut:
		add(`the annotation %s of the pod or its service account is "false"`, policy.AnnotationInject)
	case d.Reason == policy.NotGranted:
		if d.Warning == "" {
			add("no grant of the policy covers it")
		}
		if near := r.policy.NearMiss(t.Subject); near != "" {
			add("%s", near)
		}
		if !t.namesNamespace {
			add("the file names no namespace, and inject takes %s: name another with -n", t.Namespace)
		}
		if t.pod != nil && t.pod.Spec.ServiceAccountName == "" {
			add("the pod names no service account (serviceAccountName), so it gets %s", t.ServiceAccount)
		}
	}
	return append(notes, t.unknownFields()...)
}

// noPrometheus returns why the pod has no container to inject, and the fix.
func (r *injection) noPrometheus(t *target) string {
	if len(t.pod.Spec.Containers) == 0 {
		return "the pod has no containers"
	}
	var names []string
	for i := range t.pod.Spec.Containers {
		names = append(names, t.pod.Spec.Containers[i].Name)
	}
	problem := "no container looks like Prometheus: if one is, name it"
	for _, m := range []policy.Mode{policy.ModeRelay, policy.ModeIdentity} {
		if _, granted := r.policy.EntitledAs(t.Subject, m); granted {
			problem = fmt.Sprintf("no container looks like Prometheus, and the grant has mode %s: name the program's container", m)
			break
		}
	}
	return fmt.Sprintf("%s with the annotation %s (the pod has %s)", problem, policy.AnnotationContainer, strings.Join(names, ", "))
}

// mostFields limits how many unknown fields are named.
const mostFields = 3

var strict = kjson.NewSerializerWithOptions(kjson.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, kjson.SerializerOptions{Strict: true})

// unknownFields returns the fields of the object that this build does not know. Most are misspelt.
func (t *target) unknownFields() []string {
	_, _, err := strict.Decode(t.text, nil, nil)
	problems, ok := runtime.AsStrictDecodingError(err)
	if !ok {
		return nil
	}
	var notes []string
	for _, problem := range problems.Errors()[:min(len(problems.Errors()), mostFields)] {
		notes = append(notes, problem.Error()+": check its spelling")
	}
	return notes
}

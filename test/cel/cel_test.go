package cel

import (
	"maps"
	"slices"
	"strings"
	"testing"

	celgo "github.com/google/cel-go/cel"
	admissionv1 "k8s.io/api/admission/v1"
	registrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/admission/plugin/cel"
	apiservercel "k8s.io/apiserver/pkg/apis/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
	"github.com/ampbridge/ampbridge/webhook/registration"
)

const namespace = "ampbridge-system"

// oldest is the first release that the chart is for.
var oldest = version.MajorMinor(1, 30)

// expression is one that has to be of this type.
type expression struct {
	name, text string
	returns    *celgo.Type
}

func (e expression) GetExpression() string      { return e.text }
func (e expression) GetName() string            { return e.name }
func (e expression) ReturnTypes() []*celgo.Type { return []*celgo.Type{e.returns} }

// program is a list of expressions as the API server runs it.
type program struct {
	conditions, validations cel.ConditionEvaluator
	compiler                *cel.CompositedCompiler
	messages                []string
}

func compile(t *testing.T, conditions []registrationv1.MatchCondition, variables []registrationv1.Variable,
	validations []registrationv1.Validation) (p program, complaints []error) {
	t.Helper()
	compiler, err := cel.NewCompositedCompiler(environment.MustBaseEnvSet(oldest))
	testkit.Must(t, err)
	// A webhook's match conditions know the authorizer, a policy's expressions do, too.
	declared := cel.OptionalVariableDeclarations{HasAuthorizer: true}
	p.compiler = compiler
	var list []cel.ExpressionAccessor
	for _, c := range conditions {
		list = append(list, expression{c.Name, c.Expression, celgo.BoolType})
	}
	p.conditions = compiler.CompileCondition(list, declared, environment.NewExpressions)
	for _, v := range variables {
		result := compiler.CompileAndStoreVariable(expression{v.Name, v.Expression, celgo.AnyType}, declared, environment.NewExpressions)
		if result.Error != nil {
			complaints = append(complaints, result.Error)
		}
	}
	list = nil
	for _, v := range validations {
		list, p.messages = append(list, expression{v.Message, v.Expression, celgo.BoolType}), append(p.messages, v.Message)
	}
	p.validations = compiler.CompileCondition(list, declared, environment.NewExpressions)
	return p, append(append(complaints, p.conditions.CompilationErrors()...), p.validations.CompilationErrors()...)
}

// review is what the API server would say to a change: nothing, or why it denies it.
// An expression that fails denies as well: the policies' failurePolicy is Fail.
func (p program) review(
	t *testing.T, request *admissionv1.AdmissionRequest, before, after runtime.Object, in *corev1.Namespace,
) string {
	t.Helper()
	kind := schema.GroupVersionKind(request.Kind)
	attributes := &admission.VersionedAttributes{
		Attributes: admission.NewAttributesRecord(after, before, kind, request.Namespace, request.Name,
			schema.GroupVersionResource(request.Resource), request.SubResource, admission.Operation(request.Operation), nil, false, nil),
		VersionedObject: admission.NewLazyObject(after), VersionedOldObject: admission.NewLazyObject(before), VersionedKind: kind,
	}
	ask := func(evaluator cel.ConditionEvaluator) []cel.EvaluationResult {
		ctx := p.compiler.CreateContext(t.Context())
		const budget = apiservercel.RuntimeCELCostBudget
		results, _, err := evaluator.ForInput(ctx, attributes, request, cel.OptionalVariableBindings{}, in, budget)
		testkit.Must(t, err)
		return results
	}
	for _, r := range ask(p.conditions) {
		if r.Error != nil {
			return r.Error.Error()
		}
		if r.EvalResult.Value() != true {
			return ""
		}
	}
	for i, r := range ask(p.validations) {
		if r.Error != nil {
			return p.messages[i] + ": " + r.Error.Error()
		}
		if r.EvalResult.Value() != true {
			return p.messages[i]
		}
	}
	return ""
}

// Every expression of the chart, in all its forms, and of package registration.
func TestKubernetes130CompilesEveryExpression(t *testing.T) {
	for name, args := range map[string][]string{
		"minimal":      {"minimal"},
		"everything":   {"everything"},
		"cert-manager": {"minimal", "--set", "certificates.mode=certManager"},
		"evict":        {"minimal", "--set", "policy.audit.repair=evict,sync.auditor.breaker=false"},
	} {
		found := 0
		for _, text := range render(t, args[0], args[1:]...) {
			var any struct {
				Kind     string
				Metadata metav1.ObjectMeta
				Webhooks []struct {
					MatchConditions []registrationv1.MatchCondition
				}
				Spec registrationv1.ValidatingAdmissionPolicySpec
			}
			var kind metav1.TypeMeta
			testkit.Must(t, yaml.Unmarshal([]byte(text), &kind))
			if !strings.HasSuffix(kind.Kind, "WebhookConfiguration") && kind.Kind != "ValidatingAdmissionPolicy" {
				continue
			}
			testkit.Must(t, yaml.Unmarshal([]byte(text), &any))
			conditions := any.Spec.MatchConditions
			for _, w := range any.Webhooks {
				conditions = append(conditions, w.MatchConditions...)
			}
			_, complaints := compile(t, conditions, any.Spec.Variables, any.Spec.Validations)
			for _, err := range complaints {
				t.Errorf("%s: %s %s: %v", name, any.Kind, any.Metadata.Name, err)
			}
			found += len(conditions) + len(any.Spec.Validations)
		}
		if found < 5 {
			t.Errorf("%s: only %d expressions", name, found)
		}
	}
	if _, complaints := compile(t, []registrationv1.MatchCondition{{Expression: registration.CanBePrometheus}}, nil, nil); complaints != nil {
		t.Error(complaints)
	}
}

// The check itself: what a later release brought is refused.
func TestKubernetes130Refuses(t *testing.T) {
	for _, condition := range []registrationv1.MatchCondition{
		{Name: "no syntax", Expression: "object.spec.nodeName = 'a'"},
		{Name: "no such variable", Expression: "objects.metadata.name == 'a'"},
		{Name: "not a boolean", Expression: "request.name"},
		{Name: "format, which 1.31 has", Expression: "format.dns1123Label().validate('a').hasValue()"},
		{Name: "comprehensions of two, 1.33", Expression: "object.metadata.labels.all(k, v, k == v)"},
	} {
		if _, complaints := compile(t, []registrationv1.MatchCondition{condition}, nil, nil); complaints == nil {
			t.Errorf("it is taken: %+v", condition)
		}
	}
}

// The webhook's identity rotates caBundle, and changes nothing else.
func TestTheWebhookChangesItsBundleAlone(t *testing.T) {
	const user = "system:serviceaccount:" + namespace + ":ampbridge-webhook"
	policy := policyOf(t, "ampbridge-webhook")
	type mutating = registrationv1.MutatingWebhookConfiguration
	for name, test := range map[string]struct {
		change func(*mutating)
		denied bool
	}{
		"nothing":          {func(*mutating) {}, false},
		"the first bundle": {func(c *mutating) { c.Webhooks[0].ClientConfig.CABundle = []byte("A") }, false},
		"all bundles": {func(c *mutating) {
			for i := range c.Webhooks {
				c.Webhooks[i].ClientConfig.CABundle = []byte("B")
			}
		}, false},
		"what the server writes": {func(c *mutating) {
			c.Generation, c.ResourceVersion, c.ManagedFields = 2, "2", []metav1.ManagedFieldsEntry{{Manager: "ampbridge"}}
		}, false},
		"failurePolicy": {func(c *mutating) { c.Webhooks[0].FailurePolicy = new(registrationv1.Fail) }, true},
		"rules":         {func(c *mutating) { c.Webhooks[0].Rules[0].Resources = []string{"*"} }, true},
		"one rule more": {func(c *mutating) { c.Webhooks[1].Rules = append(c.Webhooks[1].Rules, c.Webhooks[1].Rules[0]) }, true},
		"url": {func(c *mutating) {
			c.Webhooks[0].ClientConfig = registrationv1.WebhookClientConfig{URL: new("https://example.com")}
		}, true},
		"url beside the service": {func(c *mutating) { c.Webhooks[0].ClientConfig.URL = new("https://example.com") }, true},
		"the service's name":     {func(c *mutating) { c.Webhooks[0].ClientConfig.Service.Name = "other" }, true},
		"namespaceSelector":      {func(c *mutating) { c.Webhooks[0].NamespaceSelector = nil }, true},
		"objectSelector":         {func(c *mutating) { c.Webhooks[0].ObjectSelector = &metav1.LabelSelector{} }, true},
		"matchConditions":        {func(c *mutating) { c.Webhooks[0].MatchConditions = nil }, true},
		"a matchCondition more": {func(c *mutating) {
			c.Webhooks[0].MatchConditions = append(c.Webhooks[0].MatchConditions, registrationv1.MatchCondition{Name: "never", Expression: "false"})
		}, true},
		"reinvocationPolicy": {func(c *mutating) { c.Webhooks[0].ReinvocationPolicy = new(registrationv1.NeverReinvocationPolicy) }, true},
		"sideEffects":        {func(c *mutating) { c.Webhooks[0].SideEffects = new(registrationv1.SideEffectClassSome) }, true},
		"timeoutSeconds":     {func(c *mutating) { c.Webhooks[0].TimeoutSeconds = new(int32(30)) }, true},
		"matchPolicy":        {func(c *mutating) { c.Webhooks[0].MatchPolicy = new(registrationv1.Exact) }, true},
		"the last entry alone": {func(c *mutating) {
			c.Webhooks[len(c.Webhooks)-1].FailurePolicy = new(registrationv1.Fail)
		}, true},
		"an entry's name": {func(c *mutating) { c.Webhooks[0].Name = "other.webhook.ampbridge.io" }, true},
		"an entry more": {func(c *mutating) {
			more := *c.Webhooks[0].DeepCopy()
			more.Name = "more.webhook.ampbridge.io"
			c.Webhooks = append(c.Webhooks, more)
		}, true},
		"an entry less":    {func(c *mutating) { c.Webhooks = c.Webhooks[1:] }, true},
		"no entries":       {func(c *mutating) { c.Webhooks = nil }, true},
		"another order":    {func(c *mutating) { slices.Reverse(c.Webhooks) }, true},
		"a label":          {func(c *mutating) { c.Labels["team"] = "a" }, true},
		"a label's value":  {func(c *mutating) { c.Labels["app.kubernetes.io/name"] = "other" }, true},
		"no labels":        {func(c *mutating) { c.Labels = nil }, true},
		"an annotation":    {func(c *mutating) { metav1.SetMetaDataAnnotation(&c.ObjectMeta, "a", "b") }, true},
		"an owner":         {func(c *mutating) { c.OwnerReferences = []metav1.OwnerReference{{Kind: "Pod", Name: "a"}} }, true},
		"a finalizer":      {func(c *mutating) { c.Finalizers = []string{"example.com/a"} }, true},
		"bundle and rules": {func(c *mutating) { c.Webhooks[0].ClientConfig.CABundle, c.Webhooks[0].Rules = []byte("B"), nil }, true},
	} {
		t.Run(name, func(t *testing.T) {
			var before mutating
			testkit.Must(t, yaml.Unmarshal([]byte(object(t, "MutatingWebhookConfiguration", "ampbridge")), &before))
			after := before.DeepCopy()
			test.change(after)
			request := updateOf("mutatingwebhookconfigurations", "MutatingWebhookConfiguration", user)
			if got := policy.review(t, request, &before, after, nil); (got != "") != test.denied {
				t.Errorf("denied: %q, want %t", got, test.denied)
			}
			// Helm and the admin are not meant.
			request.UserInfo.Username = "admin"
			if got := policy.review(t, request, &before, after, nil); got != "" {
				t.Errorf("an admin is denied: %s", got)
			}
		})
	}
	t.Run("the policy's registration", func(t *testing.T) {
		var before registrationv1.ValidatingWebhookConfiguration
		testkit.Must(t, yaml.Unmarshal([]byte(object(t, "ValidatingWebhookConfiguration", "ampbridge")), &before))
		request := updateOf("validatingwebhookconfigurations", "ValidatingWebhookConfiguration", user)
		after := before.DeepCopy()
		after.Webhooks[0].ClientConfig.CABundle = []byte("A")
		if got := policy.review(t, request, &before, after, nil); got != "" {
			t.Errorf("the bundle: %s", got)
		}
		after.Webhooks[0].FailurePolicy = new(registrationv1.Fail)
		if policy.review(t, request, &before, after, nil) == "" {
			t.Error("failurePolicy is not denied")
		}
		for operation, pair := range map[admissionv1.Operation][2]runtime.Object{
			admissionv1.Create: {nil, after}, admissionv1.Delete: {&before, nil},
		} {
			request.Operation = operation
			if policy.review(t, request, pair[0], pair[1], nil) == "" {
				t.Errorf("%s is not denied", operation)
			}
		}
	})
}

// Sync evicts where pods may be injected.
func TestSyncEvictsInLabelledNamespacesAlone(t *testing.T) {
	policy := policyOf(t, "ampbridge-sync", "--set", "webhook.excludedNamespaces={istio-system}")
	for _, test := range []struct {
		namespace string
		labels    map[string]string
		denied    bool
	}{
		{"team-a", map[string]string{"ampbridge.io/injection": "enabled"}, false},
		{"team-a", map[string]string{"ampbridge.io/injection": "annotated", "team": "a"}, false},
		{"team-a", map[string]string{"ampbridge.io/injection": "disabled"}, true},
		{"team-a", map[string]string{"team": "a"}, true},
		{"team-a", nil, true},
		{"kube-system", map[string]string{"ampbridge.io/injection": "enabled"}, true},
		{namespace, map[string]string{"ampbridge.io/injection": "enabled"}, true},
		{"istio-system", map[string]string{"ampbridge.io/injection": "enabled"}, true},
	} {
		request := &admissionv1.AdmissionRequest{
			Kind:     metav1.GroupVersionKind{Group: "policy", Version: "v1", Kind: "Eviction"},
			Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"}, SubResource: "eviction",
			Operation: admissionv1.Create, Namespace: test.namespace, Name: "p-0",
			UserInfo: authenticationv1.UserInfo{Username: "system:serviceaccount:" + namespace + ":ampbridge-sync"},
		}
		eviction := &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: test.namespace, Name: "p-0"}}
		in := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: test.namespace, Labels: test.labels}}
		if got := policy.review(t, request, nil, eviction, in); (got != "") != test.denied {
			t.Errorf("%s with labels %v: denied: %q, want %t", test.namespace, test.labels, got, test.denied)
		}
		request.UserInfo.Username = "system:node:a"
		if got := policy.review(t, request, nil, eviction, in); got != "" {
			t.Errorf("%s: a drain is denied: %s", test.namespace, got)
		}
	}
}

// Sync creates pods in dry runs alone, and only where pods may be injected. That narrows
// the right that the chart gives it with audit.repair: evict.
func TestSyncCreatesPodsInDryRunsAlone(t *testing.T) {
	policy := policyOf(t, "ampbridge-sync", "--set", "policy.audit.repair=evict,webhook.excludedNamespaces={istio-system}")
	labelled := map[string]string{"ampbridge.io/injection": "enabled"}
	for _, test := range []struct {
		name, namespace string
		labels          map[string]string
		dryRun          *bool
		denied          bool
	}{
		{"a dry run", "team-a", labelled, new(true), false},
		{"a dry run, annotated", "team-a", map[string]string{"ampbridge.io/injection": "annotated"}, new(true), false},
		{"for real", "team-a", labelled, new(false), true},
		{"for real, unsaid", "team-a", labelled, nil, true},
		{"without the label", "team-a", map[string]string{"team": "a"}, new(true), true},
		{"without labels", "team-a", nil, new(true), true},
		{"opted out", "team-a", map[string]string{"ampbridge.io/injection": "disabled"}, new(true), true},
		{"the system's namespace", "kube-system", labelled, new(true), true},
		{"ampbridge's own", namespace, labelled, new(true), true},
		{"an excluded one", "istio-system", labelled, new(true), true},
	} {
		request := &admissionv1.AdmissionRequest{
			Kind:      metav1.GroupVersionKind{Version: "v1", Kind: "Pod"},
			Resource:  metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
			Operation: admissionv1.Create, Namespace: test.namespace, DryRun: test.dryRun,
			UserInfo: authenticationv1.UserInfo{Username: "system:serviceaccount:" + namespace + ":ampbridge-sync"},
		}
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: test.namespace, GenerateName: "p-"}}
		in := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: test.namespace, Labels: test.labels}}
		if got := policy.review(t, request, nil, pod, in); (got != "") != test.denied {
			t.Errorf("%s: denied: %q, want %t", test.name, got, test.denied)
		}
		request.UserInfo.Username = "system:serviceaccount:kube-system:replicaset-controller"
		if got := policy.review(t, request, nil, pod, in); got != "" {
			t.Errorf("%s: a controller is denied: %s", test.name, got)
		}
	}
}

// The right is given only for repairs, and never without the policy.
func TestSyncCreatesPodsForRepairsAlone(t *testing.T) {
	repairs := []string{"policy.audit.repair=evict", "policy.audit.repair=evict,sync.auditor.breaker=false"}
	for _, flags := range append([]string{
		"policy.audit.repair=none",
		"policy.audit.repair=evict,sync.auditor.enabled=false",
		"policy.audit.repair=evict,sync.mode=cronJob",
		"policy.audit.repair=none,admissionPolicies.enabled=false",
		"sync.auditor.breaker=false,admissionPolicies.enabled=false",
	}, repairs...) {
		want := slices.Contains(repairs, flags)
		var role rbacv1.ClusterRole
		testkit.Must(t, yaml.UnmarshalStrict([]byte(object(t, "ClusterRole", "ampbridge-sync", "--set", flags)), &role))
		got := slices.ContainsFunc(role.Rules, func(r rbacv1.PolicyRule) bool {
			return slices.Contains(r.Resources, "pods") && slices.Contains(r.Verbs, "create")
		})
		if got != want {
			t.Errorf("%s: sync may create pods: %t, want %t", flags, got, want)
		}
	}
}

// A policy is there exactly where the right is that it narrows, unless it is off.
func TestPoliciesFollowTheRights(t *testing.T) {
	for flags, want := range map[string][]string{
		"certificates.mode=selfManaged":                        {"ampbridge-sync", "ampbridge-webhook"},
		"certificates.mode=certManager":                        {"ampbridge-sync"},
		"sync.auditor.breaker=false":                           {"ampbridge-webhook"},
		"sync.auditor.breaker=false,policy.audit.repair=evict": {"ampbridge-sync", "ampbridge-webhook"},
		"sync.mode=cronJob":                                    {"ampbridge-webhook"},
		"admissionPolicies.enabled=false":                      nil,
	} {
		names, bound := map[string]bool{}, map[string]bool{}
		for _, text := range render(t, "minimal", "--set", flags) {
			var policy registrationv1.ValidatingAdmissionPolicy
			var binding registrationv1.ValidatingAdmissionPolicyBinding
			var kind metav1.TypeMeta
			testkit.Must(t, yaml.Unmarshal([]byte(text), &kind))
			switch kind.Kind {
			case "ValidatingAdmissionPolicy":
				testkit.Must(t, yaml.UnmarshalStrict([]byte(text), &policy))
				names[policy.Name] = true
			case "ValidatingAdmissionPolicyBinding":
				testkit.Must(t, yaml.UnmarshalStrict([]byte(text), &binding))
				if slices.Equal(binding.Spec.ValidationActions, []registrationv1.ValidationAction{registrationv1.Deny}) {
					bound[binding.Spec.PolicyName] = true
				}
			}
		}
		if got := slices.Sorted(maps.Keys(names)); !slices.Equal(got, want) || !maps.Equal(names, bound) {
			t.Errorf("%s: policies %v, bound %v, want %v", flags, got, bound, want)
		}
	}
}

func updateOf(resource, kind, user string) *admissionv1.AdmissionRequest {
	const group = registrationv1.GroupName
	return &admissionv1.AdmissionRequest{
		Kind:     metav1.GroupVersionKind{Group: group, Version: "v1", Kind: kind},
		Resource: metav1.GroupVersionResource{Group: group, Version: "v1", Resource: resource},
		Name:     "ampbridge", Operation: admissionv1.Update,
		UserInfo: authenticationv1.UserInfo{Username: user},
	}
}

func policyOf(t *testing.T, name string, args ...string) program {
	t.Helper()
	var policy registrationv1.ValidatingAdmissionPolicy
	testkit.Must(t, yaml.UnmarshalStrict([]byte(object(t, "ValidatingAdmissionPolicy", name, args...)), &policy))
	if f := policy.Spec.FailurePolicy; f == nil || *f != registrationv1.Fail {
		t.Errorf("%s: failurePolicy %v", name, f)
	}
	p, complaints := compile(t, policy.Spec.MatchConditions, policy.Spec.Variables, policy.Spec.Validations)
	if complaints != nil {
		t.Fatal(complaints)
	}
	return p
}

// object is one of the chart's.
func object(t *testing.T, kind, name string, args ...string) string {
	t.Helper()
	for _, text := range render(t, "minimal", args...) {
		var meta metav1.PartialObjectMetadata
		testkit.Must(t, yaml.Unmarshal([]byte(text), &meta))
		if meta.Kind == kind && meta.Name == name {
			return text
		}
	}
	t.Fatalf("the chart makes no %s %s", kind, name)
	return ""
}

// render returns the chart's objects, each as YAML, as Helm makes them with one of the chart's examples of values.
func render(t *testing.T, values string, args ...string) []string {
	t.Helper()
	const chart = "../../charts/ampbridge"
	text := tools.Helm(t, append([]string{"template", "ampbridge", chart, "--namespace", namespace,
		"-f", chart + "/ci/" + values + "-values.yaml"}, args...)...)
	return strings.Split(text, "\n---\n")
}

package inject

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// wanted are the policy's defaults.
var wanted = policy.Resources{
	Requests: policy.ResourceList{CPU: "10m", Memory: "32Mi"},
	Limits:   policy.ResourceList{Memory: "128Mi"},
}

const (
	asWanted = "requests cpu 10m memory 32Mi limits memory 128Mi"
	nothing  = "requests limits"
	// pinned is a pod of the QoS class Guaranteed.
	pinned = "containers: [{name: p, resources: {requests: {cpu: 1, memory: 1Gi}, limits: {cpu: 1, memory: 1Gi}}}]"
	// ordinary is a pod with requests and limits in its own container.
	ordinary = "containers: [{name: p, resources: {requests: {cpu: 100m, memory: 100Mi}, limits: {cpu: 200m, memory: 200Mi}}}]"
)

func TestFit(t *testing.T) {
	for _, c := range []struct {
		name   string
		wanted policy.Resources // zero for the default
		pod    string           // empty for ordinary
		ranges string           // items of one LimitRange
		quotas string           // of ResourceQuotas
		want   string
	}{
		{name: "no limits: as in the policy", want: asWanted},
		{name: "a policy that sets nothing", wanted: policy.Resources{Requests: policy.ResourceList{CPU: "0"}}, want: "requests cpu 0 limits"},
		{name: "a request above the limit raises the limit",
			wanted: policy.Resources{Requests: policy.ResourceList{Memory: "1Gi"}, Limits: policy.ResourceList{Memory: "128Mi"}},
			want:   "requests memory 1Gi limits memory 1Gi"},

		{name: "a minimum raises the request", ranges: "[{type: Container, min: {cpu: 50m}}]", want: "requests cpu 50m memory 32Mi " +
			"limits memory 128Mi"},
		{name: "and the limit", ranges: "[{type: Container, min: {memory: 256Mi}}]", want: "requests cpu 10m memory 256Mi limits memory 256Mi"},
		{name: "a maximum demands a limit", ranges: "[{type: Container, max: {cpu: 2}}]", want: "requests cpu 10m memory 32Mi limits " +
			"cpu 100m memory 128Mi"},
		{name: "and bounds it", ranges: "[{type: Container, max: {cpu: 50m, memory: 64Mi}}]", want: "requests cpu 10m memory 32Mi " +
			"limits cpu 50m memory 64Mi"},
		{name: "minimum and maximum are one value", ranges: "[{type: Container, min: {cpu: 70m}, max: {cpu: 70m}}]",
			want: "requests cpu 70m memory " +
				"32Mi " +
				"limits " +
				"cpu 70m memory 128Mi"},
		{name: "a default limit is set here, and smaller", ranges: "[{type: Container, default: {cpu: 500m}, defaultRequest: {cpu: " +
			"500m}}]", want: "requests cpu 10m memory 32Mi limits cpu 100m memory 128Mi"},
		{name: "a default request is not taken over", ranges: "[{type: Container, defaultRequest: {cpu: 500m, memory: 1Gi}}]", want: asWanted},
		{name: "a ratio demands both, and raises the request", ranges: "[{type: Container, maxLimitRequestRatio: {cpu: 4, memory: " +
			"2}}]", want: "requests cpu 25m memory 64Mi limits cpu 100m memory 128Mi"},
		{name: "a pod's ratio too", ranges: "[{type: Pod, maxLimitRequestRatio: {memory: 1}}]", want: "requests cpu 10m memory 128Mi " +
			"limits memory 128Mi"},
		{name: "a ratio with a fraction", ranges: "[{type: Container, maxLimitRequestRatio: {cpu: 1500m}}]", want: "requests cpu 67m " +
			"memory 32Mi limits cpu 100m memory 128Mi"},
		{name: "several items: the strictest", ranges: "[{type: Container, min: {cpu: 20m}}, {type: Container, min: {cpu: 30m}, max: " +
			"{cpu: 60m}}, {type: Container, max: {cpu: 90m}}]", want: "requests cpu 30m memory 32Mi limits cpu 60m memory 128Mi"},
		{name: "claims are not containers", ranges: "[{type: PersistentVolumeClaim, min: {cpu: 5}}]", want: asWanted},
		{name: "a pod's maximum with enough left", ranges: "[{type: Pod, max: {cpu: 1, memory: 328Mi}}]", want: asWanted},

		{name: "the sidecar's limit alone must not meet a pod's minimum", pod: "containers: [{name: p, resources: {requests: " +
			"{memory: 2Gi}}}]", ranges: "[{type: Pod, min: {memory: 1Gi}}]", want: "requests cpu 10m memory 32Mi limits"},
		{name: "a pod's minimum, which its own limits meet", ranges: "[{type: Pod, min: {memory: 200Mi}}]", want: asWanted},

		{name: "a quota on limits.cpu demands one", quotas: "[{hard: {limits.cpu: 4}}]", want: "requests cpu 10m memory 32Mi limits " +
			"cpu 100m memory 128Mi"},
		{name: "a quota on requests, by both names", wanted: policy.Resources{Limits: policy.ResourceList{Memory: "64Mi"}},
			quotas: "[{hard: {cpu: 4, requests.memory: 1Gi}}]", want: "requests cpu 10m memory 32Mi limits memory 64Mi"},
		{name: "a quota filled exactly", quotas: "[{hard: {limits.memory: 1000Mi, requests.cpu: 1}, used: {limits.memory: 672Mi, " +
			"requests.cpu: 890m}}]", want: asWanted},
		{name: "a quota on something else", quotas: "[{hard: {pods: 1, count/secrets: 1}, used: {pods: 1}}]", want: asWanted},
		{name: "a full quota of another scope", quotas: "[{hard: {limits.cpu: 1}, used: {limits.cpu: 1}, scopes: [Terminating]}]",
			want: asWanted},
		{name: "a full quota of another priority", quotas: "[{hard: {limits.cpu: 1}, used: {limits.cpu: 1}, selector: [{scopeName: " +
			"PriorityClass, operator: In, values: [high]}]}]", want: asWanted},
		{name: "a full quota of no priority", pod: "{priorityClassName: low, " + ordinary + "}", quotas: "[{hard: {cpu: 0}, selector: " +
			"[{scopeName: PriorityClass, operator: DoesNotExist}]}, {hard: {cpu: 0}, selector: [{scopeName: PriorityClass, operator: " +
			"NotIn, values: [low]}]}]", want: asWanted},
		{name: "a full quota of any priority", quotas: "[{hard: {cpu: 0}, selector: [{scopeName: PriorityClass, operator: Exists}]}]",
			want: asWanted},
		{name: "a best-effort pod with such quotas: it stays one", pod: "containers: [{name: p}]", quotas: "[{hard: {limits.cpu: 1}, " +
			"scopes: [NotBestEffort]}]", want: nothing},
		{name: "a best-effort pod elsewhere", pod: "containers: [{name: p}]", want: asWanted},
		{name: "a Guaranteed pod stays one", pod: pinned, want: "requests cpu 100m memory 128Mi limits cpu 100m memory 128Mi"},
		{name: "a Guaranteed pod without requests of its own", pod: "containers: [{name: p, resources: {limits: {cpu: 1, memory: 1Gi}}}]",
			want: "requests cpu 100m memory 128Mi limits cpu 100m memory 128Mi"},
		{name: "a Guaranteed pod, by other notations", pod: "containers: [{name: p, resources: {requests: {cpu: 1000m, memory: 1024Mi}, " +
			"limits: {cpu: 1, memory: 1Gi}}}]", want: "requests cpu 100m memory 128Mi limits cpu 100m memory 128Mi"},
		{name: "a Guaranteed pod, and the policy's limits", pod: pinned,
			wanted: policy.Resources{Limits: policy.ResourceList{CPU: "50m", Memory: "64Mi"}},
			want:   "requests cpu 50m memory 64Mi limits cpu 50m memory 64Mi"},
		{name: "a Guaranteed pod, and a request above the limit", pod: pinned,
			wanted: policy.Resources{Requests: policy.ResourceList{CPU: "200m"}, Limits: policy.ResourceList{CPU: "50m"}},
			want:   "requests cpu 200m memory 128Mi limits cpu 200m memory 128Mi"},
		{name: "a Guaranteed pod in a LimitRange", pod: pinned, ranges: "[{type: Container, min: {cpu: 200m}, max: {memory: 100Mi}}]",
			want: "requests cpu 200m memory 100Mi limits cpu 200m memory 100Mi"},
		{name: "a Guaranteed pod in a ratio", pod: pinned, ranges: "[{type: Container, maxLimitRequestRatio: {cpu: 1, memory: 1}}]",
			want: "requests cpu 100m memory 128Mi limits cpu 100m memory 128Mi"},
		{name: "one container requests less", pod: "{" + pinned + ", initContainers: [{name: i, resources: {requests: {cpu: 1, memory: 1Gi}, " +
			"limits: {cpu: 2, memory: 1Gi}}}]}", want: asWanted},
		{name: "an init container without a limit", pod: "{" + pinned + ", initContainers: [{name: i, resources: {limits: {cpu: 2}}}]}",
			want: asWanted},
		{name: "a limit of nothing", pod: "containers: [{name: p, resources: {limits: {cpu: 0, memory: 1Gi}}}]", want: asWanted},
		{name: "resources of the whole pod", pod: "{resources: {limits: {cpu: 1}}, containers: [{name: p}]}", want: nothing},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.wanted == (policy.Resources{}) {
				c.wanted = wanted
			}
			got, refused := fitResources(c.wanted, resourcePod(t, c.pod), limitsOfNamespace(t, c.ranges, c.quotas))
			if refused != nil {
				t.Fatal(refused.Reason, refused.Warning)
			}
			testkit.Equal(t, "resources", c.want, describe(got))
		})
	}
}

func TestFitNot(t *testing.T) {
	for _, c := range []struct {
		name, pod, ranges, quotas string
		want                      policy.Reason
		says                      string
	}{
		{name: "too little memory to run", ranges: "[{type: Container, max: {memory: 8Mi}}]", want: LimitRangeConflict,
			says: `"range" allows the config sidecar too little memory`},
		{name: "too little CPU to start", ranges: "[{type: Container, max: {cpu: 1m}}]", want: LimitRangeConflict, says: "cpu"},
		{name: "a minimum above the maximum", ranges: "[{type: Container, min: {cpu: 2}, max: {cpu: 1}}]", want: LimitRangeConflict, says: "cpu"},
		{name: "a pod's maximum of limits", ranges: "[{type: Pod, max: {memory: 327Mi}}]", want: LimitRangeConflict, says: "memory"},
		{name: "a pod's maximum of requests", pod: "containers: [{name: p, resources: {requests: {cpu: 1}}}]", ranges: "[{type: Pod, " +
			"max: {cpu: 1}}]", want: LimitRangeConflict, says: "cpu"},
		{name: "resources of the whole pod and of each container", pod: "{resources: {limits: {cpu: 1}}, containers: [{name: p}]}",
			ranges: "[{type: Container, " +
				"default: " +
				"{cpu: " +
				"1}}]", want: LimitRangeConflict, says: "spec.resources"},
		{name: "one byte over", quotas: "[{hard: {limits.memory: 1000Mi}, used: {limits.memory: 704643073}}]", want: QuotaExceeded,
			says: "limits.memory"},
		{name: "cpu", quotas: "[{hard: {cpu: 1}, used: {cpu: 891m}}]", want: QuotaExceeded, says: `"quota-0" has too little cpu`},
		{name: "the second of two", quotas: "[{hard: {cpu: 9}}, {hard: {requests.memory: 1Gi}, used: {requests.memory: 1Gi}}]",
			want: QuotaExceeded, says: "quota-1"},
		{name: "for a Guaranteed pod's sidecar", pod: pinned, quotas: "[{hard: {requests.memory: 2Gi}, used: {requests.memory: 992Mi}}]",
			want: QuotaExceeded, says: "requests.memory"},
		{name: "in its scope", quotas: "[{hard: {limits.cpu: 1}, used: {limits.cpu: 1}, scopes: [NotTerminating, NotBestEffort]}]",
			want: QuotaExceeded, says: "limits.cpu"},
		{name: "of its priority", pod: "{priorityClassName: high, containers: [{name: p, resources: {requests: {cpu: 1}}}]}",
			quotas: "[{hard: {cpu: 1}, used: {cpu: 0}, selector: [{scopeName: PriorityClass, operator: In, values: [high]}]}]",
			want:   QuotaExceeded, says: "cpu"},
		{name: "init containers count where they are more", pod: "{containers: [{name: p, resources: {requests: {cpu: 1}}}], " +
			"initContainers: [{name: s, restartPolicy: Always, resources: {requests: {cpu: 1}}}, {name: i, resources: {requests: {cpu: 3}}}]}",
			quotas: "[{hard: {cpu: 4}}]", want: QuotaExceeded, says: "cpu"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, refused := fitResources(wanted, resourcePod(t, c.pod), limitsOfNamespace(t, c.ranges, c.quotas))
			if refused == nil {
				t.Fatal("not refused")
			}
			if refused.Reason != c.want || !strings.Contains(refused.Warning, c.says) {
				t.Errorf("%s: %q; want %s, saying %q", refused.Reason, refused.Warning, c.want, c.says)
			}
		})
	}
}

// If no sidecar fits into a pod's namespace, the pod stays unchanged.
func TestNoResourcesIsNoInjection(t *testing.T) {
	o := options(t)
	o.Limits = limitsOfNamespace(t, "", "[{hard: {requests.memory: 1Mi}}]")
	if d := refusal(t, readFile(t, "operator.in.json"), o); d.Reason != QuotaExceeded {
		t.Error(d.Reason)
	}
}

func resourcePod(t *testing.T, spec string) *Pod {
	t.Helper()
	if spec == "" {
		spec = ordinary
	}
	return decode(t, podOf(t, spec))
}

// limitsOfNamespace reads a LimitRange's items, and quotas in a short form with status and scopes
// side by side.
func limitsOfNamespace(t *testing.T, items, quotas string) Limits {
	t.Helper()
	var l Limits
	if items != "" {
		r := corev1.LimitRange{}
		r.Name = "range"
		testkit.Must(t, yaml.UnmarshalStrict([]byte(items), &r.Spec.Limits))
		l.Ranges = append(l.Ranges, r)
	}
	var short []struct {
		corev1.ResourceQuotaStatus
		Scopes   []corev1.ResourceQuotaScope
		Selector []corev1.ScopedResourceSelectorRequirement
	}
	testkit.Must(t, yaml.UnmarshalStrict([]byte(quotas), &short))
	for i, s := range short {
		q := corev1.ResourceQuota{Status: s.ResourceQuotaStatus}
		q.Name = "quota-" + string(rune('0'+i))
		q.Spec.Scopes = s.Scopes
		if s.Selector != nil {
			q.Spec.ScopeSelector = &corev1.ScopeSelector{MatchExpressions: s.Selector}
		}
		l.Quotas = append(l.Quotas, q)
	}
	return l
}

func describe(r Resources) string {
	words := []string{}
	for _, list := range []struct {
		name string
		of   corev1.ResourceList
	}{{"requests", r.Requests}, {"limits", r.Limits}} {
		words = append(words, list.name)
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			if q, set := list.of[name]; set {
				words = append(words, string(name), q.String())
			}
		}
	}
	return strings.Join(words, " ")
}

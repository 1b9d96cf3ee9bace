package inject

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/ampbridge/ampbridge/policy"
)

// Limits are what a namespace demands of its pods' resources.
type Limits struct {
	Ranges []corev1.LimitRange
	Quotas []corev1.ResourceQuota
}

// Where a namespace demands a value that the policy leaves open, the sidecar
// gets one of these. A limit below the least, which only a LimitRange can bring
// about, would have the sidecar killed or too slow to start.
var (
	openRequests = quantities("10m", "32Mi")
	openLimits   = quantities("100m", "128Mi")
	leastLimits  = quantities("10m", "32Mi")
)

func quantities(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}

// fitResources finds resources with which the API server admits the pod and the sidecar
// wherever it admits the pod alone.
//
// Whatever a LimitRange would fill in is set here, so the result is the same
// whether its defaults are applied before or after. A native sidecar's
// resources add to the pod's, request for request and limit for limit.
func fitResources(wanted policy.Resources, pod *Pod, limits Limits) (Resources, *policy.Decision) {
	none := Resources{}
	if pod.Spec.Resources.any() {
		// Resources of the pod as a whole bound the sum of its containers'.
		for _, r := range limits.Ranges {
			if slices.ContainsFunc(r.Spec.Limits, func(i corev1.LimitRangeItem) bool { return i.Type == corev1.LimitTypeContainer }) {
				return none, refuse(
					LimitRangeConflict,
					"the pod has resources as a whole (spec.resources) and LimitRange %q bounds each container: set them on the containers instead",
					r.Name,
				)
			}
		}
		return none, nil
	}
	if bestEffort(pod) && slices.ContainsFunc(limits.Quotas, distinguishesBestEffort) {
		// With resources the pod would leave one quota's scope and enter another's,
		// which may demand what its own containers do not have.
		return none, nil
	}
	out := Resources{Requests: corev1.ResourceList{}, Limits: corev1.ResourceList{}}
	for _, r := range []struct {
		name           corev1.ResourceName
		request, limit policy.Quantity
	}{
		{corev1.ResourceCPU, wanted.Requests.CPU, wanted.Limits.CPU},
		{corev1.ResourceMemory, wanted.Requests.Memory, wanted.Limits.Memory},
	} {
		b, refused := boundsOf(r.name, pod, limits)
		if refused != nil {
			return none, refused
		}
		request, limit, refused := b.apply(r.request, r.limit)
		if refused != nil {
			return none, refused
		}
		if request != nil {
			out.Requests[r.name] = *request
		}
		if limit != nil {
			out.Limits[r.name] = *limit
		}
	}
	if refused := podMaximum(out, pod, limits.Ranges); refused != nil {
		return none, refused
	}
	return out, quotaLeft(out, pod, limits.Quotas)
}

func (r *Resources) any() bool { return len(r.Requests) > 0 || len(r.Limits) > 0 }

// bounds are what all LimitRanges and quotas together demand of a container's
// request and limit of one resource.
type bounds struct {
	name                     corev1.ResourceName
	needsRequest, needsLimit bool
	// noLimit: the pod has no limit, and a LimitRange's minimum for pods would
	// take the sidecar's for the whole pod's.
	noLimit bool
	// equal: the request is as high as the limit, and there is one.
	equal           bool
	min, max, ratio *resource.Quantity
	// by is the LimitRange to name when they cannot be met.
	by string
}

func boundsOf(name corev1.ResourceName, pod *Pod, limits Limits) (bounds, *policy.Decision) {
	equal := guaranteed(pod)
	b := bounds{name: name, equal: equal, needsLimit: equal}
	for _, r := range limits.Ranges {
		for _, item := range r.Spec.Limits {
			// A pod that has all ratios right needs a sidecar that has, too.
			if ratio, set := item.MaxLimitRequestRatio[name]; set &&
				(item.Type == corev1.LimitTypeContainer || item.Type == corev1.LimitTypePod) {
				b.ratio, b.by = lesser(b.ratio, ratio), r.Name
				b.needsRequest, b.needsLimit = true, true
			}
			if _, set := item.Min[name]; set && item.Type == corev1.LimitTypePod && !limited(pod, name) {
				b.noLimit = true
			}
			if item.Type != corev1.LimitTypeContainer {
				continue
			}
			if least, set := item.Min[name]; set {
				if b.min == nil || b.min.Cmp(least) < 0 {
					b.min = &least
				}
				b.needsRequest, b.by = true, r.Name
			}
			if most, set := item.Max[name]; set {
				b.max = lesser(b.max, most)
				b.needsLimit, b.by = true, r.Name
			}
			_, defaults := item.Default[name]
			_, defaultRequest := item.DefaultRequest[name]
			b.needsLimit = b.needsLimit || defaults
			b.needsRequest = b.needsRequest || defaults || defaultRequest
		}
	}
	for i := range limits.Quotas {
		if !covers(&limits.Quotas[i], pod) {
			continue
		}
		for key := range hard(&limits.Quotas[i]) {
			switch key {
			case name, "requests." + name:
				b.needsRequest = true
			case "limits." + name:
				b.needsLimit = true
			}
		}
	}
	if b.min != nil && b.max != nil && b.min.Cmp(*b.max) > 0 {
		return b, b.conflict()
	}
	return b, nil
}

func lesser(have *resource.Quantity, q resource.Quantity) *resource.Quantity {
	if have == nil || q.Cmp(*have) < 0 {
		return &q
	}
	return have
}

func (b *bounds) conflict() *policy.Decision {
	least := leastLimits[b.name]
	return refuse(
		LimitRangeConflict,
		"LimitRange %q leaves the config sidecar no %s that it can run with: allow containers at least %s",
		b.by,
		string(b.name),
		least.String(),
	)
}

// apply moves what is wanted ("" being nothing) into the bounds; nil means that
// nothing is set.
func (b *bounds) apply(wantedRequest, wantedLimit policy.Quantity) (request, limit *resource.Quantity, refused *policy.Decision) {
	request = value(wantedRequest, b.needsRequest, openRequests[b.name])
	if b.noLimit {
		wantedLimit = ""
	}
	limit = value(wantedLimit, b.needsLimit, openLimits[b.name])
	if request == nil && limit != nil {
		request = new(*limit) // the API server's own default
	}
	if limit != nil && limit.Cmp(*request) < 0 {
		*limit = *request
	}
	if b.equal {
		*request = *limit
	}
	least := leastLimits[b.name]
	if limit != nil && b.max != nil && b.max.Cmp(*limit) < 0 && b.max.Cmp(least) < 0 {
		return nil, nil, b.conflict()
	}
	for _, q := range []*resource.Quantity{request, limit} {
		if q != nil && b.min != nil && q.Cmp(*b.min) < 0 {
			*q = *b.min
		}
		if q != nil && b.max != nil && q.Cmp(*b.max) > 0 {
			*q = *b.max
		}
	}
	if limit != nil && b.ratio != nil {
		b.narrow(request, limit)
	}
	return request, limit, nil
}

// value is the quantity that is wanted, or else the open one if any is needed.
func value(wanted policy.Quantity, needed bool, open resource.Quantity) *resource.Quantity {
	switch {
	case wanted != "":
		return new(resource.MustParse(string(wanted))) // [policy.Parse] checked it
	case needed:
		return &open
	}
	return nil
}

// narrow raises the request until the limit is at most ratio times as much. It
// never passes the limit: the API server takes no ratio below 1.
func (b *bounds) narrow(request, limit *resource.Quantity) {
	ratio := max(b.ratio.MilliValue(), 1000)
	var least *resource.Quantity
	if b.name == corev1.ResourceCPU {
		least = resource.NewMilliQuantity(divideUp(limit.MilliValue()*1000, ratio), resource.DecimalSI)
	} else {
		least = resource.NewQuantity(divideUp(limit.Value()*1000, ratio), resource.BinarySI)
	}
	if request.Cmp(*least) < 0 {
		*request = *least
	}
}

func divideUp(a, b int64) int64 { return (a + b - 1) / b }

// podMaximum checks the LimitRanges that bound whole pods.
func podMaximum(sidecar Resources, pod *Pod, ranges []corev1.LimitRange) *policy.Decision {
	for _, r := range ranges {
		for _, item := range r.Spec.Limits {
			if item.Type != corev1.LimitTypePod {
				continue
			}
			for name, most := range item.Max {
				if exceeds(sidecar.Requests, pod, requestsOf, name, resource.Quantity{}, most) ||
					exceeds(sidecar.Limits, pod, limitsOf, name, resource.Quantity{}, most) {
					return refuse(
						LimitRangeConflict,
						"with the config sidecar the pod would exceed the maximum of %s that LimitRange %q sets for a pod: raise it, or lower the "+
							"containers'",
						string(name),
						r.Name,
					)
				}
			}
		}
	}
	return nil
}

// quotaLeft checks that what a quota has left holds pod and sidecar.
func quotaLeft(sidecar Resources, pod *Pod, quotas []corev1.ResourceQuota) *policy.Decision {
	for i := range quotas {
		q := &quotas[i]
		if !covers(q, pod) {
			continue
		}
		for key, most := range hard(q) {
			full := false
			switch used := q.Status.Used[key]; key {
			case corev1.ResourceCPU, corev1.ResourceRequestsCPU:
				full = exceeds(sidecar.Requests, pod, requestsOf, corev1.ResourceCPU, used, most)
			case corev1.ResourceMemory, corev1.ResourceRequestsMemory:
				full = exceeds(sidecar.Requests, pod, requestsOf, corev1.ResourceMemory, used, most)
			case corev1.ResourceLimitsCPU:
				full = exceeds(sidecar.Limits, pod, limitsOf, corev1.ResourceCPU, used, most)
			case corev1.ResourceLimitsMemory:
				full = exceeds(sidecar.Limits, pod, limitsOf, corev1.ResourceMemory, used, most)
			}
			if full {
				return refuse(
					QuotaExceeded,
					"ResourceQuota %q has too little %s left for the config sidecar: raise it, or lower sidecar.resources in the policy",
					q.Name,
					string(key),
				)
			}
		}
	}
	return nil
}

// exceeds reports whether used, the pod's own and the sidecar's are more than most.
func exceeds(
	sidecar corev1.ResourceList,
	pod *Pod,
	of func(*Container) corev1.ResourceList,
	name corev1.ResourceName,
	used, most resource.Quantity,
) bool {
	more, set := sidecar[name]
	if !set {
		return false
	}
	total := podUsage(pod, of, name)
	total.Add(used)
	total.Add(more)
	return total.Cmp(most) > 0
}

// requestsOf completes a container's requests as the API server does: where
// there is none, it is the limit.
func requestsOf(c *Container) corev1.ResourceList {
	all := maps.Clone(c.Resources.Limits)
	if all == nil {
		return c.Resources.Requests
	}
	maps.Copy(all, c.Resources.Requests)
	return all
}

// limited reports whether any of the pod's containers has a limit.
func limited(pod *Pod, name corev1.ResourceName) bool {
	for c := range pod.all {
		if _, set := c.Resources.Limits[name]; set {
			return true
		}
	}
	return false
}

func limitsOf(c *Container) corev1.ResourceList { return c.Resources.Limits }

// podUsage is what the scheduler and quotas count: the containers and native
// sidecars together, or an init container beside the sidecars before it,
// whichever is more.
func podUsage(pod *Pod, of func(*Container) corev1.ResourceList, name corev1.ResourceName) resource.Quantity {
	var sidecars, peak resource.Quantity
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.sidecar() {
			sidecars.Add(of(c)[name])
			continue
		}
		beside := sidecars.DeepCopy()
		beside.Add(of(c)[name])
		if beside.Cmp(peak) > 0 {
			peak = beside
		}
	}
	total := sidecars
	for i := range pod.Spec.Containers {
		total.Add(of(&pod.Spec.Containers[i])[name])
	}
	if peak.Cmp(total) > 0 {
		return peak
	}
	return total
}

// hard is what the quota admission plugin goes by.
func hard(q *corev1.ResourceQuota) corev1.ResourceList {
	if len(q.Status.Hard) > 0 {
		return q.Status.Hard
	}
	return q.Spec.Hard
}

// bestEffort reports whether none of the pod's containers asks for anything.
func bestEffort(pod *Pod) bool {
	for c := range pod.all {
		if c.Resources.any() {
			return false
		}
	}
	return true
}

// guaranteed reports whether the kubelet gives the pod the QoS class Guaranteed: each
// container has limits of CPU and memory, and requests as much
// (https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/#guaranteed).
func guaranteed(pod *Pod) bool {
	for c := range pod.all {
		for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
			limit := c.Resources.Limits[name]
			request, set := c.Resources.Requests[name]
			if limit.Sign() <= 0 || set && request.Cmp(limit) != 0 {
				return false
			}
		}
	}
	return len(pod.Spec.Containers) > 0
}

// scopes are a quota's in both notations.
func scopes(q *corev1.ResourceQuota) []corev1.ScopedResourceSelectorRequirement {
	var all []corev1.ScopedResourceSelectorRequirement
	for _, scope := range q.Spec.Scopes {
		all = append(all, corev1.ScopedResourceSelectorRequirement{ScopeName: scope, Operator: corev1.ScopeSelectorOpExists})
	}
	if q.Spec.ScopeSelector != nil {
		all = append(all, q.Spec.ScopeSelector.MatchExpressions...)
	}
	return all
}

func distinguishesBestEffort(q corev1.ResourceQuota) bool {
	return slices.ContainsFunc(scopes(&q), func(s corev1.ScopedResourceSelectorRequirement) bool {
		return s.ScopeName == corev1.ResourceQuotaScopeBestEffort || s.ScopeName == corev1.ResourceQuotaScopeNotBestEffort
	})
}

// covers reports whether a quota counts the pod. A scope that is not known here
// is taken to cover it: then the sidecar asks for less, or stays away.
func covers(q *corev1.ResourceQuota, pod *Pod) bool {
	for _, s := range scopes(q) {
		matches := true
		switch s.ScopeName {
		case corev1.ResourceQuotaScopeTerminating:
			matches = pod.Spec.ActiveDeadlineSeconds != nil
		case corev1.ResourceQuotaScopeNotTerminating:
			matches = pod.Spec.ActiveDeadlineSeconds == nil
		case corev1.ResourceQuotaScopeBestEffort:
			matches = bestEffort(pod)
		case corev1.ResourceQuotaScopeNotBestEffort:
			matches = !bestEffort(pod)
		case corev1.ResourceQuotaScopePriorityClass:
			class := pod.Spec.PriorityClassName
			switch s.Operator {
			case corev1.ScopeSelectorOpIn:
				matches = slices.Contains(s.Values, class)
			case corev1.ScopeSelectorOpNotIn:
				matches = !slices.Contains(s.Values, class)
			case corev1.ScopeSelectorOpExists:
				matches = class != ""
			case corev1.ScopeSelectorOpDoesNotExist:
				matches = class == ""
			}
		}
		if !matches {
			return false
		}
	}
	return true
}

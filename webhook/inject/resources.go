package inject

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/ampbridge/ampbridge/policy"
)

// Limits are a namespace's rules for the resources of its pods.
type Limits struct {
	Ranges []corev1.LimitRange
	Quotas []corev1.ResourceQuota
}

// The sidecar gets one of these values if the namespace requires a value that the policy does not
// set. With a limit below leastLimits, which only a LimitRange can cause, the sidecar would be
// killed or would start too slowly.
var (
	openRequests = quantities("10m", "32Mi")
	openLimits   = quantities("100m", "128Mi")
	leastLimits  = quantities("10m", "32Mi")
)

func quantities(cpu, memory string) corev1.ResourceList {
	return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
}

// fitResources returns resources of the sidecar with which the API server admits the pod, if it
// admits the pod without the sidecar.
//
// Values that a LimitRange would set as defaults are set here, so the result is the same if the
// defaults are applied before or after the injection. The requests and limits of a native sidecar
// are added to those of the pod.
func fitResources(wanted policy.Resources, pod *Pod, limits Limits) (Resources, *policy.Decision) {
	none := Resources{}
	if pod.Spec.Resources.any() {
		// Resources of the whole pod limit the sum over its containers.
		for _, r := range limits.Ranges {
			if slices.ContainsFunc(r.Spec.Limits, func(i corev1.LimitRangeItem) bool { return i.Type == corev1.LimitTypeContainer }) {
				return none, refuse(
					LimitRangeConflict,
					"the pod sets resources for the whole pod (spec.resources), but LimitRange %q limits each container: set them on the containers",
					r.Name,
				)
			}
		}
		return none, nil
	}
	if bestEffort(pod) && slices.ContainsFunc(limits.Quotas, distinguishesBestEffort) {
		// With resources, the pod would leave the scope of one quota and enter the scope of
		// another. The other quota can require values that the pod's own containers do not have.
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

// bounds are the rules of all LimitRanges and quotas together for a container's request and limit
// of one resource.
type bounds struct {
	name                     corev1.ResourceName
	needsRequest, needsLimit bool
	// noLimit is true if the pod has no limit and a LimitRange has a minimum for pods. The
	// LimitRange would take the sidecar's limit for the limit of the whole pod.
	noLimit bool
	// equal is true if there must be a limit and the request must equal it.
	equal           bool
	min, max, ratio *resource.Quantity
	// by is the LimitRange that the error names if the rules cannot be met.
	by string
}

func boundsOf(name corev1.ResourceName, pod *Pod, limits Limits) (bounds, *policy.Decision) {
	equal := guaranteed(pod)
	b := bounds{name: name, equal: equal, needsLimit: equal}
	for _, r := range limits.Ranges {
		for _, item := range r.Spec.Limits {
			// If the pod satisfies all ratios, the sidecar must satisfy them too.
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
		"LimitRange %q allows the config sidecar too little %s: allow containers at least %s",
		b.by,
		string(b.name),
		least.String(),
	)
}

// apply adjusts the wanted values to the bounds. An empty wanted value, or a nil result, means that
// none is set.
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

// value returns the wanted quantity, or the default open if a value is needed, or nil.
func value(wanted policy.Quantity, needed bool, open resource.Quantity) *resource.Quantity {
	switch {
	case wanted != "":
		return new(resource.MustParse(string(wanted))) // [policy.Parse] has checked it
	case needed:
		return &open
	}
	return nil
}

// narrow raises the request until the limit is at most ratio times the request. The request never
// exceeds the limit, because the API server accepts no ratio below 1.
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

// podMaximum checks the LimitRanges with limits for whole pods.
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
						"with the config sidecar the pod would exceed the maximum of %s that LimitRange %q sets for a pod: raise the maximum, or lower the "+
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

// quotaLeft checks that each quota has enough left for the pod with the sidecar.
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
					"ResourceQuota %q has too little %s left for the config sidecar: raise the quota, or lower sidecar.resources in the policy",
					q.Name,
					string(key),
				)
			}
		}
	}
	return nil
}

// exceeds reports whether the sum of used, the pod's own and the sidecar's resources is above most.
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

// requestsOf returns a container's requests. A missing request equals the limit, as in the API
// server.
func requestsOf(c *Container) corev1.ResourceList {
	all := maps.Clone(c.Resources.Limits)
	if all == nil {
		return c.Resources.Requests
	}
	maps.Copy(all, c.Resources.Requests)
	return all
}

// limited reports whether any container of the pod has a limit.
func limited(pod *Pod, name corev1.ResourceName) bool {
	for c := range pod.all {
		if _, set := c.Resources.Limits[name]; set {
			return true
		}
	}
	return false
}

func limitsOf(c *Container) corev1.ResourceList { return c.Resources.Limits }

// podUsage returns what the scheduler and quotas count. It is the larger of two sums: all
// containers with the native sidecars, or an init container with the native sidecars before it.
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

// hard returns the limits that the quota admission plugin uses.
func hard(q *corev1.ResourceQuota) corev1.ResourceList {
	if len(q.Status.Hard) > 0 {
		return q.Status.Hard
	}
	return q.Spec.Hard
}

// bestEffort reports whether no container of the pod has requests or limits.
func bestEffort(pod *Pod) bool {
	for c := range pod.all {
		if c.Resources.any() {
			return false
		}
	}
	return true
}

// guaranteed reports whether the kubelet gives the pod the QoS class Guaranteed: each container has
// limits of CPU and memory, and its requests equal the limits
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

// scopes returns a quota's scopes from both notations.
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

// covers reports whether a quota counts the pod. An unknown scope is treated as matching, so at
// worst the sidecar gets fewer resources or is not injected.
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

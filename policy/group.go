package policy

import (
	"slices"
	"strings"
)

// LabelShard is prometheus-operator's label with the number of a pod's shard.
const LabelShard = "operator.prometheus.io/shard"

// Workload is the workload that a pod belongs to, as far as the pod's metadata shows it.
type Workload struct {
	// Kind and Controller are the controller's, such as StatefulSet and prometheus-k8s; empty if
	// the pod has none. For a ReplicaSet of a Deployment, Controller is the Deployment's name.
	Kind, Controller string
	// Shard is the value of [LabelShard]; empty if the pod has no such label.
	Shard string
}

// Group returns the label cluster of a pod's series, by which AMP elects one replica.
// Replicas of one group must scrape the same targets, because AMP drops what the others
// send. A grant names one group, but it covers a service account, which several workloads may
// share. So the group's name contains everything that can differ between those workloads:
//
//	<ha>[/<namespace>][/<controller>][-shard-<number>]
//
// The namespace is there if the grants give the group to more than one namespace. The controller
// is left out if it has the same name as the group. If name is not empty, it replaces the
// controller, because a pair may consist of two workloads. The first shard has no number, as
// prometheus-operator names its StatefulSets, so that a Prometheus keeps its group
// when it is sharded.
func (p *Policy) Group(ha string, s Subject, w Workload, name string) string {
	group := ha
	if slices.ContainsFunc(p.Grants, func(g Grant) bool {
		return g.HA == ha && (len(g.Namespaces) != 1 || string(g.Namespaces[0]) != s.Namespace)
	}) {
		group += "/" + s.Namespace
	}
	shard := ""
	if w.Shard != "" && w.Shard != "0" {
		shard = "-shard-" + w.Shard
	}
	if name == "" {
		name = strings.TrimSuffix(w.Controller, shard) // the operator's name already ends in the shard
	}
	if name != "" && name != ha {
		group += "/" + name
	}
	return group + shard
}

// group sets the group of a pod in its entitlement. If the pod cannot be a replica, group
// returns false and the decision to skip.
func (p *Policy) group(e *Entitlement, r Request) (Decision, bool) {
	name := r.PodAnnotations[AnnotationHA]
	switch {
	case name != "" && !dnsLabel.MatchString(name):
		return skip(InvalidAnnotation, "annotation %s is %.63q: write a DNS label, the same on every pod of the pair", AnnotationHA, name), false
	case e.HA == "":
		return Decision{}, true
	case r.Workload.Kind == "DaemonSet":
		return skip(
			NotReplicas,
			"the pods of DaemonSet %s scrape different targets, and AMP would keep one of them, because a grant with ha (%s) covers "+
				"service account %s: the cluster admin leaves ha out, or gives the DaemonSet a service account and a grant of its own",
			r.Workload.Controller, e.HA, r.ServiceAccount,
		), false
	case r.Workload.Shard != "" && !number.MatchString(r.Workload.Shard):
		return skip(NotReplicas, "label %s is %.63q, which is not the number of a shard: remove it", LabelShard, r.Workload.Shard), false
	}
	e.HA = p.Group(e.HA, e.Subject, r.Workload, name)
	return Decision{}, true
}

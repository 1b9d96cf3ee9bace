package policy

import (
	"fmt"
	"slices"
)

// Access is what the role of a destination may do with the workspace.
type Access string

// The values of [Destination.Access].
const (
	// AccessWrite allows remote write and no query.
	AccessWrite Access = "write"
	// AccessQuery allows queries, series, labels and metadata, and no remote write.
	AccessQuery Access = "query"
)

// accessActions lists AMP's actions for each value, in the order in which documents list them
// (https://docs.aws.amazon.com/prometheus/latest/userguide/security_iam_service-with-iam.html).
var accessActions = []struct {
	access  Access
	actions Values
}{
	{AccessWrite, Values{"aps:RemoteWrite"}},
	{AccessQuery, Values{"aps:QueryMetrics", "aps:GetSeries", "aps:GetLabels", "aps:GetMetricMetadata"}},
}

// Actions returns the actions of AMP that the access needs.
func (a Access) Actions() Values {
	for _, known := range accessActions {
		if known.access == a {
			return slices.Clone(known.actions)
		}
	}
	return nil
}

// Writes reports whether samples may be written to d.
func (d Destination) Writes() bool {
	return len(d.Access) == 0 || slices.Contains(d.Access, AccessWrite)
}

// Queries reports whether d may be queried.
func (d Destination) Queries() bool { return slices.Contains(d.Access, AccessQuery) }

// Actions returns the actions of AMP that d needs on its workspace.
func (d Destination) Actions() Values {
	var list Values
	for _, known := range accessActions {
		if known.access == AccessWrite && d.Writes() || known.access == AccessQuery && d.Queries() {
			list = append(list, known.actions...)
		}
	}
	return list
}

// QueriesIn reports whether sync manages a role in the account that queries a workspace
// itself. If so, sync reads the boundary before it lets a role query.
func (p *Policy) QueriesIn(account string) bool {
	return slices.ContainsFunc(p.managedIn(account), Destination.BoundedQuery)
}

// BoundedQuery reports whether the permissions boundary must let the role of d query.
// With assumeRole the second role queries, so the boundary need not allow it.
func (d Destination) BoundedQuery() bool { return d.Queries() && d.AssumeRole.IsZero() }

// Does returns what the role of d does with the workspace, for example "write to".
func (d Destination) Does() string {
	switch {
	case d.Writes() && d.Queries():
		return "write to and query"
	case d.Queries():
		return "query"
	}
	return "write to"
}

// OnlyWrites returns d without the right to query.
func (d Destination) OnlyWrites() Destination {
	d.Access = []Access{AccessWrite}
	return d
}

func (v *validation) access(path string, list []Access) {
	v.require(len(list) > 0, path, "is empty: write [write], [query] or [write, query]")
	for i, a := range list {
		at := fmt.Sprintf("%s[%d]", path, i)
		v.require(a.Actions() != nil, at, "%q is unknown: write one of write, query", string(a))
		v.require(slices.Index(list, a) == i, at, "%q is listed twice: keep one", string(a))
	}
}

// grantAccess refuses a destination with query access alone in a grant with a mode that writes.
func (v *validation) grantAccess(path string, g Grant, p *Policy) {
	if g.Mode != ModePrometheus && g.Mode != ModeRelay {
		return
	}
	for i, name := range g.Destinations {
		d, _ := p.Destination(name)
		v.require(
			!d.Queries() || d.Writes(),
			fmt.Sprintf("%s.destinations[%d]", path, i),
			"%q has only access: [query], and mode %s writes: name a destination with write access, or set mode: identity for a reader",
			name,
			g.Mode,
		)
	}
}

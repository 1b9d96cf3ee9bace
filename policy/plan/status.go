package plan

import "github.com/ampbridge/ampbridge/policy"

// State is what a subject gets from a destination, in one word. It is the reason of the
// event on the ServiceAccount.
type State string

// The states.
const (
	Trusted       State = "Trusted"
	NotGranted    State = "NotGranted"
	CapReached    State = "CapReached"
	QuotaExceeded State = "QuotaExceeded"
	// WorkspaceMissing: the policy names a workspace that does not exist.
	WorkspaceMissing State = "WorkspaceMissing"
	// BoundaryOutdated: the permissions boundary does not allow queries yet.
	BoundaryOutdated State = "BoundaryOutdated"
	// Refused: a role or provider of another owner has the name.
	Refused State = "Refused"
	Pruned  State = "Pruned"
)

// SubjectStatus is the status of a subject after the plan was applied.
type SubjectStatus struct {
	Subject policy.Subject
	// Destination is the destination's name; empty with [NotGranted].
	Destination string
	// Role is the subject's role for the destination.
	Role  policy.ARN
	State State
	// Changes reports whether the plan changes the status; false if it was the same before.
	Changes bool
	// Message is for the ServiceAccount's owner.
	Message string
}

func (p *planner) setStatus(s policy.Subject, d policy.Destination, state State, changes bool, message string) {
	p.plan.SubjectStatuses = append(p.plan.SubjectStatuses, SubjectStatus{s, d.Name, p.Policy.RoleFor(d, s), state, changes, message})
}

// statusOf sets the status of the subjects of d, and finds out which of them are new.
func (p *planner) statusOf(d policy.Destination, trusted, subjects []policy.Subject) {
	was := map[policy.Subject]bool{}
	for _, s := range trusted {
		was[s] = true
	}
	for _, s := range subjects {
		p.setStatus(s, d, Trusted, !was[s], "may "+p.bounded(d).Does()+" destination "+d.Name+" as "+p.Policy.RoleFor(d, s).String())
	}
}

// wanting sets the status of subjects that want trust for d and do not get it, because a role of
// another owner has the name.
func (p *planner) wanting(d policy.Destination, message string) {
	for s, sa := range p.seen {
		if sa.destinations[d.Name] {
			p.setStatus(s, d, Refused, false, "not trusted for destination "+d.Name+": "+message)
		}
	}
}

// refused replaces the status of subjects, from that index on, that would have been trusted. The
// provider is refused, so no new subject is trusted.
func (p *planner) refused(from int, message string) {
	for i := from; i < len(p.plan.SubjectStatuses); i++ {
		if s := &p.plan.SubjectStatuses[i]; s.State == Trusted && s.Changes {
			s.State, s.Changes, s.Message = Refused, false, "not trusted for destination "+s.Destination+": "+message
		}
	}
}

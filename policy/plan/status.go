package plan

import "github.com/ampbridge/ampbridge/policy"

// State is what a subject gets of a destination, in one word: the reason of the
// event on its ServiceAccount.
type State string

// The states.
const (
	Trusted       State = "Trusted"
	NotGranted    State = "NotGranted"
	CapReached    State = "CapReached"
	QuotaExceeded State = "QuotaExceeded"
	// WorkspaceMissing: the policy names one that does not exist.
	WorkspaceMissing State = "WorkspaceMissing"
	// BoundaryOutdated: the permissions boundary does not allow queries yet.
	BoundaryOutdated State = "BoundaryOutdated"
	// Refused: somebody else's role or provider is in the way.
	Refused State = "Refused"
	Pruned  State = "Pruned"
)

// SubjectStatus is where a subject is once the plan is carried out.
type SubjectStatus struct {
	Subject policy.Subject
	// Destination is empty with [NotGranted].
	Destination string
	// Role is the subject's for the destination.
	Role  policy.ARN
	State State
	// Changes tells whether the plan brings it about; otherwise it was so before.
	Changes bool
	// Message is for the ServiceAccount's owner.
	Message string
}

func (p *planner) setStatus(s policy.Subject, d policy.Destination, state State, changes bool, message string) {
	p.plan.SubjectStatuses = append(p.plan.SubjectStatuses, SubjectStatus{s, d.Name, p.policy.RoleFor(d, s), state, changes, message})
}

// statusOf tells, once the subjects of d are chosen, who of them is new.
func (p *planner) statusOf(d policy.Destination, trusted, subjects []policy.Subject) {
	was := map[policy.Subject]bool{}
	for _, s := range trusted {
		was[s] = true
	}
	for _, s := range subjects {
		p.setStatus(s, d, Trusted, !was[s], "may "+p.bounded(d).Does()+" destination "+d.Name+" as "+p.policy.RoleFor(d, s).String())
	}
}

// wanting are those of destination d who want trust and, with a role of somebody
// else in the way, do not get it.
func (p *planner) wanting(d policy.Destination, message string) {
	for s, sa := range p.seen {
		if sa.destinations[d.Name] {
			p.setStatus(s, d, Refused, false, "not trusted for destination "+d.Name+": "+message)
		}
	}
}

// refused takes back the trust that was promised from that status on: the provider
// is refused, so that nobody new is trusted.
func (p *planner) refused(from int, message string) {
	for i := from; i < len(p.plan.SubjectStatuses); i++ {
		if s := &p.plan.SubjectStatuses[i]; s.State == Trusted && s.Changes {
			s.State, s.Changes, s.Message = Refused, false, "not trusted for destination "+s.Destination+": "+message
		}
	}
}

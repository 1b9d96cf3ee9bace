package plan

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// AbsenceState records since when trusted subjects have been missing. It is kept from run to
// run, so that a run does not start the grace period again.
type AbsenceState struct {
	// Owner is the cluster that the state belongs to, see [policy.Owner]. The state of another
	// cluster is ignored, and also that of this cluster with another issuer.
	Owner string
	// Missed has the time when a snapshot first missed a subject, in UTC and whole seconds.
	Missed map[policy.Subject]time.Time
}

// Equal reports whether a and b have the same content.
func (a AbsenceState) Equal(b AbsenceState) bool {
	return len(a.Missed) == 0 && len(b.Missed) == 0 ||
		a.Owner == b.Owner && maps.EqualFunc(a.Missed, b.Missed, time.Time.Equal)
}

// TrackAbsence returns the absences after a snapshot: the subjects that are trusted and
// granted but missing, each with the time of the first snapshot that missed it. A subject that
// exists again is removed. If an account could not be read, all absences in it are kept, because
// a read error must not restart a grace period.
func TrackAbsence(old AbsenceState, in Input) AbsenceState {
	p := newPlanner(in)
	now := AbsenceState{Owner: p.plan.Owner, Missed: map[policy.Subject]time.Time{}}
	if old.Owner != now.Owner {
		old = AbsenceState{}
	}
	unread := false
	for _, target := range Targets(in.Policy, in.Issuer) {
		found := in.Accounts[target.Account]
		unread = unread || found.Problem != ""
		for _, r := range p.isOurs(target, found) {
			for _, s := range r.absent {
				now.Missed[s] = in.Now.UTC().Truncate(time.Second)
			}
		}
	}
	for s, since := range old.Missed {
		_, missed := now.Missed[s]
		if _, seen := p.seen[s]; missed || (unread && !seen) {
			now.Missed[s] = since
		}
	}
	return now
}

// PruneCandidates returns the subjects with an expired grace period, sorted. Before they are
// pruned, the caller checks whether pods of them run: see [Input.Held].
func PruneCandidates(in Input) []policy.Subject { return newPlanner(in).pruneCandidates() }

func (p *planner) pruneCandidates() []policy.Subject {
	var list []policy.Subject
	// An empty list is probably wrong, because every namespace has a service account "default".
	if p.Absence.Owner != p.plan.Owner || len(p.seen) == 0 {
		return nil
	}
	for s, since := range p.Absence.Missed {
		if _, seen := p.seen[s]; !seen && p.Now.Sub(since) >= time.Duration(p.Policy.Trust.PruneAfter) {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, compareSubjects)
	return list
}

// roleOfOurs holds the subjects that are trusted for a destination, and which of them are missing.
type roleOfOurs struct {
	// arn is the role's ARN, or the workspace's if there are many roles.
	arn             policy.ARN
	trusted, absent []policy.Subject
}

// isOurs returns, for each destination of the target, the subjects that roles of this cluster
// trust.
func (p *planner) isOurs(target Target, found Account) []roleOfOurs {
	var list []roleOfOurs
	for _, d := range p.Policy.Destinations {
		if !Managed(p.Policy, d) || d.Workspace.Account != target.Account {
			continue
		}
		r := roleOfOurs{arn: p.Policy.Role(d)}
		if p.perServiceAccount() {
			r.arn = d.Workspace.ARN
		}
		own, former := p.trustees(d, found)
		r.trusted = distinct(append(own, former...))
		room := places{policy: p.Policy, destination: d.Name}
		for _, s := range r.trusted {
			if p.intentOf(s, d.Name) == unseen && room.granted(s) {
				r.absent = append(r.absent, s)
			}
		}
		list = append(list, r)
	}
	return list
}

// prunable returns the candidates of an account that can be pruned now. Subjects with running
// pods are not among them, and neither are those that the guards keep.
//
// The guards count per role and per account. A namespace that lost most of its subjects keeps
// them all. If most namespaces lost most of theirs, no subject is pruned. What one tenant does
// to its own namespace must not keep the trust of other namespaces. So a namespace that keeps its
// subjects for another reason is not counted.
func (p *planner) prunable(target Target, found Account) map[policy.Subject]bool {
	prunable := map[policy.Subject]bool{}
	for _, s := range p.pruneCandidates() {
		if _, held := p.Held[s]; !held {
			prunable[s] = true
		}
	}
	if p.AllowShrink {
		return prunable
	}
	all := roleOfOurs{arn: target.Provider}
	roles := p.isOurs(target, found)
	for _, r := range roles {
		all.trusted, all.absent = append(all.trusted, r.trusted...), append(all.absent, r.absent...)
	}
	all.trusted, all.absent = distinct(all.trusted), distinct(all.absent)
	const advice = "; if they are gone for good, run sync once with --allow-shrink, or remove their grants"
	kept := map[string]bool{}
	for _, r := range append(roles, all) {
		namespaces, gone, lost, ready := p.losses(r, prunable), 0, 0, 0
		var most []string // namespaces that keep their subjects
		for _, name := range slices.Sorted(maps.Keys(namespaces)) {
			n := namespaces[name]
			gone, ready = gone+n.gone, ready+n.ready
			if 2*n.gone > n.trusted {
				lost++
			}
			if suspicious(n.gone, n.trusted) {
				most = append(most, name)
			}
		}
		counted := len(namespaces)
		if len(most) > 0 {
			lost, counted = lost-1, counted-1
		}
		if ready > 0 && suspicious(lost, counted) {
			p.refuse(r.arn, fmt.Sprintf("%d of %d trusted subjects are not seen any more, and %d of %d namespaces lost "+
				"most of theirs: "+
				"more than half at once looks like a mistake, so no subject of the account is pruned"+advice, gone, len(r.trusted), lost, counted))
			return nil
		}
		for _, name := range most {
			if n := namespaces[name]; n.ready > 0 && !kept[name] {
				kept[name] = true
				p.refuse(r.arn, fmt.Sprintf("%d of %d trusted subjects are not seen any more in namespace %s: more than "+
					"half at once looks "+
					"like a mistake, so no subject of this namespace is pruned"+advice, n.gone, n.trusted, name))
			}
		}
	}
	maps.DeleteFunc(prunable, func(s policy.Subject, _ bool) bool { return kept[s.Namespace] })
	return prunable
}

// loss counts, for a namespace, the trusted subjects, the missing ones among them, and those of
// the missing ones that can be pruned now.
type loss struct{ trusted, gone, ready int }

// losses returns the loss of each of the role's namespaces.
func (p *planner) losses(r roleOfOurs, prunable map[policy.Subject]bool) map[string]loss {
	losses := map[string]loss{}
	for _, s := range r.trusted {
		n := losses[s.Namespace]
		n.trusted++
		losses[s.Namespace] = n
	}
	for _, s := range r.absent {
		n := losses[s.Namespace]
		if _, held := p.Held[s]; !held {
			n.gone++
		}
		if prunable[s] {
			n.ready++
		}
		losses[s.Namespace] = n
	}
	return losses
}

// suspicious reports whether the loss of that many subjects is more likely a mistake than real.
func suspicious(gone, all int) bool { return gone >= 2 && 2*gone > all }

// noteAbsences adds a note for every missing subject: what will happen to it.
func (p *planner) noteAbsences() {
	due := p.pruneCandidates()
	for _, s := range slices.SortedFunc(maps.Keys(p.Absence.Missed), compareSubjects) {
		since := p.Absence.Missed[s]
		message := "not seen since " + since.Format(time.RFC3339)
		switch reason, held := p.Held[s]; {
		case slices.Contains(due, s) && held:
			p.note("", s.String(), message+", and would be pruned, but "+reason)
		case slices.Contains(due, s):
			// A change or a refusal already has this message.
		case len(p.seen) == 0:
			p.note("", s.String(), message+": keeps its trust, because no service account at all is seen")
		default:
			until := since.Add(time.Duration(p.Policy.Trust.PruneAfter))
			p.note("", s.String(), message+": keeps its trust until "+until.Format(time.RFC3339)+", should it come back")
		}
	}
}

func distinct(list []policy.Subject) []policy.Subject {
	slices.SortFunc(list, compareSubjects)
	return slices.Compact(list)
}

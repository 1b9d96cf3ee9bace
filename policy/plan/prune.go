package plan

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// AbsenceState is since when trusted subjects have not been seen. It lasts from run to
// run, so that a run does not start the grace period again.
type AbsenceState struct {
	// Owner is the cluster that the state belongs to, see [policy.Owner]: that of another
	// cluster, or of this one with another issuer, says nothing.
	Owner string
	// Missed has the time when a snapshot first missed a subject, in UTC and whole seconds.
	Missed map[policy.Subject]time.Time
}

// Equal tells whether a and b hold the same.
func (a AbsenceState) Equal(b AbsenceState) bool {
	return len(a.Missed) == 0 && len(b.Missed) == 0 ||
		a.Owner == b.Owner && maps.EqualFunc(a.Missed, b.Missed, time.Time.Equal)
}

// TrackAbsence returns the absences after a snapshot: the subjects that are trusted and
// granted but not seen, each since the first snapshot that missed it. Who is seen again is
// forgotten. In an account that could not be read everybody may be trusted, so
// that its trouble sets no clock back.
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

// PruneCandidates are the subjects whose grace period is over, sorted. Before they are
// pruned, the caller looks whether pods of them run: see [Input.Held].
func PruneCandidates(in Input) []policy.Subject { return newPlanner(in).pruneCandidates() }

func (p *planner) pruneCandidates() []policy.Subject {
	var list []policy.Subject
	// An empty list is more likely wrong than true: every namespace has a service
	// account of its own.
	if p.absence.Owner != p.plan.Owner || len(p.seen) == 0 {
		return nil
	}
	for s, since := range p.absence.Missed {
		if _, seen := p.seen[s]; !seen && p.now.Sub(since) >= time.Duration(p.policy.Trust.PruneAfter) {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, compareSubjects)
	return list
}

// roleOfOurs is who is trusted for a destination, and who of them is not seen.
type roleOfOurs struct {
	// arn is the role's, or of many roles the workspace's.
	arn             policy.ARN
	trusted, absent []policy.Subject
}

// isOurs are, for each destination of the target, those whom roles of this cluster
// trust.
func (p *planner) isOurs(target Target, found Account) []roleOfOurs {
	var list []roleOfOurs
	for _, d := range p.policy.Destinations {
		if !Managed(p.policy, d) || d.Workspace.Account != target.Account {
			continue
		}
		r := roleOfOurs{arn: p.policy.Role(d)}
		if p.perServiceAccount() {
			r.arn = d.Workspace.ARN
		}
		own, former := p.trustees(d, found)
		r.trusted = distinct(append(own, former...))
		room := places{policy: p.policy, destination: d.Name}
		for _, s := range r.trusted {
			if p.intentOf(s, d.Name) == unseen && room.granted(s) {
				r.absent = append(r.absent, s)
			}
		}
		list = append(list, r)
	}
	return list
}

// prunable are the due subjects of an account that may go now: all that no pod
// holds, but for those that the guards keep.
//
// The guards count for each role and for the account. A namespace that lost most of
// its subjects keeps them all. Where most namespaces lost most of theirs, none is
// pruned. What one tenant does to its own namespace must not keep the trust of
// others, so one namespace that keeps its subjects anyway does not count there.
func (p *planner) prunable(target Target, found Account) map[policy.Subject]bool {
	prunable := map[policy.Subject]bool{}
	for _, s := range p.pruneCandidates() {
		if _, held := p.held[s]; !held {
			prunable[s] = true
		}
	}
	if p.allowShrink {
		return prunable
	}
	all := roleOfOurs{arn: target.Provider}
	roles := p.isOurs(target, found)
	for _, r := range roles {
		all.trusted, all.absent = append(all.trusted, r.trusted...), append(all.absent, r.absent...)
	}
	all.trusted, all.absent = distinct(all.trusted), distinct(all.absent)
	const advice = "; if they are gone for good, run sync once with --allow-shrink, or take away their grants"
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
			p.refuse(r.arn, fmt.Sprintf("%d of %d trusted subjects are not seen any more, and %d of %d namespaces lost most of theirs: "+
				"more than half at once looks like a mistake, so no subject of the account is pruned"+advice, gone, len(r.trusted), lost, counted))
			return nil
		}
		for _, name := range most {
			if n := namespaces[name]; n.ready > 0 && !kept[name] {
				kept[name] = true
				p.refuse(r.arn, fmt.Sprintf("%d of %d trusted subjects are not seen any more in namespace %s: more than half at once looks "+
					"like a mistake, so no subject of this namespace is pruned"+advice, n.gone, n.trusted, name))
			}
		}
	}
	maps.DeleteFunc(prunable, func(s policy.Subject, _ bool) bool { return kept[s.Namespace] })
	return prunable
}

// loss is how many subjects of a namespace are trusted, how many of them are gone, and
// how many of those may be pruned now.
type loss struct{ trusted, gone, ready int }

// losses are those of the role's namespaces.
func (p *planner) losses(r roleOfOurs, prunable map[policy.Subject]bool) map[string]loss {
	losses := map[string]loss{}
	for _, s := range r.trusted {
		n := losses[s.Namespace]
		n.trusted++
		losses[s.Namespace] = n
	}
	for _, s := range r.absent {
		n := losses[s.Namespace]
		if _, held := p.held[s]; !held {
			n.gone++
		}
		if prunable[s] {
			n.ready++
		}
		losses[s.Namespace] = n
	}
	return losses
}

// suspicious reports whether so many of all are more likely lost by mistake than gone.
func suspicious(gone, all int) bool { return gone >= 2 && 2*gone > all }

// noteAbsences says of everybody who is missed what becomes of it.
func (p *planner) noteAbsences() {
	due := p.pruneCandidates()
	for _, s := range slices.SortedFunc(maps.Keys(p.absence.Missed), compareSubjects) {
		since := p.absence.Missed[s]
		message := "not seen since " + since.Format(time.RFC3339)
		switch reason, held := p.held[s]; {
		case slices.Contains(due, s) && held:
			p.note("", s.String(), message+", and would be pruned, but "+reason)
		case slices.Contains(due, s):
			// The change says it, or the refusal.
		case len(p.seen) == 0:
			p.note("", s.String(), message+": keeps its trust, because no service account at all is seen")
		default:
			p.note(
				"",
				s.String(),
				message+": keeps its trust until "+since.Add(
					time.Duration(p.policy.Trust.PruneAfter),
				).Format(
					time.RFC3339,
				)+", should it come back",
			)
		}
	}
}

func distinct(list []policy.Subject) []policy.Subject {
	slices.SortFunc(list, compareSubjects)
	return slices.Compact(list)
}

package plan

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// AbsenceState is since when trusted subjects have not been seen. It lasts from run to
// run, so that the grace period does not begin anew with each.
type AbsenceState struct {
	// Owner is whom the memory was made for, see [policy.Owner]: that of another
	// cluster, or of this one with another issuer, says nothing.
	Owner string
	// Missed is when a look first missed a subject, in UTC and whole seconds.
	Missed map[policy.Subject]time.Time
}

// Equal tells whether a and b hold the same.
func (a AbsenceState) Equal(b AbsenceState) bool {
	return len(a.Missed) == 0 && len(b.Missed) == 0 ||
		a.Owner == b.Owner && maps.EqualFunc(a.Missed, b.Missed, time.Time.Equal)
}

// TrackAbsence is the memory after a look: the subjects that are trusted and granted
// but not seen, each since the first look that missed it. Who is seen again is
// forgotten. In an account that could not be read everybody may be trusted, so
// that its trouble sets no clock back.
func TrackAbsence(old AbsenceState, in Input) AbsenceState {
	m := newPlanner(in)
	now := AbsenceState{Owner: m.plan.Owner, Missed: map[policy.Subject]time.Time{}}
	if old.Owner != now.Owner {
		old = AbsenceState{}
	}
	unread := false
	for _, target := range Targets(in.Policy, in.Issuer) {
		found := in.Accounts[target.Account]
		unread = unread || found.Problem != ""
		for _, r := range m.isOurs(target, found) {
			for _, s := range r.absent {
				now.Missed[s] = in.Now.UTC().Truncate(time.Second)
			}
		}
	}
	for s, since := range old.Missed {
		_, missed := now.Missed[s]
		if _, seen := m.seen[s]; missed || (unread && !seen) {
			now.Missed[s] = since
		}
	}
	return now
}

// PruneCandidates are the subjects whose grace period is over, sorted. Before they are
// pruned, the caller looks whether pods of them run: see [Input.Held].
func PruneCandidates(in Input) []policy.Subject { return newPlanner(in).pruneCandidates() }

func (m *planner) pruneCandidates() []policy.Subject {
	var list []policy.Subject
	// An empty list is more likely wrong than true: every namespace has a service
	// account of its own.
	if m.absence.Owner != m.plan.Owner || len(m.seen) == 0 {
		return nil
	}
	for s, since := range m.absence.Missed {
		if _, seen := m.seen[s]; !seen && m.now.Sub(since) >= time.Duration(m.policy.Trust.PruneAfter) {
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
func (m *planner) isOurs(target Target, found Account) []roleOfOurs {
	var list []roleOfOurs
	for _, d := range m.policy.Destinations {
		if !Managed(m.policy, d) || d.Workspace.Account != target.Account {
			continue
		}
		r := roleOfOurs{arn: m.policy.Role(d)}
		if m.perServiceAccount() {
			r.arn = d.Workspace.ARN
		}
		own, former := m.trustees(d, found)
		r.trusted = distinct(append(own, former...))
		room := places{policy: m.policy, destination: d.Name}
		for _, s := range r.trusted {
			if m.intentOf(s, d.Name) == unseen && room.granted(s) {
				r.absent = append(r.absent, s)
			}
		}
		list = append(list, r)
	}
	return list
}

// prunable are the due subjects of an account that may go now: all that no pod
// holds, or nobody, where a role or the account would lose too many.
func (m *planner) prunable(target Target, found Account) map[policy.Subject]bool {
	prunable := map[policy.Subject]bool{}
	for _, s := range m.pruneCandidates() {
		if _, held := m.held[s]; !held {
			prunable[s] = true
		}
	}
	all := roleOfOurs{arn: target.Provider}
	roles := m.isOurs(target, found)
	for _, r := range roles {
		all.trusted, all.absent = append(all.trusted, r.trusted...), append(all.absent, r.absent...)
	}
	all.trusted, all.absent = distinct(all.trusted), distinct(all.absent)
	for _, r := range append(roles, all) {
		gone, ready := 0, 0
		for _, s := range r.absent {
			if _, held := m.held[s]; !held {
				gone++
			}
			if prunable[s] {
				ready++
			}
		}
		if ready > 0 && suspicious(gone, len(r.trusted)) && !m.allowShrink {
			m.refuse(r.arn, fmt.Sprintf("%d of %d trusted subjects are not seen any more: more than half at once looks like a mistake, so nobody of the account is pruned; "+
				"if they are gone for good, run sync once with --allow-shrink, or take away their grants", gone, len(r.trusted)))
			return nil
		}
	}
	return prunable
}

// suspicious tells whether so many of all are rather lost than gone.
func suspicious(gone, all int) bool { return gone >= 2 && 2*gone > all }

// noteAbsences says of everybody who is missed what becomes of it.
func (m *planner) noteAbsences() {
	due := m.pruneCandidates()
	for _, s := range slices.SortedFunc(maps.Keys(m.absence.Missed), compareSubjects) {
		since := m.absence.Missed[s]
		said := "not seen since " + since.Format(time.RFC3339)
		switch reason, held := m.held[s]; {
		case slices.Contains(due, s) && held:
			m.note("", s.String(), said+", and would be pruned, but "+reason)
		case slices.Contains(due, s):
			// The change says it, or the refusal.
		case len(m.seen) == 0:
			m.note("", s.String(), said+": keeps its trust, because no service account at all is seen")
		default:
			m.note("", s.String(), said+": keeps its trust until "+since.Add(time.Duration(m.policy.Trust.PruneAfter)).Format(time.RFC3339)+", should it come back")
		}
	}
}

func distinct(list []policy.Subject) []policy.Subject {
	slices.SortFunc(list, compareSubjects)
	return slices.Compact(list)
}

package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// intent is what a service account, as it exists now, wants from a destination.
type intent int

const (
	unseen   intent = iota // no such service account in a labelled namespace
	wanted                 // a pod of it can be injected
	unwanted               // it opted out, or named other destinations
	unclear                // its annotations cannot be read
)

// collectIntents asks, for every service account, for the same decision that the webhook
// makes about a pod that asks for injection.
func (p *planner) collectIntents(accounts []ServiceAccount) {
	// paused stops injections, but running pods keep their trust.
	running := *p.Policy
	running.Paused = false
	for _, sa := range accounts {
		decision := running.Decide(policy.Request{
			Namespace: sa.Namespace, Injection: sa.Injection, ServiceAccount: sa.Name, Account: true,
			ServiceAccountAnnotations: sa.Annotations,
		})
		s := seen{created: sa.Created, otherwise: unwanted, destinations: map[string]bool{}, decision: decision}
		if decision.Reason == policy.InvalidAnnotation || decision.Reason == policy.UnknownDestination {
			s.otherwise = unclear
		}
		s.asks = sa.Annotations[policy.AnnotationInject] == "true"
		for _, d := range decision.Destinations {
			s.destinations[d.Name] = true
		}
		p.seen[policy.Subject{Namespace: sa.Namespace, ServiceAccount: sa.Name}] = s
	}
}

// noteDenied adds notes about service accounts that do not get what they want.
func (p *planner) noteDenied() {
	for _, subject := range slices.SortedFunc(maps.Keys(p.seen), compareSubjects) {
		s := p.seen[subject]
		_, granted := p.Policy.Entitled(subject)
		switch {
		case s.otherwise == unclear && granted:
			p.note("", subject.String(), s.decision.Warning)
		case s.decision.Reason == policy.NotGranted && s.asks:
			p.plan.SubjectStatuses = append(
				p.plan.SubjectStatuses,
				SubjectStatus{Subject: subject, State: NotGranted, Message: s.decision.Warning},
			)
		}
	}
}

// seen is a service account that exists in a labelled namespace.
type seen struct {
	created      time.Time
	destinations map[string]bool
	otherwise    intent // the intent for every other destination
	asks         bool   // whether its annotation asks for injection
	decision     policy.Decision
}

func (p *planner) intentOf(s policy.Subject, destination string) intent {
	switch sa, found := p.seen[s]; {
	case !found:
		return unseen
	case sa.destinations[destination]:
		return wanted
	default:
		return sa.otherwise
	}
}

// subjects returns the subjects that the role of d must trust. trusted are the current ones.
// Trusted subjects that are granted stay, whatever the limits. New subjects are added in the
// order of their creation until the limits are reached. pruned counts subjects that are removed
// because they have been missing for long.
//
// Former subjects are trusted by roles of the other trust.roleScope. They come before
// new ones, because their trust moves. fits reports whether there is space for one more.
func (p *planner) subjects(
	d policy.Destination,
	trusted, former []policy.Subject,
	fits func(kept []policy.Subject, s policy.Subject) bool,
) (kept, refused []policy.Subject, pruned int) {
	room := places{policy: p.Policy, destination: d.Name, taken: map[place]int{}}
	for _, s := range trusted {
		switch w := p.intentOf(s, d.Name); {
		case !room.granted(s) || w == unwanted:
		case w == unseen && p.pruned[s]:
			pruned++
			p.setStatus(
				s,
				d,
				Pruned,
				true,
				"not seen since "+p.Absence.Missed[s].Format(time.RFC3339)+": not trusted for destination "+d.Name+" any more",
			)
		default:
			room.take(s)
			kept = append(kept, s)
		}
	}
	var moving, newcomers []policy.Subject
	for _, s := range former {
		if p.mayKeep(s, d) && !slices.Contains(kept, s) {
			moving = append(moving, s)
		}
	}
	for s := range p.seen {
		if p.intentOf(s, d.Name) == wanted && !slices.Contains(kept, s) && !slices.Contains(moving, s) {
			newcomers = append(newcomers, s)
		}
	}
	slices.SortFunc(newcomers, func(a, b policy.Subject) int {
		return cmp.Or(p.seen[a].created.Compare(p.seen[b].created), compareSubjects(a, b))
	})
	for _, s := range append(moving, newcomers...) {
		if p.missing(d) {
			p.setStatus(
				s,
				d,
				WorkspaceMissing,
				false,
				"not trusted for destination "+d.Name+": its workspace "+d.Workspace.String()+" does not exist; the cluster admin "+
					"corrects destinations[].workspace in the policy",
			)
			continue
		}
		if p.waits(d) {
			p.setStatus(
				s,
				d,
				BoundaryOutdated,
				false,
				"not trusted for destination "+d.Name+": the permissions boundary of account "+d.Workspace.Account+" does not allow "+
					"queries; the cluster admin runs ampbridge bootstrap again",
			)
			continue
		}
		if !room.take(s) && !slices.Contains(moving, s) {
			message := fmt.Sprintf(
				"not trusted for destination %s: namespace %s already has as many subjects as maxSubjectsPerNamespace allows, "+
					"and older ones keep their place; raise it in the grant",
				d.Name,
				s.Namespace,
			)
			p.note(d.Workspace.Account, s.String(), message)
			p.setStatus(s, d, CapReached, false, message)
			continue
		}
		if fits(kept, s) {
			kept = append(kept, s)
		} else {
			refused = append(refused, s)
		}
	}
	slices.SortFunc(kept, compareSubjects)
	return kept, refused, pruned
}

// mayKeep reports whether a subject that is trusted for d stays trusted.
func (p *planner) mayKeep(s policy.Subject, d policy.Destination) bool {
	w := p.intentOf(s, d.Name)
	return places{policy: p.Policy, destination: d.Name}.granted(s) && w != unwanted && (w != unseen || !p.pruned[s])
}

// missing reports whether the workspace of d does not exist.
func (p *planner) missing(d policy.Destination) bool { return p.Missing[d.Workspace.ARN] }

// waits reports whether d has only query access, and its boundary does not allow queries.
func (p *planner) waits(d policy.Destination) bool {
	_, unbounded := p.Unbounded[d.Name]
	return unbounded && !d.Writes()
}

// bounded returns d with only the access that its boundary allows.
func (p *planner) bounded(d policy.Destination) policy.Destination {
	if _, unbounded := p.Unbounded[d.Name]; unbounded && d.Writes() {
		return d.OnlyWrites()
	}
	return d
}

// refuseQueries adds the refusal that the boundary of destinations[i] does not allow queries.
func (p *planner) refuseQueries(i int, d policy.Destination, why string) {
	effect := "no new service account is trusted for destination " + d.Name
	if d.Writes() {
		effect = "the roles of destination " + d.Name + " may write to it, and not query it"
	}
	p.refuse(
		p.Policy.Boundary(d.Workspace.Partition, d.Workspace.Account),
		fmt.Sprintf(
			"destinations[%d].access has query, and the permissions boundary of account %s does not allow that: %s. So %s; run "+
				"`ampbridge bootstrap --policy FILE --account %s --apply` again, as an administrator of the account. "+
				"Writing is not affected",
			i, d.Workspace.Account, why, effect, d.Workspace.Account,
		),
	)
}

// places counts the subjects against the limits of a destination's grants.
type places struct {
	policy      *policy.Policy
	destination string
	taken       map[place]int
}

type place struct {
	grant     int
	namespace string
}

func (p places) granted(s policy.Subject) bool {
	for _, g := range p.policy.Grants {
		if grants(g, s, p.destination) {
			return true
		}
	}
	return false
}

// take finds a place for s in a grant: one without a limit, or one with a free place. It
// counts s even if it finds none: a trusted subject stays, and
// leaves less space for others.
func (p places) take(s policy.Subject) bool {
	full := -1
	for i, g := range p.policy.Grants {
		at := place{i, s.Namespace}
		switch {
		case !grants(g, s, p.destination):
		case g.MaxSubjectsPerNamespace == 0:
			return true
		case p.taken[at] < g.MaxSubjectsPerNamespace:
			p.taken[at]++
			return true
		default:
			full = i
		}
	}
	if full >= 0 {
		p.taken[place{full, s.Namespace}]++
	}
	return false
}

// grants reports whether the grant lets the subject use the destination.
func grants(g policy.Grant, s policy.Subject, destination string) bool {
	return slices.Contains(g.Destinations, destination) && g.Covers(s)
}

func compareSubjects(a, b policy.Subject) int {
	return cmp.Or(strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.ServiceAccount, b.ServiceAccount))
}

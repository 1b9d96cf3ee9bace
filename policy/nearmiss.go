package policy

import (
	"fmt"
	"strings"
)

// NearMiss returns what a grant names instead of a subject that no grant covers, such as
// "grants[0] names the namespace monitorng". It is empty if no grant differs from the subject in one
// or two letters only. It is for people who may read the whole policy: the webhook's warnings do not
// have it, because tenants must not read the grants of other tenants there.
func (p *Policy) NearMiss(s Subject) string {
	found, fewest := "", 0
	for i, g := range p.Grants {
		namespace, a, near := nearest(g.Namespaces, s.Namespace)
		account, b, alsoNear := nearest(g.ServiceAccounts, s.ServiceAccount)
		if !near || !alsoNear || found != "" && a+b >= fewest {
			continue
		}
		var names []string
		if namespace != "" {
			names = append(names, "the namespace "+string(namespace))
		}
		if account != "" {
			names = append(names, "the service account "+string(account))
		}
		if len(names) == 0 {
			return "" // the grant covers the subject
		}
		found, fewest = fmt.Sprintf("grants[%d] names %s", i, strings.Join(names, " and ")), a+b
	}
	return found
}

// nearest returns the pattern that is nearest to name, and how many letters differ. The pattern is
// empty if one of them matches. near is false if they all differ in too many letters: in more than
// two, or in more than a third of the pattern.
func nearest(globs []Glob, name string) (nearest Glob, letters int, near bool) {
	if matchAny(globs, name) {
		return "", 0, true
	}
	name = strings.ToLower(name)
	for _, g := range globs {
		fixed := len(g) - strings.Count(string(g), "*")
		differ := distance(string(g), name)
		if differ <= min(2, fixed/3) && (!near || differ < letters) {
			nearest, letters, near = g, differ, true
		}
	}
	return nearest, letters, near
}

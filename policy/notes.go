package policy

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Notes returns what a valid policy may have and what is often a mistake.
func (p *Policy) Notes() (notes Errors) {
	for i, d := range p.Destinations {
		if region := d.Workspace.Region; !slices.Contains(knownRegions, region) {
			notes = append(notes, FieldError{
				Path: fmt.Sprintf("destinations[%d].workspace", i),
				Problem: fmt.Sprintf("this version does not know the region %s%s: correct it, if AWS did not add it recently",
					region, similarRegion(region)),
			})
		}
	}
	for i, g := range p.Grants {
		path := fmt.Sprintf("grants[%d]", i)
		if g.HA != "" && !strings.Contains(g.HA, p.Cluster.Name) {
			notes = append(notes, FieldError{Path: path + ".ha", Problem: fmt.Sprintf(
				"if another cluster writes to the same workspace with the group %s, AMP takes both clusters for one pair and drops samples: "+
					"write a group with the cluster's name, such as %s-%s", g.HA, p.Cluster.Name, g.HA)})
		}
		for j, former := range p.Grants[:i] {
			if reflect.DeepEqual(g, former) {
				notes = append(notes, FieldError{Path: path, Problem: fmt.Sprintf("is the same as grants[%d]: remove one of the two", j)})
				break
			}
			s, both := g.overlap(former)
			if both && g.Mode == former.Mode && g.HA != "" && former.HA != "" && g.HA != former.HA {
				notes = append(notes, FieldError{Path: path + ".ha", Problem: fmt.Sprintf(
					"grants[%d] covers service account %s of namespace %s too, and its group %s counts: write the same group, or remove one",
					j, s.ServiceAccount, s.Namespace, former.HA)})
				break
			}
		}
	}
	return notes
}

// overlap returns a subject that both grants cover, if one of them has its names without a pattern.
func (g Grant) overlap(o Grant) (s Subject, ok bool) {
	if s.Namespace, ok = commonName(g.Namespaces, o.Namespaces); !ok {
		return s, false
	}
	s.ServiceAccount, ok = commonName(g.ServiceAccounts, o.ServiceAccounts)
	return s, ok
}

// commonName returns a name that stands in one of the lists and that the other list matches.
func commonName(a, b []Glob) (string, bool) {
	for _, lists := range [][2][]Glob{{a, b}, {b, a}} {
		for _, name := range lists[0] {
			if !strings.Contains(string(name), "*") && matchAny(lists[1], string(name)) {
				return string(name), true
			}
		}
	}
	return "", false
}

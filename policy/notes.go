package policy

import (
	"fmt"
	"slices"
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
	return notes
}

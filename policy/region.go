package policy

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

// regionSyntax is the form of every region's name: a place or partition, a direction and a number.
// It is strict because the region becomes part of a host name, and because almost every typing
// mistake breaks it. It lists no regions: a policy with a new region needs no new version.
var regionSyntax = regexp.MustCompile(
	`^([a-z]{2}(-gov|-iso[a-z]?)?|eusc-[a-z]{2})-(north|south|east|west|central|(north|south)(east|west))-[0-9]{1,2}$`)

// knownRegions are the regions of AWS's partitions.json. They are proposed for a name that is
// wrong, and a name that is not among them gets a note.
var knownRegions = strings.Fields(`
	af-south-1 ap-east-1 ap-east-2 ap-northeast-1 ap-northeast-2 ap-northeast-3 ap-south-1 ap-south-2 ap-southeast-1
	ap-southeast-2 ap-southeast-3 ap-southeast-4 ap-southeast-5 ap-southeast-6 ap-southeast-7 ca-central-1 ca-west-1
	eu-central-1 eu-central-2 eu-north-1 eu-south-1 eu-south-2 eu-west-1 eu-west-2 eu-west-3 il-central-1 me-central-1
	me-south-1 mx-central-1 sa-east-1 us-east-1 us-east-2 us-west-1 us-west-2 cn-north-1 cn-northwest-1 eusc-de-east-1
	us-iso-east-1 us-iso-west-1 us-isob-east-1 us-isob-west-1 eu-isoe-west-1 us-isof-east-1 us-isof-south-1
	us-gov-east-1 us-gov-west-1`)

// similarRegion returns the known region that resembles name, in brackets; empty: none does.
func similarRegion(name string) string {
	name = strings.ToLower(name)
	near := slices.MinFunc(knownRegions, func(a, b string) int {
		return cmp.Compare(distance(a, name), distance(b, name))
	})
	if distance(near, name) > 3 {
		return ""
	}
	return " (did you mean " + near + "?)"
}

// hostRegion returns the region in the name of a regional host of AWS; empty: the host has no
// region, or is not AWS's. The region may be misspelt.
func hostRegion(host string) string {
	rest, found := cutAWS(strings.ToLower(host))
	if !found {
		return ""
	}
	rest = strings.TrimSuffix(rest, ".vpce")
	label := rest[strings.LastIndexByte(rest, '.')+1:]
	if !numbered.MatchString(label) || label == "compute-1" { // the public names of EC2 in us-east-1 end so
		return ""
	}
	return label
}

var numbered = regexp.MustCompile(`^[a-z]+(-[a-z]+)*-[0-9]{1,2}$|^[a-z]+(-[a-z]+)+[0-9]{1,2}$`)

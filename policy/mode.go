package policy

import (
	"slices"
	"strings"
)

// Mode is how a pod gets access to its destinations.
type Mode string

// The values of [Grant.Mode] and of the pod annotation.
const (
	// ModePrometheus gives the config sidecar and the remote_write blocks to a Prometheus.
	ModePrometheus Mode = "prometheus"
	// ModeIdentity gives only the token and the AWS environment to the containers that the pod
	// names. Their programs call STS themselves.
	ModeIdentity Mode = "identity"
	// ModeRelay gives the address and the password of the sidecar's relay to the containers that
	// the pod names. The relay signs and forwards.
	ModeRelay Mode = "relay"
)

// problem returns the problem with the value, and the fix; empty if the value is known.
func (m Mode) problem() string { return unknown(m, ModePrometheus, ModeIdentity, ModeRelay) }

// grantMode checks the fields of a grant that only some modes allow.
func (v *validation) grantMode(path string, g Grant, p *Policy) {
	problem := g.Mode.problem()
	v.requireNo(problem, path+".mode")
	if problem != "" || g.Mode == ModePrometheus {
		return
	}
	v.require(g.HA == "", path+".ha", "is for mode prometheus, and this grant has mode %s: remove it, "+
		"and have the program set the labels cluster and __replica__ itself", g.Mode)
	v.require(g.Environment != EnvironmentContainer, path+".environment",
		"is for mode prometheus, and this grant has mode %s: remove it", g.Mode)
	v.require(!g.IRSA, path+".irsa", "makes EKS's webhook give an identity to the pods, and mode %s skips pods that have an identity: "+
		"remove it", g.Mode)
	image, old := oldSidecar(p.Sidecar.Image)
	v.require(g.Mode != ModeRelay || !old, path+".mode",
		"is relay, and sidecar.image (%s) is older than %s, the first version that relays for other programs: "+
			"name a newer image, or remove sidecar.image", image, firstWriterSidecar)
}

// firstWriterSidecar is the first version of the sidecar that knows [ModeRelay].
var firstWriterSidecar = Version{0, 1}

// oldSidecar reports whether the image's tag is a version that does not know [ModeRelay].
// A tag that is not a version proves nothing.
func oldSidecar(image string) (shown string, old bool) {
	name, _, _ := strings.Cut(image, "@")
	_, tag, _ := strings.Cut(name[strings.LastIndexByte(name, '/')+1:], ":")
	version, err := ParseVersion(tag)
	return image, err == nil && version.Before(firstWriterSidecar)
}

// namesNothing reports whether the annotation for containers exists and is empty.
func namesNothing(annotations map[string]string) bool {
	value, set := annotations[AnnotationContainer]
	return set && strings.TrimSpace(value) == ""
}

// modes returns the modes of the grants that cover a subject, in the policy's order.
func (p *Policy) modes(s Subject) []Mode {
	var found []Mode
	for _, g := range p.Grants {
		if g.Covers(s) && !slices.Contains(found, g.Mode) {
			found = append(found, g.Mode)
		}
	}
	return found
}

// mode returns the mode of a pod: the one that it names, or the only one that is granted.
// If several are granted and prometheus is one of them, a pod that names none gets prometheus:
// a new grant must not change a running Prometheus.
func (p *Policy) mode(s Subject, annotations map[string]string) (Mode, *Decision) {
	granted := p.modes(s)
	asked, named := Mode(annotations[AnnotationMode]), annotations[AnnotationMode] != ""
	refused := func(reason Reason, format string, args ...any) (Mode, *Decision) {
		d := skip(reason, format, args...)
		return "", &d
	}
	switch {
	case named && asked.problem() != "":
		return refused(InvalidAnnotation, "annotation %s: %s", AnnotationMode, asked.problem())
	case named && !slices.Contains(granted, asked):
		return refused(InvalidAnnotation, "annotation %s is %s, and the grants of %s have mode %s: write that, or remove the annotation",
			AnnotationMode, asked, s, join(granted))
	case named:
		return asked, nil
	case len(granted) == 1:
		return granted[0], nil
	case slices.Contains(granted, ModePrometheus):
		return ModePrometheus, nil
	}
	return refused(InvalidAnnotation, "the grants of %s have modes %s: write one of them into the annotation %s",
		s, join(granted), AnnotationMode)
}

// forOneDestination decides about a pod with mode identity or relay. Such a pod has one
// destination, and the annotations of mode prometheus are not for it.
func forOneDestination(e *Entitlement, r Request) (Decision, bool) {
	for _, name := range []string{AnnotationEnvironment, AnnotationDelivery, AnnotationHA} {
		if _, set := r.PodAnnotations[name]; set {
			return skip(InvalidAnnotation, "annotation %s is for mode prometheus, and this pod has mode %s: remove it", name, e.Mode), false
		}
	}
	if _, set := r.PodAnnotations[AnnotationContainer]; !set {
		return skip(NoContainerNamed, "a grant with mode %s covers %s: name the containers with the annotation %s: NAME[,NAME]",
			e.Mode, e.Subject, AnnotationContainer), false
	}
	name, set := r.PodAnnotations[AnnotationDestination]
	switch {
	case set:
		i := slices.IndexFunc(e.Destinations, func(d Destination) bool { return d.Name == strings.TrimSpace(name) })
		if i < 0 {
			return skip(UnknownDestination, "annotation %s names %q, which is not granted to %s with mode %s: write one of %s",
				AnnotationDestination, name, e.Subject, e.Mode, strings.Join(names(e.Destinations), ", ")), false
		}
		e.Destinations = e.Destinations[i : i+1 : i+1]
	case len(e.Destinations) > 1:
		return skip(AmbiguousDestination, "mode %s is for one destination, and %s has %s: name one with the annotation %s",
			e.Mode, e.Subject, strings.Join(names(e.Destinations), ", "), AnnotationDestination), false
	}
	return Decision{}, true
}

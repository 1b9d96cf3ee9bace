package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// The label and the annotations that users set.
const (
	LabelInjection = "ampbridge.io/injection"

	AnnotationInject       = "ampbridge.io/inject"
	AnnotationContainer    = "ampbridge.io/container"
	AnnotationDestinations = "ampbridge.io/destinations"
	// AnnotationDestination names the one destination of a pod with mode identity or relay.
	AnnotationDestination = "ampbridge.io/destination"
	AnnotationMode        = "ampbridge.io/mode"
	AnnotationEnvironment = "ampbridge.io/environment"
	AnnotationDelivery    = "ampbridge.io/delivery"
	// AnnotationHA names the pod's HA pair, if the pair is not the pod's controller.
	AnnotationHA = "ampbridge.io/ha"
	// AnnotationInjected marks an injected pod.
	AnnotationInjected = "ampbridge.io/injected"
	// AnnotationAWSConfig contains the AWS configuration of a pod with mode identity.
	AnnotationAWSConfig = "ampbridge.io/aws-config"
	// AnnotationRoleARN is written to service accounts for information. It is never read as input.
	AnnotationRoleARN = "ampbridge.io/role-arn"
	// AnnotationIRSA is the annotation that amazon-eks-pod-identity-webhook reads.
	AnnotationIRSA = "eks.amazonaws.com/role-arn"
)

// Injection is the value of a namespace's label.
type Injection string

// The label values that the webhook is registered for. The API server does not call it for others.
const (
	InjectionEnabled   Injection = "enabled"
	InjectionAnnotated Injection = "annotated"
)

// Request holds everything that a decision depends on.
type Request struct {
	Namespace      string
	Injection      Injection
	ServiceAccount string
	// Account is true for a question about a service account, not about one pod: what its pods
	// can get if they ask for it.
	Account bool
	// Prometheus is true if the pod has a container that is Prometheus, or that the pod's owner
	// names as Prometheus.
	Prometheus bool
	// Resembles names a container that may be Prometheus, if no container surely is; empty if
	// there is none.
	Resembles                 string
	PodAnnotations            map[string]string
	ServiceAccountAnnotations map[string]string
	// Workload is the workload that the pod belongs to.
	Workload Workload
}

// Reason is a decision's reason in one word, for metrics and logs.
type Reason string

// The reasons of [Policy.Decide]. Package inject adds the reasons that it finds in the pod.
const (
	Granted            Reason = "Granted"
	NotLabelled        Reason = "NotLabelled"
	OptedOut           Reason = "OptedOut"
	NotPrometheus      Reason = "NotPrometheus"
	NotAsked           Reason = "NotAsked"
	Paused             Reason = "Paused"
	NotGranted         Reason = "NotGranted"
	InvalidAnnotation  Reason = "InvalidAnnotation"
	UnknownDestination Reason = "UnknownDestination"
	NotReplicas        Reason = "NotReplicas"
	// NoContainerNamed means that the mode needs named containers, and the pod names none.
	NoContainerNamed Reason = "NoContainerNamed"
	// AmbiguousDestination means that the mode needs one destination, and the pod could have several.
	AmbiguousDestination Reason = "AmbiguousDestination"
)

// Decision is Inject or Skip, with the reason. It is a value and not an error, because an error
// would mean that no decision was possible.
type Decision struct {
	Inject bool
	Reason Reason
	// Warning tells the person who creates the pod what is missing and how to fix it;
	// empty if the outcome is what the person asked for.
	Warning string
	// Entitlement is what to inject.
	Entitlement
}

// Entitlement is what the grants give to one service account.
type Entitlement struct {
	// Subject is the service account.
	Subject Subject
	// Mode is what a pod gets; empty if grants of all modes count.
	Mode Mode
	// Destinations are in the policy's order.
	Destinations []Destination
	Environment  Environment
	// HA is the group for AMP's deduplication; empty if there is none. In a decision it is the
	// group of the pod's own workload, see [Policy.Group].
	HA string
	// IRSA is the role for [AnnotationIRSA]; zero if there is none.
	IRSA ARN
}

// Entitled combines all grants that cover a service account. It collects the destinations of all
// of them. Environment is container only if every one of these grants has that value. For ha and
// irsa, the first grant that sets it counts. ok is false if no grant covers the service account.
func (p *Policy) Entitled(s Subject) (e Entitlement, ok bool) { return p.EntitledAs(s, "") }

// EntitledAs returns what [Policy.Entitled] returns, for pods of one mode: it ignores grants with
// another mode. An empty mode matches all grants.
func (p *Policy) EntitledAs(s Subject, m Mode) (e Entitlement, ok bool) {
	granted := map[string]bool{}
	e.Subject, e.Mode, e.Environment = s, m, EnvironmentContainer
	for _, g := range p.Grants {
		if !g.Covers(s) || m != "" && g.Mode != m {
			continue
		}
		for _, name := range g.Destinations {
			granted[name] = true
		}
		if g.Environment != EnvironmentContainer {
			e.Environment = EnvironmentSidecar
		}
		setDefault(&e.HA, g.HA)
	}
	for _, d := range p.Destinations {
		if granted[d.Name] {
			e.Destinations = append(e.Destinations, d)
		}
	}
	e.IRSA = p.irsa(s, e.Destinations)
	return e, len(granted) > 0
}

// irsa returns the role of the first grant that asks for the annotation and has a destination
// that s writes to.
func (p *Policy) irsa(s Subject, among []Destination) ARN {
	for _, g := range p.Grants {
		if !g.IRSA || !g.Covers(s) {
			continue
		}
		for _, d := range among {
			if slices.Contains(g.Destinations, d.Name) {
				return p.RoleFor(d, s)
			}
		}
	}
	return ARN{}
}

// Covers reports whether the grant applies to the subject.
func (g Grant) Covers(s Subject) bool {
	return matchAny(g.Namespaces, s.Namespace) && matchAny(g.ServiceAccounts, s.ServiceAccount)
}

// Decide follows the opt-in table of the documentation row by row, and then the grants.
func (p *Policy) Decide(r Request) Decision {
	if r.Account {
		r.Prometheus, r.PodAnnotations = true, map[string]string{AnnotationInject: "true"}
	}
	onPod, onServiceAccount := r.PodAnnotations[AnnotationInject], r.ServiceAccountAnnotations[AnnotationInject]
	for _, v := range []string{onPod, onServiceAccount} {
		if v != "" && v != "true" && v != "false" {
			return skip(InvalidAnnotation, `annotation %s is %q: write "true" or "false"`, AnnotationInject, v)
		}
	}
	misspelt := cmp.Or(misspelt(r.PodAnnotations), misspelt(r.ServiceAccountAnnotations))
	switch asked := onPod == "true" || onServiceAccount == "true"; {
	case r.Injection != InjectionEnabled && r.Injection != InjectionAnnotated:
		return skip(NotLabelled, "namespace %s does not carry the label %s=enabled or =annotated", r.Namespace, LabelInjection)
	case onPod == "false" || onServiceAccount == "false":
		return Decision{Reason: OptedOut}
	case !r.Prometheus && namesNothing(r.PodAnnotations):
		return skip(InvalidAnnotation, "annotation %s is empty: write NAME, or NAME,NAME, or remove it", AnnotationContainer)
	case !r.Prometheus && onPod == "true":
		return skip(
			NotPrometheus,
			"annotation %s asks for injection, but no container looks like Prometheus: name it with the annotation %s",
			AnnotationInject,
			AnnotationContainer,
		)
	case !r.Prometheus && r.Resembles != "" && (asked || r.Injection == InjectionEnabled):
		return skip(
			NotPrometheus,
			`container %.63q may be Prometheus, but nothing proves it: name it with the annotation %s, or write %s: "false"`,
			r.Resembles,
			AnnotationContainer,
			AnnotationInject,
		)
	case !r.Prometheus && misspelt != "":
		return skip(InvalidAnnotation, "%s", misspelt)
	case !r.Prometheus:
		return Decision{Reason: NotPrometheus}
	case r.Injection == InjectionAnnotated && !asked:
		return Decision{Reason: NotAsked, Warning: misspelt}
	case p.Paused:
		return skip(Paused, "injection is paused by the policy (paused: true); the pod starts without it")
	}
	subject := Subject{r.Namespace, r.ServiceAccount}
	entitlement, ok := p.Entitled(subject)
	if !ok {
		return skip(
			NotGranted,
			"no grant of the policy covers service account %s of namespace %s: the cluster admin adds one under grants",
			r.ServiceAccount,
			r.Namespace,
		)
	}
	if !r.Account {
		mode, refused := p.mode(subject, r.PodAnnotations)
		if refused != nil {
			return *refused
		}
		entitlement, _ = p.EntitledAs(subject, mode)
	}
	// A pod may ask for less than the grants allow, but not for more.
	switch asked := Environment(r.PodAnnotations[AnnotationEnvironment]); {
	case asked == "":
	case asked.problem() != "":
		return skip(InvalidAnnotation, "annotation %s: %s", AnnotationEnvironment, asked.problem())
	case asked == EnvironmentSidecar:
		entitlement.Environment = EnvironmentSidecar
	}
	if problem := narrowDelivery(&entitlement, Delivery(r.PodAnnotations[AnnotationDelivery])); problem != "" {
		return skip(InvalidAnnotation, "annotation %s: %s", AnnotationDelivery, problem)
	}
	for _, annotations := range []map[string]string{r.ServiceAccountAnnotations, r.PodAnnotations} {
		if decision, narrowed := narrow(&entitlement, annotations, subject); !narrowed {
			return decision
		}
	}
	switch entitlement.Mode {
	case ModeIdentity, ModeRelay:
		if decision, ok := forOneDestination(&entitlement, r); !ok {
			return decision
		}
	case ModePrometheus:
		if _, set := r.PodAnnotations[AnnotationDestination]; set {
			return skip(InvalidAnnotation, "annotation %s is for the modes identity and relay: write %s", AnnotationDestination,
				AnnotationDestinations)
		}
	}
	if decision, ok := p.group(&entitlement, r); !ok {
		return decision
	}
	entitlement.IRSA = p.irsa(subject, entitlement.Destinations)
	return Decision{Inject: true, Reason: Granted, Warning: misspelt, Entitlement: entitlement}
}

// narrowDelivery applies the delivery that a pod asks for to the destinations for which the
// policy does not set one. It returns the problem and the fix; empty if there is no problem.
func narrowDelivery(e *Entitlement, asked Delivery) string {
	if asked == "" || asked == DeliveryAuto {
		return ""
	}
	if problem := asked.problem(); problem != "" {
		return problem
	}
	destinations := slices.Clone(e.Destinations) // do not change the policy's own slice
	for i := range destinations {
		switch d := &destinations[i]; d.Delivery {
		case DeliveryAuto:
			d.Delivery = asked
		case asked:
		default:
			return fmt.Sprintf("%q differs from the policy's delivery for destination %s (%s): remove the annotation", asked, d.Name, d.Delivery)
		}
	}
	e.Destinations = destinations
	return ""
}

// narrow keeps only those granted destinations that an annotation names.
func narrow(e *Entitlement, annotations map[string]string, s Subject) (Decision, bool) {
	value, set := annotations[AnnotationDestinations]
	if !set {
		return Decision{}, true
	}
	var kept []Destination
	wanted := strings.Split(value, ",")
	for i := range wanted {
		wanted[i] = strings.TrimSpace(wanted[i])
		if !slices.ContainsFunc(e.Destinations, func(d Destination) bool { return d.Name == wanted[i] }) {
			return skip(
				UnknownDestination,
				"annotation %s names %q, which is not granted to %s: write some of %s",
				AnnotationDestinations,
				wanted[i],
				s,
				strings.Join(names(e.Destinations), ", "),
			), false
		}
	}
	for _, d := range e.Destinations {
		if slices.Contains(wanted, d.Name) {
			kept = append(kept, d)
		}
	}
	e.Destinations = kept
	return Decision{}, true
}

func skip(reason Reason, format string, args ...any) Decision {
	return Decision{Reason: reason, Warning: fmt.Sprintf(format, args...)}
}

func names(destinations []Destination) []string {
	list := make([]string, len(destinations))
	for i, d := range destinations {
		list[i] = d.Name
	}
	return list
}

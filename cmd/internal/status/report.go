package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/webhook/audit"
)

// Report describes a cluster at one moment.
type Report struct {
	Time    time.Time     `json:"time"`
	Cluster string        `json:"cluster"`
	Issuer  policy.Issuer `json:"issuer"`
	// PolicyFrom is a file or a ConfigMap.
	PolicyFrom   string        `json:"policyFrom"`
	Paused       bool          `json:"paused"`
	Destinations []Destination `json:"destinations"`
	Subjects     []Subject     `json:"subjects"`
	Pods         []Pod         `json:"pods"`
	// Unseen are the namespaces of grants in which the webhook does not see pods.
	Unseen []Namespace `json:"unseenNamespaces"`
	// Unavailable lists what could not be read, with the reason.
	Unavailable []string `json:"unavailable"`
}

// Namespace is a namespace without the label for injection, or with an unknown value of it.
type Namespace struct {
	Name   string `json:"name"`
	Exists bool   `json:"exists"`
	// Injection is the label's value; empty if there is none.
	Injection string `json:"injection,omitempty"`
}

// String returns the problem and the fix.
func (n Namespace) String() string {
	problem := fmt.Sprintf("it has no label %s", policy.LabelInjection)
	switch {
	case !n.Exists:
		return fmt.Sprintf("namespace %s: it does not exist", n.Name)
	case n.Injection != "":
		problem = fmt.Sprintf("its label %s is %q", policy.LabelInjection, n.Injection)
	}
	return fmt.Sprintf("namespace %s: %s, so the webhook does not see its pods: %s", n.Name, problem, kube.LabelCommand(n.Name, n.Injection))
}

// Destination is a destination of the policy.
type Destination struct {
	Name      string           `json:"name"`
	Workspace policy.Workspace `json:"workspace"`
	// Access is what its roles may do with the workspace.
	Access []policy.Access `json:"access"`
	// Roles has one role, or one per subject, depending on trust.roleScope.
	Roles []Role `json:"roles"`
}

// Role is a role that pods assume for a destination.
type Role struct {
	ARN policy.ARN `json:"arn"`
	// Subject is the only subject that assumes the role; empty if all of the destination do.
	Subject string    `json:"subject,omitempty"`
	State   RoleState `json:"state"`
	// Trusted are the subjects that may assume the role, if it was read.
	Trusted []string `json:"trusted"`
	// NotGranted are those of Trusted that no grant of the policy covers.
	NotGranted []string `json:"notGranted,omitempty"`
}

// RoleState is whether a role exists.
type RoleState string

// The states of roles.
const (
	// Present: the role exists.
	Present RoleState = "present"
	// Absent: the role does not exist.
	Absent RoleState = "absent"
	// NotManaged: sync does not manage the role, so it is not read.
	NotManaged RoleState = "not managed"
	// Unknown: the role could not be read.
	Unknown RoleState = "unknown"
)

// Subject is a service account that a grant covers.
type Subject struct {
	Namespace      string   `json:"namespace"`
	ServiceAccount string   `json:"serviceAccount"`
	Destinations   []string `json:"destinations"`
	// Decision is the reason of the decision about a pod that asks for injection.
	Decision policy.Reason `json:"decision"`
	// Shown is the value of the annotation ampbridge.io/role-arn.
	Shown string `json:"shownRole,omitempty"`
}

// Pod is a pod that could be injected.
type Pod struct {
	Namespace      string `json:"namespace"`
	Name           string `json:"name"`
	ServiceAccount string `json:"serviceAccount"`
	Phase          string `json:"phase"`
	Ready          bool   `json:"ready"`
	// Destinations are the destinations with which the pod was injected.
	Destinations []string `json:"destinations"`
	// Mode is the pod's mode; empty for Prometheus.
	Mode policy.Mode `json:"mode,omitempty"`
	// Delivery is the webhook's decision for each destination, and Why is why it is not
	// sigv4. Both are empty if an earlier version injected the pod.
	Delivery map[string]policy.Delivery `json:"delivery,omitempty"`
	Why      string                     `json:"why,omitempty"`
	// Versions is a message, with the fix, if sidecar and webhook have different versions.
	Versions string `json:"versions,omitempty"`
	// Finding, Reason and Text come from the auditor.
	Finding audit.Kind    `json:"finding"`
	Reason  policy.Reason `json:"reason,omitempty"`
	Text    string        `json:"text,omitempty"`
	// Sidecar maps destinations to their state; empty if the sidecar's status is unavailable.
	Sidecar map[string]Sidecar `json:"sidecar,omitempty"`
	// SidecarUnavailable is why the sidecar's status is unavailable.
	SidecarUnavailable string `json:"sidecarUnavailable,omitempty"`
}

// Sidecar is what a pod's sidecar reports about a destination.
type Sidecar struct {
	// Delivery is the current delivery, and Moved is why it differs from the webhook's
	// decision.
	Delivery sidecarconfig.Delivery `json:"delivery,omitempty"`
	Moved    string                 `json:"moved,omitempty"`
	// NotTaken is true if Prometheus has not loaded the latest session.
	NotTaken bool `json:"notTaken,omitempty"`
	// Refused is AMP's latest refusal, if it is at most 15 minutes old.
	Refused      string    `json:"refused,omitempty"`
	SessionValid bool      `json:"sessionValid"`
	Expires      time.Time `json:"expires,omitzero"`
	BlockServed  bool      `json:"blockServed"`
	GapSeconds   float64   `json:"gapSeconds"`
}

func (r *Report) addUnavailable(format string, args ...any) {
	r.Unavailable = append(r.Unavailable, fmt.Sprintf(format, args...))
}

// String returns the table, with a heading line, and the unavailable parts at the end.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster %s, issuer %s, policy from %s", r.Cluster, cmp.Or(string(r.Issuer), "unknown"), r.PolicyFrom)
	if r.Paused {
		b.WriteString(", PAUSED: nothing new is injected")
	}
	b.WriteString("\n\n")
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "DESTINATION\tROLE\tSUBJECT\tTRUST\tPOD\tDELIVERY\tSTATE")
	for _, row := range r.rows() {
		_, _ = fmt.Fprintln(w, strings.Join(row[:], "\t"))
	}
	_ = w.Flush() // writing to a builder never fails
	for _, n := range r.Unseen {
		fmt.Fprintf(&b, "\n%s", n)
	}
	for _, text := range r.drift() {
		fmt.Fprintf(&b, "\ndrift: %s", text)
	}
	for _, text := range r.Unavailable {
		fmt.Fprintf(&b, "\nunavailable: %s", text)
	}
	if b.String()[b.Len()-1] != '\n' {
		b.WriteString("\n")
	}
	return b.String()
}

// drift returns what the trust of roles has beyond the policy. What it lacks is in the table.
func (r Report) drift() (list []string) {
	for _, d := range r.Destinations {
		for _, role := range d.Roles {
			if len(role.NotGranted) > 0 {
				list = append(list, fmt.Sprintf("role %s trusts %s, which no grant covers: ampbridge plan shows what sync changes",
					role.name(), strings.Join(role.NotGranted, ", ")))
			}
		}
	}
	return list
}

// none is printed in a cell without a value.
const none = "-"

func (r Report) rows() [][7]string {
	var rows [][7]string
	shown := map[string]bool{}
	for _, d := range r.Destinations {
		before := len(rows)
		for _, s := range r.Subjects {
			if !slices.Contains(s.Destinations, d.Name) {
				continue
			}
			subject, role := s.Namespace+"/"+s.ServiceAccount, d.role(s)
			first := len(rows)
			for _, p := range r.Pods {
				if p.Namespace == s.Namespace && p.ServiceAccount == s.ServiceAccount {
					shown[p.Namespace+"/"+p.Name] = true
					rows = append(rows, [7]string{
						d.label(), role.name(), subject, role.trust(s), p.Name, p.delivery(d.Name), p.state(d.Name, r.Time),
					})
				}
			}
			if len(rows) == first {
				rows = append(rows, [7]string{d.label(), role.name(), subject, role.trust(s), none, none, "no pod"})
			}
		}
		if len(rows) == before {
			name, state := none, none
			for _, role := range d.Roles {
				name, state = role.name(), string(role.State)
			}
			rows = append(rows, [7]string{d.label(), name, none, state, none, none, "no service account"})
		}
	}
	for _, p := range r.Pods {
		if !shown[p.Namespace+"/"+p.Name] {
			rows = append(rows, [7]string{none, none, p.Namespace + "/" + p.ServiceAccount, none, p.Name, none, p.state("", r.Time)})
		}
	}
	return rows
}

// label returns the name, plus the access if that is not only write.
func (d Destination) label() string {
	if len(d.Access) == 0 || slices.Equal(d.Access, []policy.Access{policy.AccessWrite}) {
		return d.Name
	}
	words := make([]string, len(d.Access))
	for i, a := range d.Access {
		words[i] = string(a)
	}
	return d.Name + " (" + strings.Join(words, ", ") + ")"
}

// role returns the role that s assumes for d.
func (d Destination) role(s Subject) Role {
	i := slices.IndexFunc(d.Roles, func(r Role) bool { return r.Subject == "" || r.Subject == s.subject().String() })
	return d.Roles[i]
}

func (s Subject) subject() policy.Subject {
	return policy.Subject{Namespace: s.Namespace, ServiceAccount: s.ServiceAccount}
}

func (r Role) name() string { return r.ARN.Account + "/" + r.ARN.RoleName() }

func (r Role) trust(s Subject) string {
	switch {
	case r.State == Absent:
		return "no role"
	case r.State != Present:
		return string(r.State)
	case slices.Contains(r.Trusted, s.subject().String()):
		return "trusted"
	}
	return "not trusted"
}

// delivery returns the delivery that the sidecar reports, or else the webhook's decision.
func (p Pod) delivery(destination string) string {
	s := p.Sidecar[destination]
	text := cmp.Or(string(s.Delivery), string(p.Delivery[destination]), string(p.Mode), none)
	if s.Moved != "" {
		text += " (moved)"
	}
	return text
}

// state describes the pod for one destination in a few words.
func (p Pod) state(destination string, now time.Time) string {
	state := string(p.Finding)
	if p.Finding == audit.None {
		state = "not relevant"
	}
	switch p.Finding {
	case audit.Skipped, audit.Hanging, audit.Stuck:
		state += ": " + string(p.Reason)
	}
	if !p.Ready {
		state += ", " + strings.ToLower(cmp.Or(p.Phase, "unknown")) + ", not ready"
	}
	if !slices.Contains(p.Destinations, destination) {
		return state
	}
	s, found := p.Sidecar[destination]
	switch relayed := s.Delivery == sidecarconfig.DeliveryRelay || s.Delivery == sidecarconfig.DeliveryMoving; {
	case p.Mode == policy.ModeIdentity:
		state += ", the program signs itself"
	case !found:
		state += ", sidecar unavailable"
	case s.NotTaken:
		state += ", session not taken: Prometheus refuses its configuration"
	case relayed && !s.SessionValid && p.Mode == policy.ModeRelay:
		state += ", no session, samples wait in the program"
	case relayed && !s.SessionValid:
		state += ", no session, samples wait in Prometheus"
	case s.BlockServed && s.SessionValid:
		state += ", writing, session for " + s.Expires.Sub(now).Round(time.Minute).String()
	case s.SessionValid:
		state += ", session without block"
	default:
		state += fmt.Sprintf(", no session, gap %s", time.Duration(s.GapSeconds*float64(time.Second)).Round(time.Second))
	}
	if s.Refused != "" {
		state += ", " + s.Refused
	}
	if p.Versions != "" {
		state += ", " + p.Versions
	}
	return state
}

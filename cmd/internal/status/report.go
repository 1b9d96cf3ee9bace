package status

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/audit"
)

// Report is one look.
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
	// NotSeen is what could not be looked at, and why.
	NotSeen []string `json:"notSeen"`
}

// Destination is one of the policy's.
type Destination struct {
	Name      string           `json:"name"`
	Workspace policy.Workspace `json:"workspace"`
	// Roles are one, or one for each subject: see trust.roleScope.
	Roles []Role `json:"roles"`
}

// Role is one that pods assume for a destination.
type Role struct {
	ARN policy.ARN `json:"arn"`
	// Subject is whose alone it is; empty: all the destination's assume it.
	Subject string    `json:"subject,omitempty"`
	State   RoleState `json:"state"`
	// Trusted are the subjects that it lets in, where it was seen.
	Trusted []string `json:"trusted"`
}

// RoleState is how a role stands.
type RoleState string

// The states of roles.
const (
	// Present: it is there.
	Present RoleState = "present"
	// Absent: there is no such role.
	Absent RoleState = "absent"
	// NotManaged: somebody else keeps it, so it is not looked at.
	NotManaged RoleState = "not managed"
	// Unknown: it could not be looked at.
	Unknown RoleState = "unknown"
)

// Subject is a service account that a grant covers.
type Subject struct {
	Namespace      string   `json:"namespace"`
	ServiceAccount string   `json:"serviceAccount"`
	Destinations   []string `json:"destinations"`
	// Decision is the reason of the decision about a pod of it that asks.
	Decision policy.Reason `json:"decision"`
	// Shown is the annotation ampbridge.io/role-arn.
	Shown string `json:"shownRole,omitempty"`
}

// Pod is a pod that could be injected.
type Pod struct {
	Namespace      string `json:"namespace"`
	Name           string `json:"name"`
	ServiceAccount string `json:"serviceAccount"`
	Phase          string `json:"phase"`
	Ready          bool   `json:"ready"`
	// Destinations are those that it was injected with.
	Destinations []string `json:"destinations"`
	// Finding, Reason and Text are those of the auditor.
	Finding audit.Kind    `json:"finding"`
	Reason  policy.Reason `json:"reason,omitempty"`
	Text    string        `json:"text,omitempty"`
	// Sidecar is by destination; empty where it was not seen.
	Sidecar map[string]Sidecar `json:"sidecar,omitempty"`
	// SidecarNotSeen is why.
	SidecarNotSeen string `json:"sidecarNotSeen,omitempty"`
}

// Sidecar is what a pod's sidecar says of a destination, in its metrics.
type Sidecar struct {
	SessionValid bool      `json:"sessionValid"`
	Expires      time.Time `json:"expires,omitzero"`
	BlockServed  bool      `json:"blockServed"`
	GapSeconds   float64   `json:"gapSeconds"`
}

func (r *Report) notSeen(format string, args ...any) {
	r.NotSeen = append(r.NotSeen, fmt.Sprintf(format, args...))
}

// String is the table, with a line before it and what was not seen after it.
func (r Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster %s, issuer %s, policy from %s", r.Cluster, cmp.Or(string(r.Issuer), "unknown"), r.PolicyFrom)
	if r.Paused {
		b.WriteString(", PAUSED: nothing new is injected")
	}
	b.WriteString("\n\n")
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "DESTINATION\tROLE\tSUBJECT\tTRUST\tPOD\tSTATE")
	for _, row := range r.rows() {
		_, _ = fmt.Fprintln(w, strings.Join(row[:], "\t"))
	}
	_ = w.Flush() // a builder takes everything
	for _, text := range r.NotSeen {
		fmt.Fprintf(&b, "\nnot seen: %s", text)
	}
	if len(r.NotSeen) > 0 {
		b.WriteString("\n")
	}
	return b.String()
}

// none stands for what there is not.
const none = "-"

func (r Report) rows() [][6]string {
	var rows [][6]string
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
					rows = append(rows, [6]string{d.Name, role.name(), subject, role.trust(s), p.Name, p.state(d.Name, r.Time)})
				}
			}
			if len(rows) == first {
				rows = append(rows, [6]string{d.Name, role.name(), subject, role.trust(s), none, "no pod"})
			}
		}
		if len(rows) == before {
			name, state := none, none
			for _, role := range d.Roles {
				name, state = role.name(), string(role.State)
			}
			rows = append(rows, [6]string{d.Name, name, none, state, none, "no service account"})
		}
	}
	for _, p := range r.Pods {
		if !shown[p.Namespace+"/"+p.Name] {
			rows = append(rows, [6]string{none, none, p.Namespace + "/" + p.ServiceAccount, none, p.Name, p.state("", r.Time)})
		}
	}
	return rows
}

// role is the one that s, which may write to d, assumes.
func (d Destination) role(s Subject) Role {
	i := slices.IndexFunc(d.Roles, func(r Role) bool { return r.Subject == "" || r.Subject == s.of().String() })
	return d.Roles[i]
}

func (s Subject) of() policy.Subject {
	return policy.Subject{Namespace: s.Namespace, ServiceAccount: s.ServiceAccount}
}

func (r Role) name() string { return r.ARN.Account + "/" + r.ARN.RoleName() }

func (r Role) trust(s Subject) string {
	switch {
	case r.State == Absent:
		return "no role"
	case r.State != Present:
		return string(r.State)
	case slices.Contains(r.Trusted, s.of().String()):
		return "trusted"
	}
	return "not trusted"
}

// state is the pod's in a few words, as far as it concerns the destination.
func (p Pod) state(destination string, now time.Time) string {
	state := string(p.Finding)
	if p.Finding == audit.None {
		state = "not concerned"
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
	switch s, seen := p.Sidecar[destination]; {
	case !seen:
		state += ", sidecar not seen"
	case s.BlockServed && s.SessionValid:
		state += ", writing, session for " + s.Expires.Sub(now).Round(time.Minute).String()
	case s.SessionValid:
		state += ", session without block"
	default:
		state += fmt.Sprintf(", no session, gap %s", time.Duration(s.GapSeconds*float64(time.Second)).Round(time.Second))
	}
	return state
}

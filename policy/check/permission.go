package check

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// Answer is the result of an evaluation.
type Answer int

// The answers. IAM denies an action that no statement allows.
const (
	Silent Answer = iota
	Allows
	Denies
	// Depends means that the answer depends on a condition that cannot be evaluated.
	Depends
)

// Evaluate is IAM's evaluation of identity policies or of a boundary
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html).
// It returns [Depends] if a condition decides that cannot be evaluated here.
func Evaluate(documents []policy.Document, action, resource string) Answer {
	answer, _ := request{}.decide(documents, action, resource)
	return answer
}

// decide evaluates documents for a request. text names the statement that denies, or the condition
// that decides or does not hold; empty: there is none.
func (r request) decide(documents []policy.Document, action, resource string) (answer Answer, text string) {
	allows := false
	var mayAllow, mayDeny, notMet string
	for _, d := range documents {
		for i, s := range d.Statement {
			covered, variable := covers(s, action, resource)
			if covered == neverHolds {
				continue
			}
			result, condition := r.evaluate(s.Condition)
			if covered == unknown && result != neverHolds {
				result, condition = unknown, variable
			}
			denies := s.Effect == "Deny"
			switch {
			case result == holds && denies:
				return Denies, nameOf(s, i)
			case result == holds:
				allows = true
			case result == unknown && denies:
				mayDeny = fmt.Sprintf("%s denies it if %s", nameOf(s, i), condition)
			case result == neverHolds && !denies:
				notMet = fmt.Sprintf("%s allows it only if %s", nameOf(s, i), condition)
			case result == unknown:
				mayAllow = fmt.Sprintf("%s allows it if %s", nameOf(s, i), condition)
			}
		}
	}
	switch {
	case allows && mayDeny == "":
		return Allows, ""
	case allows:
		return Depends, mayDeny
	case mayAllow != "":
		return Depends, mayAllow
	}
	return Silent, notMet
}

// AllowsAll reports whether a document allows all the actions, or leaves them to a
// condition. If not, it returns the first action that the document does not allow.
func AllowsAll(d policy.Document, actions policy.Values, resource string) (missing string, ok bool) {
	for _, action := range actions {
		if answer := Evaluate([]policy.Document{d}, action, resource); answer != Allows && answer != Depends {
			return action, false
		}
	}
	return "", true
}

// actsOn reports whether the statement is about the action.
func actsOn(s policy.Statement, action string) bool {
	if len(s.NotAction) > 0 {
		return !matchAny(s.NotAction, action, true)
	}
	return matchAny(s.Action, action, true)
}

// variable is a policy variable, such as ${aws:PrincipalAccount}.
var variable = regexp.MustCompile(`\$\{[^}]*}`)

// covers reports whether the statement is about the action on the resource. It is unknown if a
// variable in the statement decides: text names that resource.
func covers(s policy.Statement, action, resource string) (covered truth, text string) {
	if !actsOn(s, action) {
		return neverHolds, ""
	}
	patterns, listed := s.Resource, true
	if len(s.NotResource) > 0 {
		patterns, listed = s.NotResource, false
	}
	if matchAny(patterns, resource, false) {
		return truthOf(listed), ""
	}
	for _, p := range patterns {
		if variable.MatchString(p) && match(variable.ReplaceAllString(p, "*"), resource) {
			return unknown, p + " is " + resource
		}
	}
	return truthOf(!listed), ""
}

func matchAny(patterns policy.Values, name string, fold bool) bool {
	for _, p := range patterns {
		if fold {
			p, name = strings.ToLower(p), strings.ToLower(name)
		}
		if match(p, name) {
			return true
		}
	}
	return false
}

// match reports whether a name matches a pattern with IAM's wildcards, * and ?.
func match(pattern, name string) bool {
	p, n := 0, 0
	star, resume := -1, 0 // the last * in the pattern, and where the name goes on after it
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, resume = p, n
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == name[n]):
			p, n = p+1, n+1
		case star >= 0: // let the * take one more byte
			resume++
			p, n = star+1, resume
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// NeededOf returns the permissions that the role of a destination needs.
func NeededOf(d policy.Destination) (actions policy.Values, resource string) {
	if !d.AssumeRole.IsZero() {
		return policy.Values{"sts:AssumeRole"}, d.AssumeRole.String()
	}
	return d.Actions(), d.Workspace.String()
}

// requestTo returns the known values of the call that the role of a destination makes.
func requestTo(d policy.Destination) request {
	r := request{"aws:securetransport": "true"}
	if d.AssumeRole.IsZero() {
		r["aws:requestedregion"] = d.Workspace.Region
	}
	return r
}

// evaluateAll returns the worst answer about the actions, the actions with that answer, and the
// condition that decides.
func (r request) evaluateAll(documents []policy.Document, actions policy.Values, resource string) (worst Answer, about, text string) {
	badness := func(a Answer) int { return slices.Index([]Answer{Allows, Depends, Silent, Denies}, a) }
	worst = Allows
	var those []string
	for _, action := range actions {
		switch answer, condition := r.decide(documents, action, resource); {
		case badness(answer) > badness(worst):
			worst, those, text = answer, []string{action}, condition
		case answer == worst:
			those = append(those, action)
		}
	}
	return worst, strings.Join(those, ", "), text
}

// provenBy returns the check that needs all or some of the actions of a destination's role.
func provenBy(d policy.Destination, actions string) ID {
	switch {
	case !d.AssumeRole.IsZero():
		return Session
	case actions == strings.Join(policy.AccessWrite.Actions(), ", "):
		return Write
	}
	return Read
}

// RolePolicy is a policy of a role: an inline one, or an attached one with its ARN.
type RolePolicy struct {
	Name     string
	Document policy.Document
}

// Permission judges all the policies of a role together. own is the name of the policy
// that sync writes; empty: sync does not manage the role.
func Permission(policies []RolePolicy, own string, d policy.Destination, fix Fix) Finding {
	actions, resource := NeededOf(d)
	var documents []policy.Document
	var further []string
	for _, p := range policies {
		documents = append(documents, p.Document)
		if p.Name != own {
			further = append(further, p.Name)
		}
	}
	answer, action, text := requestTo(d).evaluateAll(documents, actions, resource)
	switch answer {
	case Allows:
		switch {
		case len(further) > 0 && own != "":
			return Warned(
				Permissions,
				About{},
				NewFix("remove these policies from the role, or keep the role yourself as the destination's role"),
				"allows %s on %s; it also has policies that sync did not write and does not change: %s",
				action,
				resource,
				strings.Join(further, ", "),
			)
		case len(further) > 1:
			return Passed(Permissions, About{}, "allows %s on %s, by the policies %s together", action, resource, strings.Join(further, ", "))
		}
		return Passed(Permissions, About{}, "allows %s on %s", action, resource)
	case Depends:
		return Warned(
			Permissions,
			About{},
			NewFix("check the conditions in the role's policies"),
			"conditions decide whether it allows %s on %s: %s",
			action,
			resource,
			text,
		).until(provenBy(d, action), documents...)
	case Denies:
		return Failed(
			Permissions,
			About{},
			NewFix("remove the statement that denies it from the role's policies: it is not in ampbridge's permission document"),
			"a policy of the role denies %s on %s: %s",
			action,
			resource,
			denying(policies, d, action, resource),
		)
	}
	if text != "" {
		return Failed(Permissions, About{}, fix, "a condition is not met, so nothing in it allows %s on %s: %s", action, resource, text)
	}
	if others := resources(documents, strings.Split(action, ", ")[0]); len(others) > 0 {
		return Failed(Permissions, About{}, fix, "it allows %s on %s, and not on %s", action, strings.Join(others, ", "), resource).
			Comparing("resource", resource, others...)
	}
	return Failed(Permissions, About{}, fix, "nothing in it allows %s on %s", action, resource)
}

// denying names the policies that deny the first of the actions, and the statement.
func denying(policies []RolePolicy, d policy.Destination, actions, resource string) string {
	action, _, _ := strings.Cut(actions, ", ")
	var names []string
	for _, p := range policies {
		if answer, statement := requestTo(d).decide([]policy.Document{p.Document}, action, resource); answer == Denies {
			names = append(names, fmt.Sprintf("%s of %s", statement, p.Name))
		}
	}
	return strings.Join(names, ", ")
}

// resources returns the resources on which the documents allow the action.
func resources(documents []policy.Document, action string) []string {
	var list []string
	for _, d := range documents {
		for _, s := range d.Statement {
			if s.Effect == "Allow" && matchAny(s.Action, action, true) {
				list = append(list, s.Resource...)
			}
		}
	}
	return list
}

// BoundaryState is a role's permissions boundary.
type BoundaryState struct {
	// ARN is empty if the role has none.
	ARN string
	// Document is the content of that policy; nil: it could not be read.
	Document *policy.Document
	// Problem is why it could not be read.
	Problem string
}

// Bounds judges a role's permissions boundary. wanted is the boundary that the policy
// requires; empty: none. bootstrap is the fix for a boundary of an older bootstrap, which
// allows no queries.
func Bounds(b BoundaryState, wanted string, d policy.Destination, fix, bootstrap Fix) Finding {
	actions, resource := NeededOf(d)
	switch {
	case wanted != "" && b.ARN == "":
		return Failed(Boundary, About{}, fix, "the role has none, and the policy requires %s", wanted)
	case wanted != "" && b.ARN != wanted:
		return Failed(Boundary, About{}, fix, "the role's is %s, and the policy requires %s", b.ARN,
			wanted).Comparing("boundary", wanted, b.ARN)
	case b.ARN == "":
		return Passed(Boundary, About{}, "the role has none, and the policy requires none")
	case b.Document == nil:
		return Skipped(Boundary, About{}, "%s cannot be read: %s", b.ARN, b.Problem)
	}
	answer, action, text := requestTo(d).evaluateAll([]policy.Document{*b.Document}, actions, resource)
	switch answer {
	case Allows:
		return Passed(Boundary, About{}, "%s allows %s on %s", b.ARN, action, resource)
	case Depends:
		return Warned(
			Boundary,
			About{},
			NewFix("check the conditions in the boundary"),
			"conditions in %s decide whether %s is allowed on %s: %s",
			b.ARN,
			action,
			resource,
			text,
		).until(provenBy(d, action), *b.Document)
	}
	message := fmt.Sprintf("%s does not allow %s on %s, whatever the permission document allows", b.ARN, action, resource)
	if answer == Denies {
		message += ": " + text + " denies it"
	}
	if answer == Silent && wanted != "" && action == strings.Join(policy.AccessQuery.Actions(), ", ") {
		return Failed(Boundary, About{}, bootstrap, "%s", message)
	}
	widenFix := NewFix(
		"let the boundary allow " + action + " on " + resource + ": it is a managed policy that the account's administrators keep",
	)
	if answer == Silent {
		// An administrator wrote the statement that denies, so the fix has no command.
		widenFix.Commands = []Command{
			{
				"aws",
				"iam",
				"create-policy-version",
				"--policy-arn",
				b.ARN,
				"--set-as-default",
				"--policy-document",
				widen(*b.Document, strings.Split(action, ", "), resource),
			},
		}
	}
	return Failed(Boundary, About{}, widenFix, "%s", message)
}

// widen returns the document with one more statement.
func widen(d policy.Document, actions policy.Values, resource string) string {
	d.Statement = append(
		slices.Clone(d.Statement),
		policy.Statement{Effect: "Allow", Action: actions, Resource: policy.Values{resource}},
	)
	return d.String()
}

package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// Answer is what documents say of an action.
type Answer int

// What a document can say. Silence denies.
const (
	Silent Answer = iota
	Allows
	Denies
	// Depends: a condition decides, which is not evaluated here.
	Depends
)

// Evaluate is IAM's evaluation of identity policies or of a boundary, without
// conditions (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html).
// A statement with conditions that would decide makes it [Depends].
func Evaluate(documents []policy.Document, action, resource string) Answer {
	said := Silent
	for _, d := range documents {
		for _, s := range d.Statement {
			if !covers(s, action, resource) {
				continue
			}
			switch {
			case s.Effect == "Deny" && len(s.Condition) == 0:
				return Denies
			case len(s.Condition) > 0:
				if said != Allows || s.Effect == "Deny" {
					said = Depends
				}
			case said == Silent:
				said = Allows
			}
		}
	}
	return said
}

func covers(s policy.Statement, action, resource string) bool {
	if len(s.NotAction) > 0 {
		if matchAny(s.NotAction, action, true) {
			return false
		}
	} else if !matchAny(s.Action, action, true) {
		return false
	}
	if len(s.NotResource) > 0 {
		return !matchAny(s.NotResource, resource, false)
	}
	return matchAny(s.Resource, resource, false)
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

// match knows IAM's two wildcards: * and ?.
func match(pattern, name string) bool {
	for i := 0; i < len(pattern); i++ {
		switch {
		case pattern[i] == '*':
			for rest := len(name); rest >= i; rest-- {
				if match(pattern[i+1:], name[rest:]) {
					return true
				}
			}
			return false
		case i >= len(name), pattern[i] != '?' && pattern[i] != name[i]:
			return false
		}
	}
	return len(pattern) == len(name)
}

// NeededOf is what the role of a destination has to be allowed.
func NeededOf(d policy.Destination) (action, resource string) {
	if !d.AssumeRole.IsZero() {
		return "sts:AssumeRole", d.AssumeRole.String()
	}
	return "aps:RemoteWrite", d.Workspace.String()
}

// Permission judges all the policies of a role together.
func Permission(documents []policy.Document, d policy.Destination, mend Fix) Finding {
	action, resource := NeededOf(d)
	switch Evaluate(documents, action, resource) {
	case Allows:
		return Passed(Permissions, About{}, "allows %s on %s", action, resource)
	case Depends:
		return Warned(Permissions, About{}, NewFix("look at the conditions in the role's policies"), "conditions decide whether it allows %s on %s", action, resource)
	case Denies:
		return Failed(Permissions, About{}, NewFix("take the statement that denies it out of the role's policies: somebody put it there beside the permission document"), "a policy of the role denies %s on %s", action, resource)
	}
	if others := resources(documents, action); len(others) > 0 {
		return Failed(Permissions, About{}, mend, "it allows %s on %s, and not on %s", action, strings.Join(others, ", "), resource)
	}
	return Failed(Permissions, About{}, mend, "nothing in it allows %s on %s", action, resource)
}

// resources are those on which the action is allowed.
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

// BoundarySeen is a role's permissions boundary.
type BoundarySeen struct {
	// ARN is empty where the role has none.
	ARN string
	// Document is what that policy says; nil where it could not be read.
	Document *policy.Document
	// Problem is why.
	Problem string
}

// Bounds judges a role's permissions boundary. wanted is the policy's; empty:
// any will do, none too.
func Bounds(b BoundarySeen, wanted string, d policy.Destination, mend Fix) Finding {
	action, resource := NeededOf(d)
	switch {
	case wanted != "" && b.ARN == "":
		return Failed(Boundary, About{}, mend, "the role has none, and the policy wants %s", wanted)
	case wanted != "" && b.ARN != wanted:
		return Failed(Boundary, About{}, mend, "the role's is %s, and the policy wants %s", b.ARN, wanted)
	case b.ARN == "":
		return Passed(Boundary, About{}, "the role has none, and the policy asks for none")
	case b.Document == nil:
		return Skipped(Boundary, About{}, "%s cannot be read: %s", b.ARN, b.Problem)
	}
	switch Evaluate([]policy.Document{*b.Document}, action, resource) {
	case Allows:
		return Passed(Boundary, About{}, "%s allows %s on %s", b.ARN, action, resource)
	case Depends:
		return Warned(Boundary, About{}, NewFix("look at the conditions in the boundary"), "conditions in %s decide whether %s is allowed on %s", b.ARN, action, resource)
	}
	says := fmt.Sprintf("%s does not allow %s on %s, whatever the permission document says", b.ARN, action, resource)
	do := NewFix("let the boundary allow " + action + " on " + resource + ": it is a managed policy that the account's administrators keep")
	if Evaluate([]policy.Document{*b.Document}, action, resource) == Silent {
		// Where it denies, that was somebody's will: no command undoes it.
		do.Commands = []Command{{"aws", "iam", "create-policy-version", "--policy-arn", b.ARN, "--set-as-default", "--policy-document", widened(*b.Document, action, resource)}}
	}
	return Failed(Boundary, About{}, do, "%s", says)
}

// widened is the document with one statement more.
func widened(d policy.Document, action, resource string) string {
	d.Statement = append(slices.Clone(d.Statement), policy.Statement{Effect: "Allow", Action: policy.Values{action}, Resource: policy.Values{resource}})
	return d.String()
}

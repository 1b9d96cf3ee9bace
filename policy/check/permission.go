package check

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// Answer is the result of an evaluation.
type Answer int

// The answers. Silence denies.
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
	answer := Silent
	for _, d := range documents {
		for _, s := range d.Statement {
			if !covers(s, action, resource) {
				continue
			}
			switch {
			case s.Effect == "Deny" && len(s.Condition) == 0:
				return Denies
			case len(s.Condition) > 0:
				if answer != Allows || s.Effect == "Deny" {
					answer = Depends
				}
			case answer == Silent:
				answer = Allows
			}
		}
	}
	return answer
}

// AllowsAll reports whether a document allows all the actions, or leaves them to a
// condition. If not, it returns the first that it does not allow.
func AllowsAll(d policy.Document, actions policy.Values, resource string) (missing string, ok bool) {
	for _, action := range actions {
		if answer := Evaluate([]policy.Document{d}, action, resource); answer != Allows && answer != Depends {
			return action, false
		}
	}
	return "", true
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

// NeededOf returns the permissions that the role of a destination needs.
func NeededOf(d policy.Destination) (actions policy.Values, resource string) {
	if !d.AssumeRole.IsZero() {
		return policy.Values{"sts:AssumeRole"}, d.AssumeRole.String()
	}
	return d.Actions(), d.Workspace.String()
}

// evaluateAll returns the worst answer about the actions, and those that it is about.
func evaluateAll(documents []policy.Document, actions policy.Values, resource string) (worst Answer, about string) {
	badness := func(a Answer) int { return slices.Index([]Answer{Allows, Depends, Silent, Denies}, a) }
	worst = Allows
	var those []string
	for _, action := range actions {
		switch answer := Evaluate(documents, action, resource); {
		case badness(answer) > badness(worst):
			worst, those = answer, []string{action}
		case answer == worst:
			those = append(those, action)
		}
	}
	return worst, strings.Join(those, ", ")
}

// RolePolicy is a policy of a role: an inline one, or an attached one with its ARN.
type RolePolicy struct {
	Name     string
	Document policy.Document
}

// Permission judges all the policies of a role together. own is the name of the one
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
	answer, action := evaluateAll(documents, actions, resource)
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
			"conditions decide whether it allows %s on %s",
			action,
			resource,
		)
	case Denies:
		return Failed(
			Permissions,
			About{},
			NewFix("remove the statement that denies it from the role's policies: it is not in ampbridge's permission document"),
			"a policy of the role denies %s on %s",
			action,
			resource,
		)
	}
	if others := resources(documents, strings.Split(action, ", ")[0]); len(others) > 0 {
		return Failed(Permissions, About{}, fix, "it allows %s on %s, and not on %s", action, strings.Join(others, ", "), resource).
			Comparing("resource", resource, others...)
	}
	return Failed(Permissions, About{}, fix, "nothing in it allows %s on %s", action, resource)
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

// BoundaryState is a role's permissions boundary.
type BoundaryState struct {
	// ARN is empty if the role has none.
	ARN string
	// Document is the content of that policy; nil: it could not be read.
	Document *policy.Document
	// Problem is why it could not be read.
	Problem string
}

// Bounds judges a role's permissions boundary. wanted is the one that the
// policy requires; empty: none. bootstrap is the fix for one that an earlier bootstrap
// made, before the destination could be queried.
func Bounds(b BoundaryState, wanted string, d policy.Destination, fix, bootstrap Fix) Finding {
	actions, resource := NeededOf(d)
	switch {
	case wanted != "" && b.ARN == "":
		return Failed(Boundary, About{}, fix, "the role has none, and the policy requires %s", wanted)
	case wanted != "" && b.ARN != wanted:
		return Failed(Boundary, About{}, fix, "the role's is %s, and the policy requires %s", b.ARN, wanted).Comparing("boundary", wanted, b.ARN)
	case b.ARN == "":
		return Passed(Boundary, About{}, "the role has none, and the policy requires none")
	case b.Document == nil:
		return Skipped(Boundary, About{}, "%s cannot be read: %s", b.ARN, b.Problem)
	}
	answer, action := evaluateAll([]policy.Document{*b.Document}, actions, resource)
	switch answer {
	case Allows:
		return Passed(Boundary, About{}, "%s allows %s on %s", b.ARN, action, resource)
	case Depends:
		return Warned(
			Boundary,
			About{},
			NewFix("check the conditions in the boundary"),
			"conditions in %s decide whether %s is allowed on %s",
			b.ARN,
			action,
			resource,
		)
	}
	message := fmt.Sprintf("%s does not allow %s on %s, whatever the permission document allows", b.ARN, action, resource)
	if answer == Silent && wanted != "" && action == strings.Join(policy.AccessQuery.Actions(), ", ") {
		return Failed(Boundary, About{}, bootstrap, "%s", message)
	}
	widenFix := NewFix(
		"let the boundary allow " + action + " on " + resource + ": it is a managed policy that the account's administrators keep",
	)
	if answer == Silent {
		// A statement that denies was written on purpose: no command removes it.
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

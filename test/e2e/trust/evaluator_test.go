package trust_test

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// An evaluator of IAM policies that shares no code with the code that writes them, nor with the double. It
// reads documents as plain JSON. Anything unknown is an error and not a guess.

type document []map[string]any

func parse(text string) (document, error) {
	var d struct{ Statement []map[string]any }
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		return nil, err
	}
	for _, s := range d.Statement {
		for element := range s {
			if !slices.Contains([]string{"Sid", "Effect", "Principal", "Action", "NotAction", "Resource", "Condition"}, element) {
				return nil, fmt.Errorf("an element that this evaluator does not know: %s", element)
			}
		}
	}
	return d.Statement, nil
}

// ask is a request: the action, the resource (for an identity policy), the caller (for a trust document), and
// the condition keys in lower case.
type ask struct {
	action, resource, federated string
	keys                        map[string]string
}

func (d document) allows(a ask) (bool, error) {
	allowed := false
	for _, s := range d {
		applies, err := covers(s, a)
		if err != nil {
			return false, err
		}
		if applies && s["Effect"] != "Allow" {
			return false, nil
		}
		allowed = allowed || applies
	}
	return allowed, nil
}

func covers(s map[string]any, a ask) (bool, error) {
	if a.federated != "" {
		principal, ok := s["Principal"].(map[string]any)
		if !ok || len(principal) != 1 {
			return s["Principal"] != nil, nil // "*", or more than one kind: everybody
		}
		if !slices.Contains(list(principal["Federated"]), a.federated) {
			return false, nil
		}
	} else if !anyLike(list(s["Resource"]), a.resource, false) {
		return false, nil
	}
	_, negated := s["NotAction"]
	actions := append(list(s["Action"]), list(s["NotAction"])...)
	if anyLike(actions, a.action, true) == negated {
		return false, nil
	}
	conditions, _ := s["Condition"].(map[string]any)
	for operator, keys := range conditions {
		tests, ok := keys.(map[string]any)
		if !ok {
			return false, fmt.Errorf("condition %s: %v", operator, keys)
		}
		for key, want := range tests {
			have, present := a.keys[strings.ToLower(key)]
			var holds bool
			switch operator {
			case "StringEquals":
				holds = present && slices.Contains(list(want), have)
			case "StringNotEquals":
				holds = !present || !slices.Contains(list(want), have)
			case "StringEqualsIfExists":
				holds = !present || slices.Contains(list(want), have)
			case "ForAnyValue:StringNotEqualsIgnoreCase":
				// Here a key has at most one value.
				holds = present && !slices.ContainsFunc(list(want), func(w string) bool { return strings.EqualFold(w, have) })
			case "StringLike":
				holds = present && anyLike(list(want), have, false)
			default:
				return false, fmt.Errorf("an operator that this evaluator does not know: %s", operator)
			}
			if !holds {
				return false, nil
			}
		}
	}
	return true, nil
}

func list(v any) []string {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		var texts []string
		for _, item := range v {
			texts = append(texts, fmt.Sprint(item))
		}
		return texts
	}
	return nil
}

func anyLike(patterns []string, text string, fold bool) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		if !strings.ContainsAny(pattern, "*?") {
			return pattern == text || fold && strings.EqualFold(pattern, text)
		}
		expression := strings.NewReplacer(`\*`, `.*`, `\?`, `.`).Replace(regexp.QuoteMeta(pattern))
		if fold {
			expression = "(?i)" + expression
		}
		return regexp.MustCompile("^(?:" + expression + ")$").MatchString(text)
	})
}

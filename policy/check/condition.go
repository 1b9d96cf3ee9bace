package check

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// request has the known values of a request to AWS, by condition key. The keys are in lower
// case, because IAM ignores their case.
type request map[string]string

// truth is the result of a condition.
type truth int

const (
	// unknown means that the value of the key, or the operator, is not known.
	unknown truth = iota
	holds
	neverHolds
)

// evaluate evaluates all conditions of a statement. text names the condition that decides: one
// that does not hold, or else one that is unknown.
func (r request) evaluate(conditions map[string]map[string]policy.Values) (result truth, text string) {
	result = holds
	for _, c := range sorted(conditions) {
		one := r.condition(c.operator, c.key, c.values)
		named := fmt.Sprintf("%s of %s is %s", c.operator, c.key, strings.Join(c.values, ", "))
		switch {
		case one == neverHolds:
			return neverHolds, named
		case one == unknown && result == holds:
			result, text = unknown, named
		}
	}
	return result, text
}

// condition is one key of an operator.
type condition struct {
	operator, key string
	values        policy.Values
}

// sorted returns the conditions of a statement in a fixed order.
func sorted(conditions map[string]map[string]policy.Values) (list []condition) {
	for _, operator := range slices.Sorted(maps.Keys(conditions)) {
		for _, key := range slices.Sorted(maps.Keys(conditions[operator])) {
			list = append(list, condition{operator, key, conditions[operator][key]})
		}
	}
	return list
}

// operatorOf returns an operator in lower case without its prefix for sets and its suffix
// IfExists.
func operatorOf(operator string) string {
	operator = strings.ToLower(operator)
	operator = strings.TrimPrefix(strings.TrimPrefix(operator, "foranyvalue:"), "forallvalues:")
	return strings.TrimSuffix(operator, "ifexists")
}

// condition evaluates one operator of one key.
func (r request) condition(operator, key string, values policy.Values) truth {
	base := operatorOf(operator)
	key = strings.ToLower(key)
	have, known := r[key]
	compare, negated := comparison(base)
	switch {
	case !known && isClaim(key):
		// The request has no such claim of this issuer, and none of another issuer.
		return truthOf(negated || strings.HasSuffix(strings.ToLower(operator), "ifexists"))
	case base == "null" && known:
		return truthOf(!slices.Contains(values, "true"))
	case !known, compare == nil, slices.ContainsFunc(values, func(v string) bool { return strings.Contains(v, "${") }):
		return unknown
	}
	return truthOf(slices.ContainsFunc(values, func(v string) bool { return compare(v, have) }) != negated)
}

// isClaim reports whether the key is a claim of an issuer: its service is a host name.
func isClaim(key string) bool {
	service, _, _ := strings.Cut(key, ":")
	return strings.Contains(service, ".")
}

func truthOf(ok bool) truth {
	if ok {
		return holds
	}
	return neverHolds
}

// comparison returns the function that compares a value of the document with the request's;
// nil: the operator is not known. A negated operator holds if no value matches.
func comparison(operator string) (matches func(want, have string) bool, negated bool) {
	kind, negated := operator, false
	for _, not := range []string{"stringnot", "arnnot", "datenot"} {
		if rest, ok := strings.CutPrefix(operator, not); ok {
			kind, negated = strings.TrimSuffix(not, "not")+rest, true
		}
	}
	switch kind {
	case "stringequals":
		matches = func(want, have string) bool { return want == have }
	case "stringequalsignorecase", "bool":
		matches = strings.EqualFold
	case "stringlike", "arnlike", "arnequals":
		matches = match
	case "dateequals":
		matches = dates(func(order int) bool { return order == 0 })
	case "datelessthan":
		matches = dates(func(order int) bool { return order < 0 })
	case "datelessthanequals":
		matches = dates(func(order int) bool { return order <= 0 })
	case "dategreaterthan":
		matches = dates(func(order int) bool { return order > 0 })
	case "dategreaterthanequals":
		matches = dates(func(order int) bool { return order >= 0 })
	}
	return matches, negated
}

// dates compares two times. accepted judges the order of the request's and the document's.
func dates(accepted func(order int) bool) func(want, have string) bool {
	return func(want, have string) bool {
		w, err := parseDate(want)
		h, second := parseDate(have)
		return err == nil && second == nil && accepted(h.Compare(w))
	}
}

// parseDate reads the formats of ISO 8601 that IAM documents use.
func parseDate(text string) (t time.Time, err error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00", time.DateOnly} {
		if t, err = time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return t, err
}

package check

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
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

// evaluate evaluates all conditions of a statement. text names the condition that decides. That
// is a condition that does not hold. If there is none, it is one that is unknown.
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
	have, known := r[strings.ToLower(key)]
	compare, negated := comparison(base)
	readable := func(v string) bool { return !strings.Contains(v, "${") }
	if strings.HasPrefix(base, "date") {
		readable = func(v string) bool { _, err := parseDate(v); return err == nil }
	}
	switch {
	case !known && !r.lacks(key):
		return unknown
	case base == "null":
		return truthOf(slices.Contains(values, "true") != known)
	case !known:
		return withoutKey(strings.ToLower(operator), negated)
	case compare == nil, slices.ContainsFunc(values, func(v string) bool { return !readable(v) }):
		return unknown
	}
	return truthOf(slices.ContainsFunc(values, func(v string) bool { return compare(v, have) }) != negated)
}

// withoutKey returns the result of an operator, in lower case, for a request without the key.
func withoutKey(operator string, negated bool) truth {
	ifExists := strings.HasSuffix(operator, "ifexists")
	switch {
	case strings.HasPrefix(operator, "foranyvalue:") && ifExists:
		return unknown // AWS does not document which of the two counts
	case strings.HasPrefix(operator, "foranyvalue:"):
		return neverHolds
	case strings.HasPrefix(operator, "forallvalues:"), ifExists:
		return holds
	}
	return truthOf(negated)
}

// lacks reports whether it is known that the request has no such key. A request with claims of
// one issuer has no other claim, and none of another issuer. A request without claims is that
// of a session: AWS gives it some claims of the session's token.
func (r request) lacks(key string) bool {
	return isClaim(key) && slices.ContainsFunc(slices.Collect(maps.Keys(r)), isClaim)
}

// ofCaller are the keys, in lower case, whose values differ between this machine and a pod: they
// depend on the network, the program or the name of the session.
var ofCaller = []string{
	"aws:sourceip", "aws:vpcsourceip", "aws:sourcevpc", "aws:sourcevpcarn", "aws:sourcevpce", "aws:vpceaccount", "aws:vpceorgid",
	"aws:vpceorgpaths", "aws:useragent", "aws:referer", "aws:userid", "sts:rolesessionname",
}

// ofThisMachine reports whether a condition of the documents can hold for this machine and not for
// a pod, or the other way round.
func ofThisMachine(documents ...policy.Document) bool {
	for _, d := range documents {
		for _, s := range d.Statement {
			if slices.ContainsFunc(sorted(s.Condition), func(c condition) bool {
				return slices.Contains(ofCaller, strings.ToLower(c.key))
			}) {
				return true
			}
		}
	}
	return false
}

// isClaim reports whether the key is a claim of an issuer. Then its service is a host name.
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

// comparison returns the function that compares the document's value with the request's value;
// nil: the operator is not known. A negated operator holds if no value matches.
func comparison(operator string) (matches func(want, have string) bool, negated bool) {
	kind, negated := strings.Replace(operator, "not", "", 1), strings.Contains(operator, "not")
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

// dates compares two times. accepted gets the order of the request's time and the document's time.
func dates(accepted func(order int) bool) func(want, have string) bool {
	return func(want, have string) bool {
		w, err := parseDate(want)
		h, second := parseDate(have)
		return err == nil && second == nil && accepted(h.Compare(w))
	}
}

// parseDate reads the formats that IAM documents use: those of ISO 8601, and the seconds since 1970.
func parseDate(text string) (t time.Time, err error) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04Z07:00", time.DateOnly, "2006-01", "2006"} {
		if t, err = time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	seconds, err := strconv.ParseInt(text, 10, 64)
	return time.Unix(seconds, 0), err
}

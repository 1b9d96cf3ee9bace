package awstest

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// operator is a parsed condition operator such as ForAllValues:StringLikeIfExists.
type operator struct {
	set      string // "", ForAllValues, ForAnyValue
	ifExists bool
	null     bool
	comparison
}

// comparison is an operator without its qualifiers. A negated one is true if
// no expected value matches.
type comparison struct {
	negated bool
	matches func(want, have string) bool
}

var comparisons = map[string]comparison{
	"StringEquals":              {false, equal},
	"StringNotEquals":           {true, equal},
	"StringEqualsIgnoreCase":    {false, strings.EqualFold},
	"StringNotEqualsIgnoreCase": {true, strings.EqualFold},
	"StringLike":                {false, glob},
	"StringNotLike":             {true, glob},
	"ArnEquals":                 {false, arnLike},
	"ArnNotEquals":              {true, arnLike},
	"ArnLike":                   {false, arnLike},
	"ArnNotLike":                {true, arnLike},
	"Bool":                      {false, strings.EqualFold},
	"NumericEquals":             {false, ordered(number, 0)},
	"NumericNotEquals":          {true, ordered(number, 0)},
	"NumericLessThan":           {false, ordered(number, -1)},
	"NumericLessThanEquals":     {false, ordered(number, -1, 0)},
	"NumericGreaterThan":        {false, ordered(number, 1)},
	"NumericGreaterThanEquals":  {false, ordered(number, 1, 0)},
	"DateEquals":                {false, ordered(date, 0)},
	"DateNotEquals":             {true, ordered(date, 0)},
	"DateLessThan":              {false, ordered(date, -1)},
	"DateLessThanEquals":        {false, ordered(date, -1, 0)},
	"DateGreaterThan":           {false, ordered(date, 1)},
	"DateGreaterThanEquals":     {false, ordered(date, 1, 0)},
}

func equal(want, have string) bool { return want == have }

// ordered compares the request's value with the expected one. It accepts the given
// results of cmp.Compare.
func ordered(parse func(string) (float64, bool), accepted ...int) func(want, have string) bool {
	return func(want, have string) bool {
		w, wok := parse(want)
		h, hok := parse(have)
		return wok && hok && slices.Contains(accepted, cmp.Compare(h, w))
	}
}

func number(text string) (float64, bool) {
	n, err := strconv.ParseFloat(text, 64)
	return n, err == nil
}

// date parses ISO 8601 or seconds since the epoch.
func date(text string) (float64, bool) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return float64(t.Unix()), true
	}
	return number(text)
}

func parseOperator(name string) (o operator, ok bool) {
	base := name
	if set, rest, ok := strings.Cut(name, ":"); ok {
		if set != "ForAllValues" && set != "ForAnyValue" {
			return o, false
		}
		o.set, base = set, rest
	}
	if base == "Null" {
		o.null = true
		return o, true
	}
	base, o.ifExists = strings.CutSuffix(base, "IfExists")
	o.comparison, ok = comparisons[base]
	return o, ok
}

// conditionsHold reports whether every key of every operator is satisfied.
func (s statement) conditionsHold(context conditionContext, expand expander) bool {
	for name, keys := range s.Condition {
		o, ok := parseOperator(name)
		if !ok {
			return false // cannot happen: refused when the document was stored
		}
		for key, want := range keys {
			if !o.holds(want, context[strings.ToLower(key)], expand) {
				return false
			}
		}
	}
	return true
}

// holds reports whether one key is satisfied. have are the request's values; none if the key is absent.
func (o operator) holds(want, have []string, expand expander) bool {
	if o.null {
		return slices.Contains(want, strconv.FormatBool(len(have) == 0))
	}
	one := func(value string) bool {
		matched := slices.ContainsFunc(want, func(w string) bool {
			w, ok := expand(w)
			return ok && o.matches(w, value)
		})
		return matched != o.negated
	}
	switch {
	case o.set == "ForAllValues":
		// The result is true if the key is absent, as in AWS. So ForAllValues must not be used in trust documents.
		return !slices.ContainsFunc(have, func(v string) bool { return !one(v) })
	case len(have) == 0:
		return o.ifExists || o.negated && o.set == ""
	default:
		return slices.ContainsFunc(have, one)
	}
}

package awstest

import (
	"regexp"
	"slices"
	"strings"
)

// The evaluation of policies, as the IAM user guide describes it ("Policy
// evaluation logic", "IAM JSON policy elements: Condition operators"). It shares
// no code with the packages under test that build documents.

// effect is the result of a set of documents for a request.
type effect int

const (
	silent effect = iota // no statement applies: an implicit deny
	allow
	deny
)

// conditionContext holds the condition keys of a request in lower case, because their names
// are not case-sensitive. A key without values is absent.
type conditionContext map[string][]string

func (c conditionContext) set(key string, values ...string) {
	if len(values) > 0 {
		c[strings.ToLower(key)] = values
	}
}

// access is a request that identity policies allow or deny.
type access struct {
	action   string
	resource string
	context  conditionContext
}

// evaluate evaluates an access with identity policies or boundaries.
func evaluate(documents []document, a access) effect {
	result := silent
	for _, d := range documents {
		for _, s := range d.Statement {
			if !s.coversAction(a.action) || !s.coversResource(a.resource, d.variables(a.context)) ||
				!s.conditionsHold(a.context, d.variables(a.context)) {
				continue
			}
			if s.Effect == "Deny" {
				return deny
			}
			result = allow
		}
	}
	return result
}

// permissions is everything that limits one caller.
type permissions struct {
	identity []document
	boundary *document // nil if there is none
	session  *document // nil if there is none
	control  *document // nil if there is none
}

// decide evaluates an access. The reason is the end of AWS's message.
func (p permissions) decide(a access) (ok bool, reason string) {
	identity := evaluate(p.identity, a)
	layers := []struct {
		name string
		say  effect
	}{{"identity-based policy", identity}, {"permissions boundary", allow}, {"session policy", allow}}
	if p.boundary != nil {
		layers[1].say = evaluate([]document{*p.boundary}, a)
	}
	if p.session != nil {
		layers[2].say = evaluate([]document{*p.session}, a)
	}
	if p.control != nil && evaluate([]document{*p.control}, a) == deny {
		return false, "with an explicit deny in a service control policy"
	}
	for _, layer := range layers {
		if layer.say == deny {
			return false, "with an explicit deny in " + article(layer.name)
		}
	}
	for _, layer := range layers {
		if layer.say != allow {
			return false, "because no " + layer.name + " allows the " + a.action + " action"
		}
	}
	return true, ""
}

func article(name string) string {
	if strings.HasPrefix(name, "i") {
		return "an " + name
	}
	return "a " + name
}

// assumer is the caller that wants to assume a role.
type assumer struct {
	kind    string   // the kind of principal: AWS or Federated
	names   []string // the names that a trust document may use for it, the most exact first
	account string   // the root ARN of its account, which includes all of its principals (AWS only)
}

// evaluateTrust evaluates a request for a role with its trust document. named is true if
// an Allow statement names the assumer itself and not its account.
func evaluateTrust(d document, who assumer, action string, context conditionContext) (result effect, named bool) {
	for _, s := range d.Statement {
		covered, direct := s.coversPrincipal(who)
		if !covered || !s.coversAction(action) || !s.conditionsHold(context, d.variables(context)) {
			continue
		}
		if s.Effect == "Deny" {
			return deny, false
		}
		result, named = allow, named || direct
	}
	return result, named
}

func (s statement) coversPrincipal(who assumer) (covered, named bool) {
	if s.NotPrincipal != nil {
		covered, _ = s.NotPrincipal.include(who)
		return !covered, false
	}
	return s.Principal.include(who)
}

func (p *principals) include(who assumer) (included, named bool) {
	if p.everyone {
		return true, false
	}
	listed := p.byKind[who.kind]
	for _, name := range who.names {
		if slices.Contains(listed, name) {
			return true, true
		}
	}
	if who.kind != "AWS" {
		return false, false
	}
	return slices.Contains(listed, "*") || slices.Contains(listed, who.account), false
}

func (s statement) coversAction(action string) bool {
	if len(s.NotAction) > 0 {
		return !matchesAction(s.NotAction, action)
	}
	return matchesAction(s.Action, action)
}

func matchesAction(patterns []string, action string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		return glob(strings.ToLower(pattern), strings.ToLower(action))
	})
}

func (s statement) coversResource(resource string, expand expander) bool {
	if len(s.NotResource) > 0 {
		return !matchesResource(s.NotResource, resource, expand)
	}
	return matchesResource(s.Resource, resource, expand)
}

func matchesResource(patterns []string, resource string, expand expander) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		pattern, ok := expand(pattern)
		return ok && (pattern == "*" || arnLike(pattern, resource))
	})
}

// expander replaces policy variables. It returns false if the request has no such key;
// then the element matches nothing.
type expander func(text string) (expanded string, ok bool)

var variable = regexp.MustCompile(`\$\{([^}]*)\}`)

// variables returns the expander for the document. Only version 2012-10-17 has variables.
func (d document) variables(context conditionContext) expander {
	if d.Version != "2012-10-17" {
		return func(text string) (string, bool) { return text, true }
	}
	return func(text string) (string, bool) {
		ok := true
		expanded := variable.ReplaceAllStringFunc(text, func(found string) string {
			values := context[strings.ToLower(found[2:len(found)-1])]
			if len(values) != 1 {
				ok = false
				return found
			}
			return values[0]
		})
		return expanded, ok
	}
}

// arnLike matches an ARN against a pattern, each of the six parts separately: a wildcard
// does not match beyond its part. Parts missing in the pattern are wildcards.
func arnLike(pattern, arn string) bool {
	want, have := strings.SplitN(pattern, ":", 6), strings.SplitN(arn, ":", 6)
	for i, part := range have {
		if i < len(want) && !glob(want[i], part) {
			return false
		}
	}
	return len(have) == 6
}

// glob matches text against a pattern, in which * means any characters and ? means
// one.
func glob(pattern, text string) bool {
	for pattern != "" {
		switch {
		case pattern[0] == '*':
			for i := 0; i <= len(text); i++ {
				if glob(pattern[1:], text[i:]) {
					return true
				}
			}
			return false
		case text == "" || pattern[0] != '?' && pattern[0] != text[0]:
			return false
		}
		pattern, text = pattern[1:], text[1:]
	}
	return text == ""
}

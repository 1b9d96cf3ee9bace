package check

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// WantedTrust is the subject that a trust document must let in, and its conditions.
type WantedTrust struct {
	Provider policy.ARN
	Issuer   policy.Issuer
	Audience string
	Subject  policy.Subject
}

// Trust judges a role's trust document, as IAM returned it. A document that
// lets the subject in is not enough: its conditions must be exact. fix replaces the
// document. One without a condition on :aud is a warning: STS compares a token's
// audience with those that are registered with the provider in any case.
func Trust(document string, want WantedTrust, fix Fix) Finding {
	fails := func(format string, args ...any) Finding {
		return Failed(TrustDocument, About{}, fix, format, args...)
	}
	d, err := policy.ParseDocument(document)
	if err != nil {
		return fails("it cannot be read: %v", err)
	}
	var misses []string
	var compared *Comparison
	wide := false
	for _, s := range d.Statement {
		if !matchAny(s.Action, "sts:AssumeRoleWithWebIdentity", true) {
			continue
		}
		if s.Effect == "Deny" {
			misses = append(misses, "it denies web identities: the role is closed")
			continue
		}
		miss, values := want.miss(s)
		if miss == "" && equals(s, want.Issuer.Host()+":aud") == nil {
			wide = true
			continue
		}
		if miss == "" {
			return Passed(
				TrustDocument,
				About{},
				"lets %s in, with provider %s and audience %s",
				want.Subject,
				want.Provider,
				want.Audience,
			)
		}
		misses = append(misses, miss)
		compared = cmp.Or(compared, values)
	}
	if wide {
		aud := want.Issuer.Host() + ":aud"
		return Warned(
			TrustDocument,
			About{},
			NewFix(fmt.Sprintf("add %q: %q to StringEquals in the trust document", aud, want.Audience), fix.Commands...),
			"lets %s in, without a condition on %s: STS takes tokens of every audience that is registered with the provider %s, and of no other",
			want.Subject, aud, want.Provider,
		)
	}
	if len(misses) == 0 {
		return fails("no statement of it allows sts:AssumeRoleWithWebIdentity")
	}
	f := fails("%s", strings.Join(slices.Compact(misses), "; "))
	f.Compared = compared
	return f
}

// ExceedsQuota reports whether the trust document with the subject added has more
// characters than the quota. Then sync refuses to write it.
func (w WantedTrust) ExceedsQuota(document string, quota int) bool {
	d, err := policy.ParseDocument(document)
	if err != nil {
		return false
	}
	subjects := append(d.Subjects(w.Issuer), w.Subject)
	return len(policy.TrustDocument(w.Provider, w.Issuer, w.Audience, subjects).String()) > quota
}

// miss returns why a statement does not let exactly the subject in, and the values that
// differ; empty: it does.
func (w WantedTrust) miss(s policy.Statement) (reason string, values *Comparison) {
	var federated policy.Values
	if s.Principal != nil {
		federated = (*s.Principal)["Federated"]
	}
	if !slices.Contains(federated, w.Provider.String()) {
		return fmt.Sprintf("Principal.Federated is %s, not %s", list(federated, "missing"), w.Provider),
			Compare("provider", w.Provider.String(), federated...)
	}
	sub, aud := w.Issuer.Host()+":sub", w.Issuer.Host()+":aud"
	for _, operator := range slices.Sorted(maps.Keys(s.Condition)) {
		for _, key := range slices.Sorted(maps.Keys(s.Condition[operator])) {
			if miss, values := w.condition(operator, key, s.Condition[operator][key]); miss != "" {
				return miss, values
			}
		}
	}
	subjects, audiences := equals(s, sub), equals(s, aud)
	switch {
	case subjects == nil:
		return "no condition on " + sub + ": every pod of the cluster is let in" + nearKey(s, sub), nil
	case !slices.Contains(subjects, w.Subject.String()):
		return w.wrongSubject(subjects), Compare("subject", w.Subject.String(), subjects...)
	case audiences != nil && !slices.Contains(audiences, w.Audience):
		return fmt.Sprintf("%s must be %s: it is %s", aud, w.Audience, strings.Join(audiences, ", ")),
			Compare("audience", w.Audience, audiences...)
	}
	return "", nil
}

// condition refuses conditions that pass where they should not, or never.
func (w WantedTrust) condition(operator, key string, values policy.Values) (reason string, compared *Comparison) {
	folded := strings.ToLower(operator)
	if strings.HasSuffix(folded, "ifexists") || strings.HasPrefix(folded, "forallvalues:") {
		return fmt.Sprintf("%s of %s also passes without the claim: write StringEquals", operator, key), nil
	}
	if folded == "stringlike" && slices.ContainsFunc(values, func(v string) bool { return strings.ContainsAny(v, "*?") }) {
		return fmt.Sprintf(
			"StringLike of %s lets in whatever %s matches: write StringEquals and exact names",
			key,
			strings.Join(values, ", "),
		), nil
	}
	host := w.Issuer.Host()
	for _, claim := range []string{":sub", ":aud"} {
		named, found := strings.CutSuffix(key, claim)
		if !found || named == host {
			continue
		}
		compared := Compare("condition key", host+claim, key)
		if strings.TrimSuffix(named, "/") == strings.TrimSuffix(host, "/") {
			return fmt.Sprintf("the condition key is %s, and must be %s: the slash before %s counts", key, host+claim, claim), compared
		}
		return fmt.Sprintf("the condition key %s is of another issuer, so it can never match: it must be %s", key, host+claim), compared
	}
	return "", nil
}

func (w WantedTrust) wrongSubject(subjects []string) string {
	for _, s := range subjects {
		if _, err := policy.ParseSubject(s); err != nil {
			return fmt.Sprintf("its :sub is %q, which no token has: write %s", s, w.Subject)
		}
	}
	const shown = 3
	others := strings.Join(subjects[:min(shown, len(subjects))], ", ")
	if more := len(subjects) - shown; more > 0 {
		others += fmt.Sprintf(" and %d more", more)
	}
	return fmt.Sprintf("its :sub lets in %s, and not %s", others, w.Subject)
}

// equals returns the values of StringEquals, in any case, for a key; nil: none.
func equals(s policy.Statement, key string) policy.Values {
	for operator, keys := range s.Condition {
		if folded := strings.ToLower(operator); folded == "stringequals" || folded == "stringlike" {
			if values, found := keys[key]; found {
				return values
			}
		}
	}
	return nil
}

func nearKey(s policy.Statement, key string) string {
	for _, keys := range s.Condition {
		for k := range keys {
			if strings.EqualFold(k, key) {
				return " (" + k + " differs by upper and lower case)"
			}
		}
	}
	return ""
}

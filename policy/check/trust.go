package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// WantedTrust has the subject that a trust document must let in, and the values of its
// conditions.
type WantedTrust struct {
	Provider policy.ARN
	Issuer   policy.Issuer
	Audience string
	Subject  policy.Subject
	// Now is the time of the request; zero: conditions on the time are not evaluated.
	Now time.Time
}

// webIdentity is the call that exchanges a token for a session.
const webIdentity = "sts:AssumeRoleWithWebIdentity"

// Trust judges a role's trust document, as IAM returned it. It fails a document that lets in
// more than the subject. fix replaces the document.
//
// A document without a condition on :aud is a warning: STS still compares the audience with
// those of the provider. A condition that cannot be evaluated is a warning until the check
// [Session] passes.
func Trust(document string, want WantedTrust, fix Fix) Finding {
	fails := func(format string, args ...any) Finding {
		return Failed(TrustDocument, About{}, fix, format, args...)
	}
	d, err := policy.ParseDocument(document)
	if err != nil {
		return fails("it cannot be read: %v", err)
	}
	var misses, doubts, wider []string
	var compared *Comparison
	lets, wide := false, false
	for i, s := range d.Statement {
		if !actsOn(s, webIdentity) {
			continue
		}
		decided, text := want.request().evaluate(s.Condition)
		if s.Effect == "Deny" {
			switch {
			case !want.concerns(s):
			case decided == holds:
				return fails("it denies web identities: %s denies them to %s", nameOf(s, i), want.Subject)
			case decided == unknown:
				doubts = append(doubts, fmt.Sprintf("%s denies it if %s", nameOf(s, i), text))
			}
			continue
		}
		miss, values := want.miss(s)
		if miss == "" && decided == neverHolds {
			miss = fmt.Sprintf("%s never applies: its condition %s does not hold", nameOf(s, i), text)
		}
		if miss != "" {
			misses = append(misses, miss)
			compared = cmp.Or(compared, values)
			if reason := want.tooWide(s); reason != "" && decided != neverHolds {
				wider = append(wider, fmt.Sprintf("%s: %s", nameOf(s, i), reason))
			}
			continue
		}
		if decided == unknown {
			doubts = append(doubts, fmt.Sprintf("%s lets it in if %s", nameOf(s, i), text))
		}
		lets = true
		wide = wide || equals(s, want.Issuer.Host()+":aud") == nil
	}
	switch {
	case lets && len(wider) > 0:
		return fails("it lets %s in, and others too: %s", want.Subject, strings.Join(wider, "; "))
	case lets && len(doubts) > 0:
		return Warned(TrustDocument, About{}, NewFix("check that condition: STS does not show which one it refuses"),
			"lets %s in, but it has conditions that doctor cannot evaluate: %s", want.Subject, strings.Join(doubts, "; ")).until(Session, d)
	case lets && !wide:
		return Passed(TrustDocument, About{}, "lets %s in, with provider %s and audience %s", want.Subject, want.Provider, want.Audience)
	case lets:
		aud := want.Issuer.Host() + ":aud"
		return Warned(
			TrustDocument,
			About{},
			NewFix(fmt.Sprintf("add %q: %q to StringEquals in the trust document", aud, want.Audience), fix.Commands...),
			"lets %s in, without a condition on %s: STS takes tokens of every audience that is registered with the provider %s, and of no other",
			want.Subject, aud, want.Provider,
		)
	case len(misses) == 0:
		return fails("no statement of it allows sts:AssumeRoleWithWebIdentity")
	}
	f := fails("%s", strings.Join(slices.Compact(misses), "; "))
	f.Compared = compared
	return f
}

// request returns the known values of the call that exchanges the subject's token.
func (w WantedTrust) request() request {
	host := strings.ToLower(w.Issuer.Host())
	r := request{host + ":sub": w.Subject.String(), host + ":aud": w.Audience}
	if !w.Now.IsZero() {
		r["aws:currenttime"] = w.Now.UTC().Format(time.RFC3339)
	}
	return r
}

// concerns reports whether the principals of a statement include the provider's web
// identities.
func (w WantedTrust) concerns(s policy.Statement) bool {
	named := func(p policy.Principal) bool {
		return slices.Contains(p["AWS"], "*") || slices.Contains(p["Federated"], "*") || slices.Contains(p["Federated"], w.Provider.String())
	}
	if s.NotPrincipal != nil {
		return !named(*s.NotPrincipal)
	}
	return s.Principal != nil && named(*s.Principal)
}

// nameOf returns the Sid of a statement, or else its number.
func nameOf(s policy.Statement, index int) string {
	if s.Sid != "" {
		return "statement " + s.Sid
	}
	return fmt.Sprintf("statement %d", index+1)
}

// MergeTrust returns the trust document with the given statement in place of all statements that
// let in, or deny, web identities of the provider. It keeps the statements for other clusters,
// services and people, those that deny under a condition, and the other principals of a statement.
func (w WantedTrust) MergeTrust(document string, statement policy.Document) policy.Document {
	d, err := policy.ParseDocument(document)
	if err != nil {
		return statement
	}
	var kept []policy.Statement
	for _, s := range d.Statement {
		denied, _ := w.request().evaluate(s.Condition)
		replaced := actsOn(s, webIdentity) && w.concerns(s) && (s.Effect != "Deny" || denied == holds)
		if replaced {
			s.Principal = w.otherPrincipals(s)
		}
		if !replaced || s.Principal != nil {
			kept = append(kept, s)
		}
	}
	d.Statement = slices.Concat(kept, statement.Statement)
	return d
}

// otherPrincipals returns the principals of a statement without the provider; nil: there is no
// other, or the statement names all.
func (w WantedTrust) otherPrincipals(s policy.Statement) *policy.Principal {
	if s.Principal == nil || slices.Contains((*s.Principal)["AWS"], "*") || slices.Contains((*s.Principal)["Federated"], "*") {
		return nil
	}
	others := policy.Principal{}
	for kind, names := range *s.Principal {
		names = slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == w.Provider.String() })
		if len(names) > 0 {
			others[kind] = names
		}
	}
	if len(others) == 0 {
		return nil
	}
	return &others
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

// miss returns why a statement does not let in exactly the subject, and the values that differ;
// empty: it does.
func (w WantedTrust) miss(s policy.Statement) (reason string, values *Comparison) {
	var federated policy.Values
	if s.Principal != nil {
		federated = (*s.Principal)["Federated"]
	}
	if !slices.Contains(federated, w.Provider.String()) {
		return fmt.Sprintf("Principal.Federated is %s, not %s", list(federated, "missing"), w.Provider),
			Compare("provider", w.Provider.String(), federated...)
	}
	for _, c := range sorted(s.Condition) {
		if c.loose() != "" {
			return c.loose(), nil
		}
		if miss, values := w.otherKey(c.key); miss != "" && w.request().condition(c.operator, c.key, c.values) == neverHolds {
			return miss, values
		}
	}
	aud := w.Issuer.Host() + ":aud"
	subjects, audiences := equals(s, w.Issuer.Host()+":sub"), equals(s, aud)
	switch {
	case subjects == nil:
		return w.tooWide(s), nil
	case !slices.Contains(subjects, w.Subject.String()):
		return w.wrongSubject(subjects), Compare("subject", w.Subject.String(), subjects...)
	case audiences != nil && !slices.Contains(audiences, w.Audience):
		return fmt.Sprintf("%s must be %s: it is %s", aud, w.Audience, strings.Join(audiences, ", ")),
			Compare("audience", w.Audience, audiences...)
	}
	return "", nil
}

// tooWide returns why a statement lets in other pods of the cluster, too; empty: it does not.
func (w WantedTrust) tooWide(s policy.Statement) string {
	if s.Principal == nil || !slices.Contains((*s.Principal)["Federated"], w.Provider.String()) {
		return ""
	}
	for _, c := range sorted(s.Condition) {
		if c.loose() != "" {
			return c.loose()
		}
	}
	if sub := w.Issuer.Host() + ":sub"; equals(s, sub) == nil {
		return "no condition on " + sub + ": every pod of the cluster is let in"
	}
	return ""
}

// loose returns why a condition on the subject or the audience lets in too much; empty: it does
// not.
func (c condition) loose() string {
	operator, key := strings.ToLower(c.operator), strings.ToLower(c.key) // IAM ignores the case of both
	switch {
	case !strings.HasSuffix(key, ":sub") && !strings.HasSuffix(key, ":aud"):
		return ""
	case strings.HasSuffix(operator, "ifexists"), strings.HasPrefix(operator, "forallvalues:"):
		return fmt.Sprintf("%s of %s also passes without the claim: write StringEquals", c.operator, c.key)
	case operatorOf(operator) == "stringlike" &&
		slices.ContainsFunc(c.values, func(v string) bool { return strings.ContainsAny(v, "*?") }):
		return fmt.Sprintf("StringLike of %s lets in whatever %s matches: write StringEquals and exact names",
			c.key, strings.Join(c.values, ", "))
	}
	return ""
}

// otherKey returns why the key is not this issuer's, and the two keys; empty: it is, or it is no
// claim.
func (w WantedTrust) otherKey(key string) (reason string, compared *Comparison) {
	host := w.Issuer.Host()
	for _, claim := range []string{":sub", ":aud"} {
		named, found := strings.CutSuffix(strings.ToLower(key), claim)
		if !found || strings.EqualFold(named, host) {
			continue
		}
		compared := Compare("condition key", host+claim, key)
		if strings.EqualFold(strings.TrimSuffix(named, "/"), strings.TrimSuffix(host, "/")) {
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

// equals returns the values of StringEquals or StringLike for a key; nil: none.
func equals(s policy.Statement, key string) policy.Values {
	for _, c := range sorted(s.Condition) {
		switch operatorOf(c.operator) {
		case "stringequals", "stringlike", "stringequalsignorecase":
			if strings.EqualFold(c.key, key) {
				return c.values
			}
		}
	}
	return nil
}

package trust_test

import (
	"errors"
	"fmt"
	"maps"
	"math/rand"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/smithy-go"
	"github.com/go-jose/go-jose/v4"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const (
	generated = 10_000
	// After each everyNth document, the double's STS gets the same questions, token by token.
	everyNth = 1000
)

var (
	issuers = []string{
		"https://oidc.eks.eu-west-1.amazonaws.com/id/AB",
		"https://oidc.eks.eu-west-1.amazonaws.com/id/AB/",
		"https://oidc.eks.eu-west-1.amazonaws.com/id/ABC",
		"https://oidc.eks.eu-west-1.amazonaws.com/id/A",
		"https://oidc.eks.eu-west-1.amazonaws.com/id/ab",
		"https://eastus.oic.prod-aks.azure.com/t/u/",
		"https://issuer.example/t/u/",
		"https://issuer.example/t/u",
	}
	audiences = []string{"sts.amazonaws.com", "sts.amazonaws.com.cn", "sts.amazonaws.co", "STS.amazonaws.com", "api://AzureADTokenExchange"}

	namespaceNames = []string{"monitoring", "team", "team-a", "team-ab", "a-team", "b"}
	accountNames   = []string{"prometheus", "prometheus-k8s", "a-prometheus", "prometheu", "pr.ometheus", "default"}
	// Kubernetes does not allow such names, but a wrong list must not widen the trust.
	oddNames       = []string{"*", "p*", "prometheu?", "*-prometheus"}
	namespaceGlobs = append([]string{"team-*", "*-team", "*", "t*m*", "team*"}, namespaceNames...)
	accountGlobs   = append([]string{"*-prometheus", "prometheus*", "*", "p*s", "pr.*"}, accountNames...)
)

// token is what STS knows about a caller.
type token struct{ issuer, subject, audience string }

// drawn is a generated policy and cluster, with the grants as the generator knows them.
type drawn struct {
	text             string
	issuer, audience string
	destinations     []string
	accounts         []plan.ServiceAccount
	// access maps each destination to the AMP actions that its role allows.
	access map[string][]string
	// grants maps each destination to the subjects that may use it, if they exist.
	grants map[string][]grant
	// wants maps each destination to the subjects that request it.
	wants map[string]map[string]bool
}

type grant struct{ namespaces, accounts *regexp.Regexp }

// draw generates a policy. The policy has the patterns as text, and the result has them as regular
// expressions.
func draw(random *rand.Rand) drawn {
	pick := func(from []string) string { return from[random.Intn(len(from))] }
	expression := func(globs []string) *regexp.Regexp {
		var parts []string
		for _, g := range globs {
			parts = append(parts, strings.ReplaceAll(regexp.QuoteMeta(g), `\*`, ".*"))
		}
		return regexp.MustCompile("^(" + strings.Join(parts, "|") + ")$")
	}
	d := drawn{
		issuer: pick(issuers), audience: pick(audiences), access: map[string][]string{}, grants: map[string][]grant{},
		wants: map[string]map[string]bool{},
	}
	destinations := []string{"central", "backup", "third"}[:1+random.Intn(3)]
	d.destinations = destinations
	var b strings.Builder
	fmt.Fprintf(&b, "apiVersion: ampbridge.io/v1alpha1\nkind: Policy\ncluster: {name: dev}\ntoken: {audience: %q}\n", d.audience)
	b.WriteString("trust: {permissionsBoundary: \"arn:aws:iam::111122223333:policy/boundary\"}\ndestinations:\n")
	for i, name := range destinations {
		access := pick([]string{"", ", access: [write]", ", access: [query]", ", access: [write, query]", ", access: [query, write]"})
		fmt.Fprintf(&b, "- {name: %s, workspace: \"arn:aws:aps:eu-west-1:%s:workspace/ws-%d\"%s}\n", name, accountID, i, access)
		if access == "" || strings.Contains(access, "write") {
			d.access[name] = append(d.access[name], writeAction)
		}
		if strings.Contains(access, "query") {
			d.access[name] = append(d.access[name], queryActions...)
		}
		d.wants[name] = map[string]bool{}
	}
	b.WriteString("grants:\n")
	for i := range 1 + random.Intn(3) {
		ns, sa := []string{pick(namespaceGlobs), pick(namespaceGlobs)}, []string{pick(accountGlobs), pick(accountGlobs)}
		if slices.Contains(ns, "*") && slices.Contains(sa, "*") {
			ns = []string{"team"} // a grant for all accounts of all namespaces is refused
		}
		to := destinations[random.Intn(len(destinations)):]
		if i == 0 {
			to = destinations
		}
		mode := "prometheus"
		if slices.ContainsFunc(to, func(name string) bool { return d.access[name][0] != writeAction }) {
			mode = "identity" // a writer needs a destination with write access
		}
		fmt.Fprintf(
			&b,
			"- {namespaces: [%q, %q], serviceAccounts: [%q, %q], destinations: [%s], mode: %s}\n",
			ns[0],
			ns[len(ns)-1],
			sa[0],
			sa[1],
			strings.Join(to, ", "),
			mode,
		)
		for _, name := range to {
			d.grants[name] = append(d.grants[name], grant{expression(ns), expression(sa)})
		}
	}
	d.text = b.String()
	for _, ns := range namespaceNames {
		for _, sa := range slices.Concat(accountNames, oddNames) {
			if random.Intn(3) > 0 || slices.Contains(oddNames, sa) && random.Intn(8) > 0 {
				continue
			}
			account := plan.ServiceAccount{
				Namespace:   ns,
				Name:        sa,
				Injection:   policy.InjectionEnabled,
				Created:     time.Unix(int64(random.Intn(1000)), 0),
				Annotations: map[string]string{},
			}
			asked := destinations
			switch random.Intn(6) {
			case 0:
				account.Annotations[policy.AnnotationInject] = "false"
				asked = nil
			case 1:
				asked = []string{pick(destinations)}
				account.Annotations[policy.AnnotationDestinations] = asked[0]
			}
			for _, name := range asked {
				d.wants[name]["system:serviceaccount:"+ns+":"+sa] = true
			}
			d.accounts = append(d.accounts, account)
		}
	}
	return d
}

// granted reports the answer that the trust document must give.
func (d drawn) granted(destination string, t token) bool {
	return d.wants[destination][t.subject] && d.covers(destination, t)
}

// covers reports whether the policy grants it, if such a service account exists.
func (d drawn) covers(destination string, t token) bool {
	parts := strings.Split(t.subject, ":")
	return t.issuer == d.issuer && t.audience == d.audience && len(parts) == 4 &&
		slices.ContainsFunc(d.grants[destination], func(g grant) bool {
			return g.namespaces.MatchString(parts[2]) && g.accounts.MatchString(parts[3])
		})
}

// around returns the token and tokens that are almost equal to it.
func around(t token) []token {
	ns, sa, _ := strings.Cut(strings.TrimPrefix(t.subject, "system:serviceaccount:"), ":")
	list := []token{t}
	for _, subject := range []string{
		"", "*", "system:serviceaccount:*", "system:serviceaccount:*:*", "system:serviceaccount:" + ns + ":*", "system:serviceaccount:*:" + sa,
		"system:serviceaccount:" + ns + ":",
		"system:serviceaccount:" + ns, t.subject + "x", t.subject + "*", t.subject + ":", t.subject + " ", "x" + t.subject,
		t.subject[:len(t.subject)-1], t.subject[1:],
		strings.ToUpper(t.subject), strings.Replace(t.subject, ns, strings.ToUpper(ns), 1),
		"system:serviceaccount:" + ns + ":" + strings.ToUpper(sa[:1]) + sa[1:],
		"system:serviceaccount:" + ns + "x:" + sa, "system:serviceaccount:x" + ns + ":" + sa, "system:serviceaccount:" + sa + ":" + ns,
		"system:serviceaccount:" + ns + ":x" + sa,
		"system:serviceaccount:" + ns + ":" + sa[:1] + "?" + sa[min(2, len(sa)):], "system:serviceaccount:" + ns + ":${aws:username}",
		"system:serviceaccounts:" + ns + ":" + sa, "system:node:" + ns,
	} {
		list = append(list, token{t.issuer, subject, t.audience})
	}
	for _, issuer := range append([]string{t.issuer + "/", t.issuer + "x", strings.TrimSuffix(t.issuer, "/"), t.issuer[:len(t.issuer)-1],
		"http" + strings.TrimPrefix(t.issuer, "https"), strings.ToUpper(t.issuer)}, issuers...) {
		list = append(list, token{issuer, t.subject, t.audience})
	}
	for _, audience := range append([]string{"", "*", t.audience + "x", t.audience[1:], strings.ToUpper(t.audience), t.issuer}, audiences...) {
		list = append(list, token{t.issuer, t.subject, audience})
	}
	return list
}

// ask returns the condition keys that STS derives from the token.
func (t token) ask() ask {
	host := strings.TrimPrefix(t.issuer, "https://")
	a := ask{
		action:    "sts:AssumeRoleWithWebIdentity",
		federated: "arn:aws:iam::" + accountID + ":oidc-provider/" + host,
		keys:      map[string]string{},
	}
	for claim, value := range map[string]string{"sub": t.subject, "aud": t.audience} {
		if value != "" {
			a.keys[strings.ToLower(host)+":"+claim] = value
		}
	}
	return a
}

// Whatever the policy is, whichever accounts exist and whatever the roles trusted before, the trust documents
// allow the granted tokens and no almost correct ones.
func TestTrustIsNeverWider(t *testing.T) {
	for _, scope := range []string{policy.RoleScopeDestination, policy.RoleScopeServiceAccount} {
		t.Run(scope, func(t *testing.T) { neverWider(t, scope) })
	}
}

func neverWider(t *testing.T, scope string) {
	random := rand.New(rand.NewSource(20261122))
	judge := newJudge(t)
	asked, accepted, documents, confirmed, permitted := 0, 0, 0, 0, 0
	for n := range generated {
		d := draw(random)
		p, err := policy.Parse([]byte(strings.Replace(d.text, "trust: {", "trust: {roleScope: "+scope+", ", 1)))
		if err != nil {
			t.Fatalf("policy %d: %v\n%s", n, err, d.text)
		}
		found := plan.Account{Roles: map[string]plan.Role{}}
		existed := n%2 == 1
		if existed {
			found = d.found(p, random)
		}
		made := plan.Compute(plan.Input{Policy: p, Issuer: policy.Issuer(d.issuer), ServiceAccounts: d.accounts, TrustQuota: 1 << 20,
			Accounts: map[string]plan.Account{accountID: found}})
		permitted += d.permits(t, n, p, found, random)
		for _, destination := range p.Destinations {
			tokens := d.tokens(destination.Name, random)
			open := map[token]bool{} // the granted tokens that their own role accepts in the end
			for role, texts := range onTheWay(made, found, destination.Name) {
				for i, text := range texts {
					document, err := parse(text)
					testkit.Must(t, err)
					documents++
					for _, q := range tokens {
						got, err := document.allows(q.ask)
						testkit.Must(t, err)
						asked++
						if !got {
							continue
						}
						accepted++
						own := false
						if parts := strings.Split(q.subject, ":"); len(parts) == 4 {
							own = p.RoleFor(destination, policy.Subject{Namespace: parts[2], ServiceAccount: parts[3]}) == role
						}
						open[q.token] = open[q.token] || own && i == len(texts)-1
						switch {
						case !q.granted && (!existed || !q.remembered):
							t.Fatalf("policy %d, destination %s: %s lets in %+v\n%s\n%s", n, destination.Name, role, q.token, d.text, text)
						case !own && (!existed || i == len(texts)-1):
							t.Fatalf(
								"policy %d, destination %s: %s, which is not its role, lets in %+v\n%s\n%s",
								n,
								destination.Name,
								role,
								q.token,
								d.text,
								text,
							)
						}
					}
					if n%everyNth < 2 && len(made.Changes) > 0 {
						confirmed += judge.confirm(text, document, tokens)
					}
				}
			}
			for _, q := range tokens {
				if q.granted && !open[q.token] {
					t.Fatalf(
						"policy %d: the role for destination %s does not let in %+v\n%s\n%s",
						n,
						destination.Name,
						q.token,
						d.text,
						made,
					)
				}
			}
		}
	}
	t.Logf("%d policies, %d documents, %d tokens, %d accepted; %d of them shown to STS; %d actions permitted",
		generated, documents, asked, accepted, confirmed, permitted)
}

// onTheWay returns, for each role of a destination, all its trust documents during the run. The last one
// remains.
func onTheWay(made plan.Plan, found plan.Account, destination string) map[policy.ARN][]string {
	documents := map[policy.ARN][]string{}
	for _, c := range made.Changes {
		if c.Trust != nil && c.Destination == destination {
			documents[c.Resource] = append(documents[c.Resource], c.Trust.String())
		}
	}
	for _, r := range slices.AppendSeq(slices.Clone(found.Orphans), maps.Values(found.Roles)) {
		if r.Tags[plan.TagDestination] == destination && len(documents[r.ARN]) == 0 {
			documents[r.ARN] = []string{r.Trust}
		}
	}
	return documents
}

// question is a token with the correct answers.
type question struct {
	token
	ask                 ask
	granted, remembered bool
}

// tokens returns the tokens of all service accounts that could exist, and tokens that are almost equal to
// granted ones.
func (d drawn) tokens(destination string, random *rand.Rand) []question {
	var list, granted []token
	for _, ns := range namespaceNames {
		for _, sa := range accountNames {
			t := token{d.issuer, "system:serviceaccount:" + ns + ":" + sa, d.audience}
			list = append(list, t)
			if d.granted(destination, t) {
				granted = append(granted, t)
			}
		}
	}
	if len(granted) > 0 {
		list = append(list, around(granted[random.Intn(len(granted))])...)
	}
	questions := make([]question, 0, len(list))
	for _, t := range list {
		questions = append(questions, question{t, t.ask(), d.granted(destination, t), d.remembered(destination, t)})
	}
	return questions
}

// remembered reports whether a role may still trust the token: a grant covers it, and its service account
// does not exist or requests a destination that it is not granted. It is false if the account opted out.
func (d drawn) remembered(destination string, t token) bool {
	i := slices.IndexFunc(d.accounts, func(a plan.ServiceAccount) bool {
		return t.subject == "system:serviceaccount:"+a.Namespace+":"+a.Name
	})
	if i >= 0 {
		asked := d.accounts[i].Annotations[policy.AnnotationDestinations]
		return asked != "" && !d.covers(asked, t) && d.covers(destination, t)
	}
	return d.covers(destination, t)
}

// found returns roles of the cluster after manual edits. Each trusts something that users could write.
func (d drawn) found(p *policy.Policy, random *rand.Rand) plan.Account {
	host := strings.TrimPrefix(d.issuer, "https://")
	provider := func(host string) string { return "arn:aws:iam::" + accountID + ":oidc-provider/" + host }
	statement := func(principal, condition string) string {
		return `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":` + principal +
			`,"Action":"sts:AssumeRoleWithWebIdentity","Condition":` + condition + `}]}`
	}
	federated := func(host string) string { return `{"Federated":"` + provider(host) + `"}` }
	documents := []string{
		"",
		"not JSON",
		adminsTrust,
		statement(`"*"`, `{}`),
		statement(federated(host), `{}`),
		statement(federated(host), `{"StringEquals":{"`+host+`:aud":"`+d.audience+`"}}`),
		statement(federated(host), `{"StringLike":{"`+host+`:sub":"system:serviceaccount:*"}}`),
		statement(
			federated(host),
			`{"StringEquals":{"`+host+`:aud":"`+d.audience+`","`+host+`:sub":["system:serviceaccount:*:*","*",`+
				`"system:serviceaccount:team-a:prometheus","system:serviceaccount:kube-system:default","alice"]}}`,
		),
		statement(
			federated(host),
			`{"StringEquals":{"`+host+`:sub":["system:serviceaccount:team-a:prometheus","system:serviceaccount:b:a-prometheus"]}}`,
		),
		statement(
			federated(host),
			`{"StringEqualsIfExists":{"`+host+`:aud":"`+d.audience+`","`+host+`:sub":["system:serviceaccount:monitoring:prometheus"]}}`,
		),
		statement(federated("example.com"), `{"StringEquals":{"example.com:sub":"system:serviceaccount:team-a:prometheus"}}`),
	}
	account := plan.Account{Roles: map[string]plan.Role{}}
	if random.Intn(2) == 0 {
		account.Provider = &plan.Provider{
			Audiences: []string{d.audience},
			Tags:      map[string]string{plan.TagOwner: policy.Owner("dev", policy.Issuer(d.issuer))},
		}
	}
	// Add roles of both scopes, whichever the policy has.
	add := func(arn policy.ARN, destination policy.Destination) {
		role := plan.Role{
			ARN: arn, Trust: documents[random.Intn(len(documents))], MaxSession: time.Hour,
			Tags: map[string]string{plan.TagOwner: policy.Owner("dev", policy.Issuer(d.issuer)), plan.TagDestination: destination.Name},
		}
		if random.Intn(2) == 0 {
			role.Boundary, role.Permissions = "arn:aws:iam::"+accountID+":policy/boundary", policy.PermissionDocument(destination).String()
		}
		if p.Trust.RoleScope == policy.RoleScopeServiceAccount || arn == p.Role(destination) {
			account.Roles[arn.RoleName()] = role
		} else {
			account.Orphans = append(account.Orphans, role)
		}
	}
	for _, destination := range p.Destinations {
		add(p.Role(destination), destination)
		for _, s := range []policy.Subject{{Namespace: "team-a", ServiceAccount: "prometheus"},
			{Namespace: "b", ServiceAccount: "a-prometheus"}, {Namespace: "monitoring", ServiceAccount: "prometheus"}} {
			if random.Intn(2) == 0 {
				add(p.ServiceAccountRole(destination, s), destination)
			}
		}
	}
	return account
}

// judge is the double's STS. All issuers are registered there with every audience, so only the trust document
// decides.
type judge struct {
	*fixture
	admin   *iam.Client
	signers map[string]*awstest.Signer
	roles   int
}

func newJudge(t *testing.T) *judge {
	f := newFixture(t)
	account := f.account(accountID)
	j := &judge{fixture: f, admin: account.IAM(), signers: map[string]*awstest.Signer{}}
	for _, issuer := range issuers {
		// The double can serve only one of two issuers that differ only by the slash.
		if sibling := strings.TrimSuffix(issuer, "/"); j.signers[sibling] != nil || j.signers[sibling+"/"] != nil {
			continue
		}
		j.signers[issuer] = awstest.NewSigner(issuer, jose.ES256)
		f.must(f.cloud.RegisterIssuer(issuer, j.signers[issuer], awstest.PublicCA))
		f.must(
			j.admin.CreateOpenIDConnectProvider(t.Context(), &iam.CreateOpenIDConnectProviderInput{Url: &issuer, ClientIDList: audiences}),
		)
	}
	return j
}

// confirm sends the tokens to STS, if there is an issuer that can sign them, and counts them. STS and the
// evaluator must agree.
func (j *judge) confirm(trust string, d document, tokens []question) (shown int) {
	j.Helper()
	j.roles++
	name := fmt.Sprintf("role-%d", j.roles)
	role, err := j.admin.CreateRole(j.Context(), &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: &trust})
	j.must(nil, err)
	for _, q := range tokens {
		signer := j.signers[q.issuer]
		if signer == nil || q.subject == "" || q.audience == "" {
			continue
		}
		shown++
		want, err := d.allows(q.ask)
		j.must(nil, err)
		_, err = j.cloud.AssumeWithToken(j.Context(), *role.Role.Arn, signer.Token(q.subject, q.audience))
		var answer smithy.APIError
		if err != nil && !errors.As(err, &answer) {
			j.Fatal(err)
		}
		if (err == nil) != want {
			j.Fatalf("token %+v: STS says %v, the evaluator %v\n%s", q.token, err, want, trust)
		}
	}
	return shown
}

package awstest

import (
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// provider is one version of an OpenID Connect provider.
type provider struct {
	url         string // without https://, byte for byte as in the request
	arn         string
	created     time.Time
	clientIDs   []string
	thumbprints []string
	tags        []tag
}

// issuer returns the provider's issuer.
func (p *provider) issuer() string { return "https://" + p.url }

func (p *provider) clone() *provider {
	c := *p
	c.clientIDs, c.thumbprints, c.tags = slices.Clone(p.clientIDs), slices.Clone(p.thumbprints), slices.Clone(p.tags)
	return &c
}

var validThumbprint = regexp.MustCompile(`^[0-9a-fA-F]{40}$`)

const invalidURL = "Invalid Open ID Connect Provider URL"

// checkIssuer refuses what IAM does not accept as an issuer.
func checkIssuer(issuer string) error {
	u, err := url.Parse(issuer)
	switch {
	case err != nil, u.Scheme != "https", u.Host == "", u.Port() != "", u.RawQuery != "" || u.ForceQuery, u.Fragment != "", u.User != nil,
		len(issuer) > 255:
		return apiErr(400, "ValidationError", invalidURL)
	}
	return nil
}

func checkThumbprints(thumbprints []string) error {
	if len(thumbprints) > 5 {
		return apiErr(400, "InvalidInput", "Thumbprint list must contain fewer than 5 entries.")
	}
	for _, t := range thumbprints {
		if !validThumbprint.MatchString(t) {
			return invalid(
				t,
				"thumbprintList",
				"Member must satisfy constraint: [Member must have length less than or equal to 40, Member must have length greater than or "+
					"equal to 40]",
			)
		}
	}
	return nil
}

func checkClientID(id string) error {
	if id == "" || len(id) > 255 {
		return invalid(id, "clientID", "Member must have length between 1 and 255")
	}
	return nil
}

func (a *Account) clientIDQuota() error {
	return apiErrf(409, "LimitExceeded", "Cannot exceed quota for ClientIdsPerOpenIdConnectProvider: %d", a.quotas.ClientIDs)
}

// fetchThumbprint reads the issuer's certificate if CreateOpenIDConnectProvider has no thumbprint, as
// IAM does. It runs without the lock.
func (q *queryCall) fetchThumbprint() error {
	if len(q.form.list("ThumbprintList")) > 0 {
		return nil
	}
	issuer := q.form.Get("Url")
	err := checkIssuer(issuer)
	if err != nil {
		return err
	}
	if q.fetchedThumbprint, err = q.cloud.fetcher.topThumbprint(q.r.Context(), issuer); err != nil {
		return apiErrf(400, "OpenIdIdpCommunicationError", "Unable to communicate with the identity provider at %s: %v", issuer, err)
	}
	return nil
}

func createProvider(q *queryCall) (any, error) {
	a, issuer := q.account(), q.form.Get("Url")
	if err := checkIssuer(issuer); err != nil {
		return nil, err
	}
	p := &provider{
		url: strings.TrimPrefix(issuer, "https://"), arn: a.ProviderARN(issuer), created: q.cloud.now(),
		clientIDs: q.form.list("ClientIDList"), thumbprints: q.form.list("ThumbprintList"), tags: q.form.tags(),
	}
	for _, id := range p.clientIDs {
		if err := checkClientID(id); err != nil {
			return nil, err
		}
	}
	if err := checkThumbprints(p.thumbprints); err != nil {
		return nil, err
	}
	if err := checkTags(p.tags); err != nil {
		return nil, err
	}
	context := conditionContext{}.requestTags(p.tags)
	if err := q.authorize("iam:CreateOpenIDConnectProvider", p.arn, context); err != nil {
		return nil, err
	}
	if len(p.tags) > 0 {
		if err := q.authorize("iam:TagOpenIDConnectProvider", p.arn, context); err != nil {
			return nil, err
		}
	}
	switch {
	case a.providers[p.url].latest() != nil:
		return nil, apiErrf(409, "EntityAlreadyExists", "Provider with url %s already exists.", issuer)
	case a.providers.count() >= a.quotas.Providers:
		return nil, apiErrf(409, "LimitExceeded", "Cannot exceed quota for OpenIdConnectProvidersPerAccount: %d", a.quotas.Providers)
	case len(p.clientIDs) > a.quotas.ClientIDs:
		return nil, a.clientIDQuota()
	}
	if err := a.checkTagQuota(p.tags); err != nil {
		return nil, err
	}
	if len(p.thumbprints) == 0 {
		p.thumbprints = []string{q.fetchedThumbprint}
	}
	a.providers.set(p.url, p, p.created)
	result := struct {
		ARN  string `xml:"OpenIDConnectProviderArn"`
		Tags *members[tag]
	}{ARN: p.arn}
	if len(p.tags) > 0 {
		result.Tags = &members[tag]{p.tags}
	}
	return result, nil
}

// openProvider finds the provider of a call and authorises the call. The provider is nil
// if there is none, which some calls accept.
func (q *queryCall) openProvider(read bool, context conditionContext) (*provider, error) {
	arn := q.form.Get("OpenIDConnectProviderArn")
	_, key, ok := strings.Cut(arn, ":oidc-provider/")
	if !ok {
		return nil, apiErrf(400, "InvalidInput", "Invalid ARN: %s", arn)
	}
	timeline := q.account().providers[key]
	p := timeline.latest()
	if read {
		p = timeline.seen(q.readTime())
	}
	if p != nil && p.arn != arn {
		p = nil // it belongs to another account or partition
	}
	if p != nil {
		context.resourceTags(p.tags)
	}
	return p, q.authorize("iam:"+q.record.Action, arn, context)
}

func (q *queryCall) noProvider() error {
	return apiErrf(404, "NoSuchEntity", "OpenIDConnect Provider not found for arn %s", q.form.Get("OpenIDConnectProviderArn"))
}

// changeProvider opens the provider of a call and stores the result of change.
func (q *queryCall) changeProvider(context conditionContext, change func(*provider) error) error {
	old, err := q.openProvider(false, context)
	if err != nil {
		return err
	}
	if old == nil {
		return q.noProvider()
	}
	p := old.clone()
	if err := change(p); err != nil {
		return err
	}
	q.account().providers.set(p.url, p, q.cloud.now())
	return nil
}

func (q *queryCall) readProvider() (*provider, error) {
	p, err := q.openProvider(true, conditionContext{})
	if err == nil && p == nil {
		err = q.noProvider()
	}
	return p, err
}

func getProvider(q *queryCall) (any, error) {
	p, err := q.readProvider()
	if err != nil {
		return nil, err
	}
	result := struct {
		URL            string `xml:"Url"`
		ClientIDList   members[string]
		ThumbprintList members[string]
		CreateDate     iso8601
		Tags           *members[tag]
	}{p.url, members[string]{p.clientIDs}, members[string]{p.thumbprints}, iso8601(p.created), nil}
	if len(p.tags) > 0 {
		result.Tags = &members[tag]{p.tags}
	}
	return result, nil
}

func listProviders(q *queryCall) (any, error) {
	if err := q.authorize("iam:ListOpenIDConnectProviders", "*", nil); err != nil {
		return nil, err
	}
	type entry struct {
		ARN string `xml:"Arn"`
	}
	var found members[entry]
	for _, key := range slices.Sorted(maps.Keys(q.account().providers)) {
		if p := q.account().providers[key].seen(q.readTime()); p != nil {
			found.Members = append(found.Members, entry{p.arn})
		}
	}
	return struct {
		OpenIDConnectProviderList members[entry]
	}{found}, nil
}

// deleteProvider also succeeds if there is nothing to delete, and does not check whether roles
// refer to the provider.
func deleteProvider(q *queryCall) (any, error) {
	p, err := q.openProvider(false, conditionContext{})
	if err == nil && p != nil {
		q.account().providers.set(p.url, nil, q.cloud.now())
	}
	return nil, err
}

func addClientID(q *queryCall) (any, error) {
	id := q.form.Get("ClientID")
	if err := checkClientID(id); err != nil {
		return nil, err
	}
	return nil, q.changeProvider(conditionContext{}, func(p *provider) error {
		if slices.Contains(p.clientIDs, id) {
			return nil
		}
		if len(p.clientIDs) >= q.account().quotas.ClientIDs {
			return q.account().clientIDQuota()
		}
		p.clientIDs = append(p.clientIDs, id)
		return nil
	})
}

func removeClientID(q *queryCall) (any, error) {
	id := q.form.Get("ClientID")
	return nil, q.changeProvider(conditionContext{}, func(p *provider) error {
		p.clientIDs = slices.DeleteFunc(p.clientIDs, func(other string) bool { return other == id })
		return nil
	})
}

func updateThumbprints(q *queryCall) (any, error) {
	thumbprints := q.form.list("ThumbprintList")
	if len(thumbprints) == 0 {
		return nil, apiErr(400, "InvalidInput", "Thumbprint list must contain at least one entry.")
	}
	if err := checkThumbprints(thumbprints); err != nil {
		return nil, err
	}
	return nil, q.changeProvider(conditionContext{}, func(p *provider) error {
		p.thumbprints = thumbprints
		return nil
	})
}

func tagProvider(q *queryCall) (any, error) {
	tags := q.form.tags()
	if err := checkTags(tags); err != nil {
		return nil, err
	}
	return nil, q.changeProvider(conditionContext{}.requestTags(tags), func(p *provider) error {
		p.tags = withTags(p.tags, tags)
		return q.account().checkTagQuota(p.tags)
	})
}

func untagProvider(q *queryCall) (any, error) {
	names, context := q.form.list("TagKeys"), conditionContext{}
	context.set("aws:TagKeys", names...)
	return nil, q.changeProvider(context, func(p *provider) error {
		p.tags = withoutTags(p.tags, names)
		return nil
	})
}

func listProviderTags(q *queryCall) (any, error) {
	p, err := q.readProvider()
	if err != nil {
		return nil, err
	}
	return pageOf(q, "Tags", p.tags)
}

package awstest

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// A trust document names principals by ARN, but IAM stores their unique IDs. So a
// role that is deleted and created again under its old name is another principal, and a document
// that names a deleted one shows the ID.

var accountID = regexp.MustCompile(`^[0-9]{12}$`)

// resolvePrincipals replaces the AWS principals of a trust document by what IAM stores.
func (c *Cloud) resolvePrincipals(d *document) error {
	return d.mapAWSPrincipals(func(name string) (string, error) {
		if accountID.MatchString(name) {
			return c.rootARN(name), nil
		}
		if name == "*" || c.principalARN(name) != "" {
			return name, nil
		}
		parts := strings.SplitN(name, ":", 6)
		if len(parts) == 6 && parts[5] == "root" && accountID.MatchString(parts[4]) {
			return name, nil
		}
		if len(parts) == 6 && parts[2] == "sts" && strings.HasPrefix(parts[5], "assumed-role/") {
			return name, nil
		}
		if id := c.principalID(name); id != "" {
			return id, nil
		}
		return "", malformed(`Invalid principal in policy: "AWS":"` + name + `"`)
	})
}

// showPrincipals returns the document as clients see it.
func (c *Cloud) showPrincipals(d document) document {
	_ = d.mapAWSPrincipals(func(name string) (string, error) { // the function never fails
		if arn := c.principalARN(name); arn != "" {
			return arn, nil
		}
		return name, nil
	})
	return d
}

// mapAWSPrincipals replaces the AWS principals in the document. It does not change
// anything that d shares with other documents.
func (d *document) mapAWSPrincipals(replace func(string) (string, error)) error {
	d.Statement = slices.Clone(d.Statement)
	for i := range d.Statement {
		s := &d.Statement[i]
		for _, p := range []**principals{&s.Principal, &s.NotPrincipal} {
			if *p == nil || len((*p).byKind["AWS"]) == 0 {
				continue
			}
			names := make(values, 0, len((*p).byKind["AWS"]))
			for _, name := range (*p).byKind["AWS"] {
				name, err := replace(name)
				if err != nil {
					return err
				}
				names = append(names, name)
			}
			byKind := maps.Clone((*p).byKind)
			byKind["AWS"] = names
			*p = &principals{byKind: byKind}
		}
	}
	return nil
}

func (c *Cloud) rootARN(account string) string {
	partition := "aws"
	if a := c.accounts[account]; a != nil {
		partition = a.Partition
	}
	return "arn:" + partition + ":iam::" + account + ":root"
}

// principalID returns the unique ID of the user or role with that ARN; empty if there is none, or if a new role is
// not visible yet.
func (c *Cloud) principalID(arn string) string {
	return c.findPrincipal(c.now().Add(-c.propagation), func(a, _ string) bool { return a == arn }).id
}

// principalARN returns the ARN for an ID of principalID.
func (c *Cloud) principalARN(id string) string {
	return c.findPrincipal(c.now(), func(_, i string) bool { return i == id }).arn
}

func (c *Cloud) findPrincipal(seen time.Time, match func(arn, id string) bool) (found struct{ arn, id string }) {
	for _, account := range c.accounts {
		for _, u := range account.users {
			if match(u.arn, u.id) {
				found.arn, found.id = u.arn, u.id
			}
		}
		for _, t := range account.roles {
			if r := t.seen(seen); r != nil && match(r.arn, r.id) {
				found.arn, found.id = r.arn, r.id
			}
		}
	}
	return found
}

package grantlist

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// roleModule reads the output of `aws iam get-role`, for the role of a user who followed the
// guide for AKS. Its trust document names the issuer and the service accounts.
func roleModule(data json.RawMessage) (Module, error) {
	var role struct {
		RoleName, Arn            string
		AssumeRolePolicyDocument json.RawMessage
	}
	if err := json.Unmarshal(data, &role); err != nil {
		return Module{}, fmt.Errorf("member Role: %w", err)
	}
	arn, err := policy.ParseARN(role.Arn)
	if err != nil || !arn.IsRole() || role.RoleName == "" {
		return Module{}, errors.New("member Role: must have RoleName and Arn, as `aws iam get-role` prints them")
	}
	text := string(role.AssumeRolePolicyDocument)
	var encoded string
	if json.Unmarshal(role.AssumeRolePolicyDocument, &encoded) == nil {
		text = encoded // the API returns it URL-encoded
	}
	document, err := policy.ParseDocument(text)
	if err != nil {
		return Module{}, fmt.Errorf("member Role.AssumeRolePolicyDocument: %w", err)
	}
	m := Module{Role: role.RoleName, AccountID: arn.Account}
	for i, s := range document.Statement {
		entries, err := entriesOf(s)
		if err != nil {
			return Module{}, fmt.Errorf("member Role.AssumeRolePolicyDocument: Statement[%d]: %w", i, err)
		}
		m.Entries = append(m.Entries, entries...)
	}
	if len(m.Entries) == 0 {
		return Module{}, errors.New("member Role.AssumeRolePolicyDocument: no statement allows " +
			"sts:AssumeRoleWithWebIdentity to an OIDC provider")
	}
	return m, nil
}

// entriesOf returns the service accounts that a statement trusts; none if the
// statement has another purpose.
func entriesOf(s policy.Statement) (list []Entry, err error) {
	if s.Effect != "Allow" || s.Principal == nil || !slices.Contains(s.Action, "sts:AssumeRoleWithWebIdentity") {
		return nil, nil
	}
	for _, provider := range (*s.Principal)["Federated"] {
		_, host, ok := strings.Cut(provider, ":oidc-provider/")
		if !ok {
			continue
		}
		subjects := s.Condition["StringEquals"][host+":sub"]
		if len(subjects) == 0 {
			return nil, fmt.Errorf("StringEquals has no key %s:sub, byte for byte as the provider is named: the service "+
				"accounts that it trusts are not known; write the policy by hand (docs/reference/policy.md)", host)
		}
		for _, text := range subjects {
			subject, err := policy.ParseSubject(text)
			if err != nil {
				return nil, fmt.Errorf("%s:sub: %w", host, err)
			}
			list = append(list, Entry{
				Issuer: "https://" + host, Namespace: subject.Namespace, ServiceAccount: subject.ServiceAccount,
				Audiences: s.Condition["StringEquals"][host+":aud"],
			})
		}
	}
	return list, nil
}

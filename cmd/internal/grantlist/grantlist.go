// Package grantlist reads the iam_access_grant_list of Terraform modules like that of
// kubernetes-ops, and turns it into policies. An entry of the list is a service account
// of a cluster. A policy is for one cluster, so a list can become several policies.
//
// Nothing is dropped silently: findings name what cannot be converted, and what a
// policy expresses in another way or leaves out.
package grantlist

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// Name is the variable that holds the list.
const Name = "iam_access_grant_list"

// Entry is one of the list. Other fields that it has are in Unknown.
type Entry struct {
	Description    string   `json:"description"`
	ClusterURL     string   `json:"eks_cluster_oidc_issuer_url"`
	Environment    string   `json:"environment_name"`
	Instance       string   `json:"instance_name"`
	ServiceAccount string   `json:"kube_service_account_name"`
	Namespace      string   `json:"namespace"`
	Audiences      []string `json:"oidc_provider_client_id_list"`
	Thumbprints    []string `json:"oidc_provider_thumbprint_list"`
	Issuer         string   `json:"oidc_provider_url"`

	Unknown []string `json:"-"`
}

var fields = []string{
	"description", "eks_cluster_oidc_issuer_url", "environment_name", "instance_name", "kube_service_account_name",
	"namespace", "oidc_provider_client_id_list", "oidc_provider_thumbprint_list", "oidc_provider_url",
}

// UnmarshalJSON also records the names of unknown fields.
func (e *Entry) UnmarshalJSON(data []byte) error {
	type plain Entry
	var members map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(data, (*plain)(e)), json.Unmarshal(data, &members)); err != nil {
		return err
	}
	for name := range members {
		if !slices.Contains(fields, name) {
			e.Unknown = append(e.Unknown, name)
		}
	}
	slices.Sort(e.Unknown)
	return nil
}

// Parse reads JSON, the list itself or an object that holds it under its name; or
// Terraform's syntax, a tfvars file or a configuration with a module block that
// sets it. file is for messages.
func Parse(data []byte, file string) ([]Entry, error) {
	text := strings.TrimSpace(string(data))
	switch {
	case text == "":
		return nil, errors.New("the file is empty")
	case text[0] == '[':
		return decode([]byte(text))
	case text[0] == '{':
		var object map[string]json.RawMessage
		if err := json.Unmarshal([]byte(text), &object); err != nil {
			return nil, fmt.Errorf("not JSON: %w", err)
		}
		list, found := object[Name]
		if !found {
			return nil, fmt.Errorf("the object holds no %s", Name)
		}
		return decode(list)
	}
	return parseHCL(data, file)
}

func decode(data []byte) ([]Entry, error) {
	var list []Entry
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("%s: want a list of entries: %w", Name, err)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s is empty", Name)
	}
	return list, nil
}

func parseHCL(data []byte, file string) ([]Entry, error) {
	parsed, diagnostics := hclsyntax.ParseConfig(data, file, hcl.InitialPos)
	if diagnostics.HasErrors() {
		return nil, diagnostics
	}
	var found []*hclsyntax.Attribute
	body := parsed.Body.(*hclsyntax.Body)
	if a := body.Attributes[Name]; a != nil {
		found = append(found, a)
	}
	for _, b := range body.Blocks {
		if a := b.Body.Attributes[Name]; a != nil && b.Type == "module" {
			found = append(found, a)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("the file sets no %s, neither by itself nor in a module block", Name)
	case 1:
	default:
		return nil, fmt.Errorf("the file sets %s %d times: keep one", Name, len(found))
	}
	value, diagnostics := found[0].Expr.Value(nil)
	if diagnostics.HasErrors() {
		return nil, fmt.Errorf(
			"%s refers to something else, which is not known here: write the values out, or take them from terraform output -json: %w",
			Name,
			diagnostics,
		)
	}
	if !value.IsWhollyKnown() || value.IsNull() || value.Type() == cty.NilType {
		return nil, fmt.Errorf("%s has no value", Name)
	}
	text, err := ctyjson.Marshal(value, value.Type())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", Name, err)
	}
	return decode(text)
}

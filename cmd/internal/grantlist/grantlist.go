// Package grantlist reads the iam_access_grant_list of Terraform modules like that of
// kubernetes-ops, and converts it into policies. An entry of the list is a service account
// of a cluster. A policy is for one cluster, so a list can become several policies.
//
// Nothing is dropped silently: findings name what cannot be converted, and what a
// policy expresses differently or leaves out.
package grantlist

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	ctyjson "github.com/zclconf/go-cty/cty/json"
)

// Name is the variable that holds the list.
const Name = "iam_access_grant_list"

// Entry is an entry of the list. The names of its other fields are in Unknown.
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

// UnmarshalJSON decodes an entry and records the names of unknown fields.
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

// Module holds the inputs of the module in a file. For a file of `terraform output -json` it also
// holds outputs.
type Module struct {
	// Address is the address of the module block, such as module.amp; empty if the file has none.
	Address string
	Entries []Entry
	// Tags, Alias, AccountID and Instance are the inputs of the same names.
	Tags                       map[string]string
	Alias, AccountID, Instance string
	// Workspace is the output arn.
	Workspace string
	// Role is the name of the role, if the file describes a role and not a module.
	Role string
	// Unknown are the names of unknown inputs.
	Unknown []string
}

// values are inputs and outputs by name, as JSON.
type values map[string]json.RawMessage

// Parse reads a file with the list: see [ParseModule].
func Parse(data []byte, file string) ([]Entry, error) {
	m, err := ParseModule(data, file)
	if err == nil && len(m.Entries) == 0 {
		err = fmt.Errorf("the file does not set %s: not at the top, not in a module block, not in a variable's default", Name)
		if strings.HasPrefix(strings.TrimSpace(string(data)), "{") {
			err = fmt.Errorf("the object has no %s", Name)
		}
	}
	return m.Entries, err
}

// ParseModule reads JSON or Terraform's syntax. JSON can be the list itself, an object with the
// list under its name, the output of `terraform output -json`, or that of `aws iam get-role`.
// Terraform's syntax can be a tfvars file, or a configuration with a module block or with
// defaults of variables. Errors contain file.
func ParseModule(data []byte, file string) (Module, error) {
	text := strings.TrimSpace(string(data))
	switch {
	case text == "":
		return Module{}, errors.New("the file is empty")
	case text[0] == '[':
		return moduleOf("", values{Name: json.RawMessage(text)})
	case text[0] == '{':
		object := values{}
		if err := json.Unmarshal([]byte(text), &object); err != nil {
			return Module{}, fmt.Errorf("not JSON: %w", err)
		}
		if role, found := object["Role"]; found {
			return roleModule(role)
		}
		for name, member := range object {
			var output struct {
				Type, Value json.RawMessage
			}
			if json.Unmarshal(member, &output) == nil && output.Type != nil && output.Value != nil {
				object[name] = output.Value
			}
		}
		return moduleOf("", object)
	}
	return parseHCL(data, file)
}

// known are the module's inputs and outputs, and the arguments of every module block.
var known = []string{
	Name, "tags", "workspace_alias", "account_id", "instance_name", "arn", "id", "prometheus_endpoint",
	"source", "version", "providers", "count", "for_each", "depends_on",
}

// scalar is a text. Terraform also accepts a number or a bool for one.
type scalar string

func (s *scalar) UnmarshalJSON(data []byte) error {
	if strings.ContainsRune("-0123456789tf", rune(data[0])) {
		*s = scalar(data)
		return nil
	}
	return json.Unmarshal(data, (*string)(s))
}

// moduleOf reads the known values.
func moduleOf(address string, v values) (m Module, err error) {
	var tags map[string]scalar
	for name, into := range map[string]any{
		"tags": &tags, "workspace_alias": (*scalar)(&m.Alias), "account_id": (*scalar)(&m.AccountID),
		"instance_name": (*scalar)(&m.Instance), "arn": &m.Workspace,
	} {
		if text, found := v[name]; found {
			if err := json.Unmarshal(text, into); err != nil {
				return m, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	m.Address = address
	for name, tag := range tags {
		if m.Tags == nil {
			m.Tags = map[string]string{}
		}
		m.Tags[name] = string(tag)
	}
	for name := range v {
		if !slices.Contains(known, name) {
			m.Unknown = append(m.Unknown, name)
		}
	}
	slices.Sort(m.Unknown)
	if text, found := v[Name]; found {
		m.Entries, err = decode(text)
	}
	return m, err
}

func decode(data []byte) ([]Entry, error) {
	var list []Entry
	if err := json.Unmarshal(data, &list); err != nil {
		return nil, fmt.Errorf("%s: must be a list of entries: %w", Name, err)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s is empty", Name)
	}
	return list, nil
}

func parseHCL(data []byte, file string) (Module, error) {
	parsed, diagnostics := hclsyntax.ParseConfig(data, file, hcl.InitialPos)
	if diagnostics.HasErrors() {
		return Module{}, diagnostics
	}
	body := parsed.Body.(*hclsyntax.Body)
	inputs, address, lists := hclsyntax.Attributes{}, "", 0
	for name, a := range body.Attributes {
		inputs[name] = a
		if name == Name {
			lists++
		}
	}
	for _, b := range body.Blocks {
		switch {
		case b.Type == "variable" && len(b.Labels) == 1 && b.Body.Attributes["default"] != nil:
			inputs[b.Labels[0]] = b.Body.Attributes["default"]
			if b.Labels[0] == Name {
				lists++
			}
		case b.Type == "module" && len(b.Labels) == 1 && b.Body.Attributes[Name] != nil:
			lists++
			address = "module." + b.Labels[0]
			maps.Copy(inputs, b.Body.Attributes)
		}
	}
	if lists > 1 {
		return Module{}, fmt.Errorf("the file sets %s %d times: keep one", Name, lists)
	}
	found, unreadable := values{}, []string{}
	for name, a := range inputs {
		text, err := literal(name, a.Expr)
		switch {
		case err == nil:
			found[name] = text
		case name == Name:
			return Module{}, err
		default:
			unreadable = append(unreadable, name)
		}
	}
	m, err := moduleOf(address, found)
	for _, name := range unreadable {
		if !slices.Contains(known, name) || slices.Contains([]string{"tags", "workspace_alias", "account_id", "instance_name"}, name) {
			m.Unknown = append(m.Unknown, name)
		}
	}
	slices.Sort(m.Unknown)
	return m, err
}

// literal returns an expression as JSON. The expression must not refer to anything else.
func literal(name string, e hclsyntax.Expression) (json.RawMessage, error) {
	value, diagnostics := e.Value(nil)
	if diagnostics.HasErrors() {
		return nil, fmt.Errorf(
			"%s refers to another value, which is not known here: write the values themselves, or take them from "+
				"terraform output -json: %w",
			name,
			diagnostics,
		)
	}
	if !value.IsWhollyKnown() || value.IsNull() || value.Type() == cty.NilType {
		return nil, fmt.Errorf("%s has no value", name)
	}
	text, err := ctyjson.Marshal(value, value.Type())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return text, nil
}

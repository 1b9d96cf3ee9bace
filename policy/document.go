package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"

	strictjson "github.com/go-json-experiment/json"
)

// DocumentVersion is the current version of IAM's policy language.
const DocumentVersion = "2012-10-17"

// Document is an IAM policy document
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_grammar.html).
type Document struct {
	Version   string      `json:",omitempty"`
	ID        string      `json:"Id,omitempty"`
	Statement []Statement `json:""`
}

// Statement is one rule of a document. It has every element of the grammar, so that a
// document that others wrote loses nothing when it is compared.
type Statement struct {
	Sid          string     `json:",omitempty"`
	Effect       string     `json:""`
	Principal    *Principal `json:",omitempty"`
	NotPrincipal *Principal `json:",omitempty"`
	Action       Values     `json:",omitempty"`
	NotAction    Values     `json:",omitempty"`
	Resource     Values     `json:",omitempty"`
	NotResource  Values     `json:",omitempty"`
	// Condition maps an operator to keys, and each key to values.
	Condition map[string]map[string]Values `json:",omitempty"`
}

// Principal is what a statement applies to. It maps a kind (AWS, Federated, Service,
// CanonicalUser) to names.
type Principal map[string]Values

// UnmarshalJSON reads a principal. In the grammar, "*" alone means {"AWS": "*"}.
func (p *Principal) UnmarshalJSON(data []byte) error {
	var anyone string
	if json.Unmarshal(data, &anyone) == nil {
		*p = Principal{"AWS": {anyone}}
		return nil
	}
	return json.Unmarshal(data, (*map[string]Values)(p))
}

// Values is a list. IAM also writes a list of one element as a scalar.
type Values []string

// MarshalJSON writes a list of one element as a scalar, because that is shorter: a trust
// document may have 2,048 characters.
func (v Values) MarshalJSON() ([]byte, error) {
	if len(v) == 1 {
		return json.Marshal(v[0])
	}
	return json.Marshal([]string(v))
}

// UnmarshalJSON reads a list or a scalar. Conditions can contain booleans and numbers, which
// become text.
func (v *Values) UnmarshalJSON(data []byte) error {
	var list []json.RawMessage
	if json.Unmarshal(data, &list) != nil {
		list = []json.RawMessage{data}
	}
	*v = make(Values, len(list))
	for i, item := range list {
		if json.Unmarshal(item, &(*v)[i]) != nil {
			(*v)[i] = string(item)
		}
	}
	return nil
}

// String returns the document as ampbridge sends it to IAM: JSON without white space.
func (d Document) String() string {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(d); err != nil {
		panic(err) // cannot happen: strings, slices and maps of strings always encode
	}
	return strings.TrimSpace(b.String())
}

// ParseDocument reads a document as IAM returns it: JSON, which may be URL-encoded (RFC 3986).
// An element that the grammar does not have, or that appears twice, is an error, because it is
// not known how IAM understands it.
func ParseDocument(s string) (Document, error) {
	if strings.HasPrefix(s, "%") {
		decoded, err := url.PathUnescape(s)
		if err != nil {
			return Document{}, fmt.Errorf("policy document: %w", err)
		}
		s = decoded
	}
	var d Document
	if err := decodeStrictly(s, &d); err != nil {
		// The grammar allows one statement without a list around it.
		var single struct {
			Version   string
			ID        string `json:"Id"`
			Statement Statement
		}
		if decodeStrictly(s, &single) != nil {
			return Document{}, fmt.Errorf("policy document: %w", err)
		}
		d = Document{Version: single.Version, ID: single.ID, Statement: []Statement{single.Statement}}
	}
	return d, nil
}

func decodeStrictly(s string, into any) error {
	// encoding/json would accept "effect" for Effect, and would use the last of two equal keys.
	return strictjson.Unmarshal([]byte(s), into, strictjson.RejectUnknownMembers(true))
}

// TrustDocument lets exactly the subjects of one issuer assume a role, with tokens of the
// audience alone. It has one statement with sorted subjects, so that equal input gives equal text.
// There must be at least one subject: an empty list matches nothing, and IAM refuses it.
func TrustDocument(provider ARN, issuer Issuer, audience string, subjects []Subject) Document {
	subs := make(Values, len(subjects))
	for i, s := range subjects {
		subs[i] = s.String()
	}
	slices.Sort(subs)
	return Document{Version: DocumentVersion, Statement: []Statement{{
		Effect:    "Allow",
		Principal: &Principal{"Federated": {provider.String()}},
		Action:    Values{"sts:AssumeRoleWithWebIdentity"},
		// Not …IfExists or ForAllValues, because those also match a token without the claim.
		// Not StringLike, because it reads `*` as a wildcard.
		Condition: map[string]map[string]Values{"StringEquals": {
			issuer.Host() + ":aud": {audience},
			issuer.Host() + ":sub": slices.Compact(subs),
		}},
	}}}
}

// PermissionDocument allows what the destination's access needs, and nothing else. The
// resource is the workspace itself, or the second role.
func PermissionDocument(d Destination) Document {
	s := Statement{Effect: "Allow", Action: d.Actions(), Resource: Values{d.Workspace.String()}}
	if !d.AssumeRole.IsZero() {
		s.Action, s.Resource = Values{"sts:AssumeRole"}, Values{d.AssumeRole.String()}
	}
	return Document{Version: DocumentVersion, Statement: []Statement{s}}
}

// Subjects returns the subjects of an issuer that d trusts by statements in the exact form of
// [TrustDocument]. It leaves out patterns, and names that no service account can have.
func (d Document) Subjects(issuer Issuer) []Subject {
	var list []Subject
	for _, s := range d.Statement {
		if s.Effect != "Allow" {
			continue
		}
		for _, sub := range s.Condition["StringEquals"][issuer.Host()+":sub"] {
			if subject, err := ParseSubject(sub); err == nil {
				list = append(list, subject)
			}
		}
	}
	return list
}

// Equal reports whether two documents have the same meaning for IAM. The order does not count,
// a list of one element equals the element, an account id equals the ARN of the account's root,
// and the case of action and operator names does not count.
func Equal(a, b Document) bool { return a.canonical().String() == b.canonical().String() }

func (d Document) canonical() Document {
	c := Document{Version: d.Version, ID: d.ID, Statement: make([]Statement, len(d.Statement))}
	for i, s := range d.Statement {
		s.Principal, s.NotPrincipal = s.Principal.canonical(), s.NotPrincipal.canonical()
		s.Action, s.NotAction = s.Action.canonical(strings.ToLower), s.NotAction.canonical(strings.ToLower)
		s.Resource, s.NotResource = s.Resource.canonical(nil), s.NotResource.canonical(nil)
		conditions := map[string]map[string]Values{}
		spellings := map[string]int{}
		for operator := range s.Condition {
			spellings[strings.ToLower(operator)]++
		}
		for operator, keys := range s.Condition {
			// If one operator is written in two cases, both stay: neither may hide the other.
			if folded := strings.ToLower(operator); spellings[folded] == 1 {
				operator = folded
			}
			conditions[operator] = map[string]Values{}
			for key, values := range keys {
				conditions[operator][key] = values.canonical(nil)
			}
		}
		s.Condition = conditions
		c.Statement[i] = s
	}
	slices.SortFunc(c.Statement, func(a, b Statement) int {
		return strings.Compare(Document{Statement: []Statement{a}}.String(), Document{Statement: []Statement{b}}.String())
	})
	return c
}

func (p *Principal) canonical() *Principal {
	if p == nil {
		return nil
	}
	c := Principal{}
	for kind, names := range *p {
		c[kind] = names.canonical(func(name string) string {
			if a, err := ParseARN(name); kind == "AWS" && err == nil && a.Service == "iam" && a.Resource == "root" {
				return a.Account
			}
			return name
		})
	}
	return &c
}

func (v Values) canonical(fold func(string) string) Values {
	if v == nil {
		return nil
	}
	c := slices.Clone(v)
	for i := range c {
		if fold != nil {
			c[i] = fold(c[i])
		}
	}
	slices.Sort(c)
	return slices.Compact(c)
}

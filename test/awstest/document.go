package awstest

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// document is a policy as IAM understands it.
type document struct {
	Version   string     `json:",omitzero"`
	ID        string     `json:"Id,omitzero"`
	Statement statements `json:",omitzero"`
}

type statement struct {
	Sid          string                       `json:",omitzero"`
	Effect       string                       `json:",omitzero"`
	Principal    *principals                  `json:",omitzero"`
	NotPrincipal *principals                  `json:",omitzero"`
	Action       values                       `json:",omitzero"`
	NotAction    values                       `json:",omitzero"`
	Resource     values                       `json:",omitzero"`
	NotResource  values                       `json:",omitzero"`
	Condition    map[string]map[string]values `json:",omitzero"`
}

// statements are one or more statements. One can be written without an array.
type statements []statement

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (s *statements) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() == '{' {
		var one statement
		if err := json.UnmarshalDecode(d, &one); err != nil {
			return err
		}
		*s = statements{one}
		return nil
	}
	return json.UnmarshalDecode(d, (*[]statement)(s))
}

// values are one scalar or an array of them.
type values []string

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (v *values) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	var read any
	if err := json.UnmarshalDecode(d, &read); err != nil {
		return err
	}
	list, ok := read.([]any)
	if !ok {
		list = []any{read}
	}
	*v = make(values, 0, len(list))
	for _, item := range list {
		switch item := item.(type) {
		case string:
			*v = append(*v, item)
		case bool:
			*v = append(*v, strconv.FormatBool(item))
		case float64:
			*v = append(*v, strconv.FormatFloat(item, 'f', -1, 64))
		default:
			return fmt.Errorf("not a scalar: %v", item)
		}
	}
	return nil
}

// MarshalJSONTo implements json.MarshalerTo. IAM does not keep the order of an array, and does not
// distinguish an array of one from a scalar. Descending order differs from what most clients
// send, so a test finds clients that compare text.
func (v values) MarshalJSONTo(e *jsontext.Encoder) error {
	if len(v) == 1 {
		return json.MarshalEncode(e, v[0])
	}
	ordered := slices.Clone(v)
	slices.Sort(ordered)
	slices.Reverse(ordered)
	return json.MarshalEncode(e, []string(ordered))
}

// principals are "*" or lists by kind (AWS, Federated, Service).
type principals struct {
	everyone bool
	byKind   map[string]values
}

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (p *principals) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	if d.PeekKind() == '{' {
		return json.UnmarshalDecode(d, &p.byKind)
	}
	var star string
	if err := json.UnmarshalDecode(d, &star); err != nil {
		return err
	}
	if star != "*" {
		return fmt.Errorf("principal %q is neither * nor an object", star)
	}
	p.everyone = true
	return nil
}

// MarshalJSONTo implements json.MarshalerTo.
func (p *principals) MarshalJSONTo(e *jsontext.Encoder) error {
	if p.everyone {
		return json.MarshalEncode(e, "*")
	}
	return json.MarshalEncode(e, p.byKind, json.Deterministic(true))
}

// canonical returns the text that IAM returns for the document.
func (d document) canonical() string {
	text, err := json.Marshal(d, json.Deterministic(true))
	if err != nil {
		panic("a parsed policy does not marshal: " + err.Error()) // strings and maps of strings always do
	}
	return string(text)
}

// documentKind is what a document is attached to. It determines the elements that the document
// may have.
type documentKind int

const (
	trustPolicy documentKind = iota
	identityPolicy
)

var (
	validSid     = regexp.MustCompile(`^[0-9A-Za-z]*$`)
	trustActions = regexp.MustCompile(
		`(?i)^sts:(AssumeRole|AssumeRoleWithWebIdentity|AssumeRoleWithSAML|TagSession|SetSourceIdentity|SetContext|\*|AssumeRole\*)$`,
	)
	vendorAction   = regexp.MustCompile(`^[0-9A-Za-z-]+:[0-9A-Za-z*?]+$`)
	principalKinds = []string{"AWS", "CanonicalUser", "Federated", "Service"}
)

// parseDocument parses a policy. It refuses what IAM refuses, with
// MalformedPolicyDocument.
func parseDocument(kind documentKind, text string) (document, error) {
	var d document
	if err := json.Unmarshal([]byte(text), &d, json.RejectUnknownMembers(true)); err != nil {
		return d, malformed("Syntax errors in policy.")
	}
	if !slices.Contains([]string{"", "2008-10-17", "2012-10-17"}, d.Version) {
		return d, malformed("The policy must contain a valid version string.")
	}
	if len(d.Statement) == 0 {
		return d, malformed("Syntax errors in policy.")
	}
	sids := map[string]bool{}
	for _, s := range d.Statement {
		if err := s.check(kind); err != nil {
			return d, err
		}
		if s.Sid != "" && sids[s.Sid] {
			return d, malformed("Statement IDs (SID) in a single policy must be unique.")
		}
		sids[s.Sid] = true
	}
	return d, nil
}

func (s statement) check(kind documentKind) error {
	switch {
	case !validSid.MatchString(s.Sid):
		return malformed("Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the regular expression [0-9A-Za-z]*")
	case s.Effect != "Allow" && s.Effect != "Deny":
		return malformed("Syntax errors in policy.")
	case (len(s.Action) == 0) == (len(s.NotAction) == 0):
		return malformed("Policy statement must contain actions.")
	}
	for _, action := range append(slices.Clone(s.Action), s.NotAction...) {
		if action != "*" && !vendorAction.MatchString(action) {
			return malformed("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.")
		}
		if kind == trustPolicy && !trustActions.MatchString(action) {
			return malformed("AssumeRole policy may only specify STS AssumeRole actions.")
		}
	}
	for operator := range s.Condition {
		if _, ok := parseOperator(operator); !ok {
			return malformed("Invalid Condition type : " + operator + ".")
		}
	}
	if kind == trustPolicy {
		return s.checkTrust()
	}
	return s.checkIdentity()
}

func (s statement) checkTrust() error {
	if len(s.Resource)+len(s.NotResource) > 0 {
		return malformed("Has prohibited field Resource")
	}
	if (s.Principal == nil) == (s.NotPrincipal == nil) {
		return malformed("Missing required field Principal")
	}
	for _, p := range []*principals{s.Principal, s.NotPrincipal} {
		if p == nil || p.everyone {
			continue
		}
		if len(p.byKind) == 0 {
			return malformed("Missing required field Principal cannot be empty!")
		}
		for kind, names := range p.byKind {
			if !slices.Contains(principalKinds, kind) || len(names) == 0 {
				return malformed("Syntax errors in policy.")
			}
		}
	}
	return nil
}

func (s statement) checkIdentity() error {
	if s.Principal != nil || s.NotPrincipal != nil {
		return malformed("Policy document should not specify a principal.")
	}
	if (len(s.Resource) == 0) == (len(s.NotResource) == 0) {
		return malformed("Policy statement must contain resources.")
	}
	for _, resource := range append(slices.Clone(s.Resource), s.NotResource...) {
		if resource != "*" && !strings.HasPrefix(resource, "arn:") {
			return malformed(fmt.Sprintf(`Resource %s must be in ARN format or "*".`, resource))
		}
	}
	return nil
}

func malformed(message string) error { return apiErr(400, "MalformedPolicyDocument", message) }

// withoutSpace returns the text that counts against the quotas of identity policies.
func withoutSpace(text string) string {
	return strings.Join(strings.Fields(text), "")
}

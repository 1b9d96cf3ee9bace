package inject

import (
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"gomodules.xyz/jsonpatch/v2"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/webhook/jsonread"
)

// ServiceAccount is the part of a v1.ServiceAccount that annotating needs. [Pod] describes how to
// decode it.
type ServiceAccount struct {
	Metadata Metadata
}

// UnmarshalJSONFrom decodes a v1.ServiceAccount.
func (s *ServiceAccount) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	return s.ReadJSON(jsonread.From(d))
}

// ReadJSON decodes a v1.ServiceAccount.
func (s *ServiceAccount) ReadJSON(r *jsonread.Reader) error {
	return jsonread.Object(r, s, (*ServiceAccount).member)
}

func (s *ServiceAccount) member(r *jsonread.Reader, name []byte) error {
	if string(name) == "metadata" {
		return jsonread.Object(r, &s.Metadata, (*Metadata).member)
	}
	return r.SkipValue()
}

// Annotate writes to a service account what the policy resolves for it. ampbridge.io/role-arn gets
// the role of each of its destinations, in the policy's order. If a grant has `irsa: true`,
// eks.amazonaws.com/role-arn gets that grant's role. An existing value is kept; if it differs, the
// decision has a warning. Only a value that this function wrote under the other trust.roleScope is
// replaced.
func Annotate(sa *ServiceAccount, injection policy.Injection, p *policy.Policy) ([]jsonpatch.Operation, policy.Decision) {
	have := sa.Metadata.Annotations
	d := p.Decide(policy.Request{
		Namespace:                 sa.Metadata.Namespace,
		Injection:                 injection,
		ServiceAccount:            sa.Metadata.Name,
		ServiceAccountAnnotations: have,
		Account:                   true,
	})
	if !d.Inject {
		// Most service accounts of a namespace are not related to Prometheus.
		if d.Reason == policy.NotGranted && have[policy.AnnotationInject] != "true" {
			d.Warning = ""
		}
		return nil, d
	}
	roles, former := make([]string, len(d.Destinations)), make([]string, len(d.Destinations))
	var irsa string
	for i, destination := range d.Destinations {
		roles[i], former[i] = p.RoleFor(destination, d.Subject).String(), p.Role(destination).String()
		if p.Trust.RoleScope != policy.RoleScopeServiceAccount {
			former[i] = p.ServiceAccountRole(destination, d.Subject).String()
		}
		if roles[i] == d.IRSA.String() {
			irsa = former[i]
		}
	}
	var ops patch
	var taken []string
	show := func(key, value, former string) {
		switch current, set := have[key]; {
		case !set || current == former && current != value:
			ops.annotate(have, key, value)
			if have == nil {
				have = map[string]string{} // it exists after the first annotation
			}
		case current != value:
			taken = append(taken, key)
		}
	}
	show(policy.AnnotationRoleARN, strings.Join(roles, ","), strings.Join(former, ","))
	if !d.IRSA.IsZero() {
		show(policy.AnnotationIRSA, d.IRSA.String(), irsa)
	}
	switch {
	case len(taken) > 0:
		d.Reason = AnnotationTaken
		d.Warning = warning(
			"service account %q keeps its own %s, which differs from the policy's: remove it to get the policy's",
			sa.Metadata.Name,
			strings.Join(taken, ", "),
		)
	case len(ops.operations) == 0:
		d.Reason = AlreadyInjected
	}
	return ops.operations, d
}

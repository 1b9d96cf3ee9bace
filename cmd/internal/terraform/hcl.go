package terraform

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/ampbridge/ampbridge/policy"
)

// quote is s as a string literal: quotes, line ends and the beginnings of
// templates, ${ and %{, stand for themselves.
func quote(s string) string { return string(hclwrite.TokensForValue(cty.StringVal(s)).Bytes()) }

// comment keeps a text, whatever is in it, within a comment.
func comment(format string, args ...any) string {
	text := strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")
	return "# " + text + "\n"
}

// label is the name of a destination as the name of a resource. Terraform's do
// not begin with a digit; DNS labels have no underscore, so none become one.
func label(name string) string {
	if name[0] >= '0' && name[0] <= '9' {
		name = "_" + name
	}
	return strings.ReplaceAll(name, "-", "_")
}

// serviceAccountLabel is the name of a resource for one service account. Dashes
// stay, so that an underscore stands for a dot, and no two become one: neither
// destinations nor namespaces have dots.
func serviceAccountLabel(destination, namespace, account string) string {
	name := destination + "_" + namespace + "_" + strings.ReplaceAll(account, ".", "_")
	if name[0] >= '0' && name[0] <= '9' {
		name = "_" + name
	}
	return name
}

// key is the key of an object, in quotes where it needs them.
func key(s string) string {
	if hclsyntax.ValidIdentifier(s) {
		return s
	}
	return quote(s)
}

func lines(list []string) string {
	var b strings.Builder
	b.WriteString("[\n")
	for _, s := range list {
		b.WriteString(quote(s) + ",\n")
	}
	b.WriteString("]")
	return b.String()
}

func object(m map[string]string) string {
	var b strings.Builder
	b.WriteString("{\n")
	for _, k := range slices.Sorted(maps.Keys(m)) {
		b.WriteString(key(k) + " = " + quote(m[k]) + "\n")
	}
	b.WriteString("}")
	return b.String()
}

// references are the expressions that stand for values which are known only
// when the configuration is applied, or that order what depends on them.
type references map[string]string

func (r references) expression(value string) string {
	if expression, found := r[value]; found {
		return expression
	}
	return quote(value)
}

func (r references) list(v policy.Values) string {
	var b strings.Builder
	b.WriteString("[\n")
	for _, s := range v {
		b.WriteString(r.expression(s) + ",\n")
	}
	b.WriteString("]")
	return b.String()
}

// short writes a single value as IAM does, without its list.
func (r references) short(v policy.Values) string {
	if len(v) == 1 {
		return r.expression(v[0])
	}
	return r.list(v)
}

// document is d as an expression. jsonencode rather than the provider's
// aws_iam_policy_document: a reviewer reads the document that IAM will be given,
// and anything that reads HCL can compare it.
func (r references) document(d policy.Document) string {
	var b strings.Builder
	b.WriteString("jsonencode({\nVersion = " + quote(d.Version) + "\nStatement = [\n")
	for _, s := range d.Statement {
		b.WriteString("{\n")
		if s.Sid != "" {
			b.WriteString("Sid = " + quote(s.Sid) + "\n")
		}
		b.WriteString("Effect = " + quote(s.Effect) + "\n")
		if s.Principal != nil {
			b.WriteString("Principal = {\n")
			for _, kind := range slices.Sorted(maps.Keys(*s.Principal)) {
				b.WriteString(key(kind) + " = " + r.short((*s.Principal)[kind]) + "\n")
			}
			b.WriteString("}\n")
		}
		for _, part := range []struct {
			name   string
			values policy.Values
			write  func(policy.Values) string
		}{{"Action", s.Action, r.short}, {"NotAction", s.NotAction, r.short}, {"Resource", s.Resource, r.list}} {
			if len(part.values) > 0 {
				b.WriteString(part.name + " = " + part.write(part.values) + "\n")
			}
		}
		if len(s.Condition) > 0 {
			b.WriteString("Condition = {\n")
			for _, operator := range slices.Sorted(maps.Keys(s.Condition)) {
				b.WriteString(key(operator) + " = {\n")
				for _, k := range slices.Sorted(maps.Keys(s.Condition[operator])) {
					write := r.short
					if strings.HasSuffix(k, ":sub") {
						write = r.list
					}
					b.WriteString(key(k) + " = " + write(s.Condition[operator][k]) + "\n")
				}
				b.WriteString("}\n")
			}
			b.WriteString("}\n")
		}
		b.WriteString("},\n")
	}
	b.WriteString("]\n})")
	return b.String()
}

// attribute is one line of a block.
type attribute struct{ name, expression string }

// block writes a resource. Attributes without an expression are left out.
func block(kind, name string, attributes ...attribute) string {
	var b strings.Builder
	fmt.Fprintf(&b, "resource %q %q {\n", kind, name)
	for _, a := range attributes {
		if a.expression != "" {
			b.WriteString(a.name + " = " + a.expression + "\n")
		}
	}
	b.WriteString("}\n")
	return b.String()
}

// Versions of the aws provider: since the first it does without thumbprints, since
// the second a resource may be of another region than the provider.
const (
	withoutThumbprints = ">= 5.81"
	withRegions        = ">= 6.0"
)

// Versions of Terraform: the first has postconditions, the second import blocks, the
// third removed blocks too.
const (
	basic       = ">= 1.2"
	withImports = ">= 1.5"
	withRemoved = ">= 1.7"
)

// importBlock lets Terraform take over what exists. Where the state has it already, it
// does nothing.
func importBlock(address, id string) string {
	return "import {\nto = " + address + "\nid = " + quote(id) + "\n}\n"
}

// head begins a configuration. Its postcondition fails the plan of everybody who
// has credentials of another account.
func head(account, terraform, provider string) string {
	return fmt.Sprintf(`terraform {
required_version = %s
required_providers {
aws = {
source = "hashicorp/aws"
version = %s
}
}
}

data "aws_caller_identity" "current" {
lifecycle {
postcondition {
condition = self.account_id == %s
error_message = %s
}
}
}
`, quote(terraform), quote(provider), quote(account), quote("This belongs in account "+account+": use credentials of that account."))
}

// format joins the parts of a configuration as `terraform fmt` does.
func format(parts ...string) []byte { return hclwrite.Format([]byte(strings.Join(parts, "\n"))) }

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

// quote returns s as a string literal. It escapes quotes, line ends and the beginnings of
// templates, ${ and %{.
func quote(s string) string { return string(hclwrite.TokensForValue(cty.StringVal(s)).Bytes()) }

// comment returns any text as a comment.
func comment(format string, args ...any) string {
	text := strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " ")
	return "# " + text + "\n"
}

// label returns the name of a resource for a destination. Terraform's names do
// not begin with a digit. DNS labels contain no underscore, so two names never become equal.
func label(name string) string {
	if name[0] >= '0' && name[0] <= '9' {
		name = "_" + name
	}
	return strings.ReplaceAll(name, "-", "_")
}

// serviceAccountLabel returns the name of a resource for one service account. It keeps dashes, and
// replaces dots by underscores. Destinations and namespaces contain no dots, so two names never
// become equal.
func serviceAccountLabel(destination, namespace, account string) string {
	name := destination + "_" + namespace + "_" + strings.ReplaceAll(account, ".", "_")
	if name[0] >= '0' && name[0] <= '9' {
		name = "_" + name
	}
	return name
}

// key returns the key of an object, quoted if necessary.
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

// references are expressions for values that are known only
// when the configuration is applied, or that set an order for their users.
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

// short returns a single value without a list, as IAM writes it.
func (r references) short(v policy.Values) string {
	if len(v) == 1 {
		return r.expression(v[0])
	}
	return r.list(v)
}

// document returns d as an expression. It uses jsonencode and not the provider's
// aws_iam_policy_document, so that a reviewer reads the document that IAM will get,
// and tools that read HCL can compare it.
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

// block returns a resource. It leaves out attributes without an expression.
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

// Versions of the aws provider. Since the first, no thumbprints are needed. Since
// the second, a resource can be in another region than the provider.
const (
	withoutThumbprints = ">= 5.81"
	withRegions        = ">= 6.0"
)

// Versions of Terraform. The first has postconditions, the second import blocks, and the
// third removed blocks.
const (
	basic       = ">= 1.2"
	withImports = ">= 1.5"
	withRemoved = ">= 1.7"
)

// importBlock makes Terraform take over what exists. If the state has it already, the block
// does nothing.
func importBlock(address, id string) string {
	return "import {\nto = " + address + "\nid = " + quote(id) + "\n}\n"
}

// head returns the beginning of a configuration. Its postcondition fails the plan if
// the credentials belong to another account.
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
`, quote(terraform), quote(provider), quote(account),
		quote("This configuration is for account "+account+": use credentials of that account."))
}

// format joins the parts of a configuration as `terraform fmt` does.
func format(parts ...string) []byte { return hclwrite.Format([]byte(strings.Join(parts, "\n"))) }

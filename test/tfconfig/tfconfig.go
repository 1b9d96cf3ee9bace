// Package tfconfig reads a Terraform configuration back, for tests: it evaluates
// the attributes of every resource with HCL's own evaluator, as Terraform does,
// without a provider and without an account. Of functions it knows jsonencode
// alone, of references those to attributes of other resources; anything else is
// an error, so that a test does not pass over what it cannot read.
package tfconfig

import (
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/function/stdlib"

	"github.com/ampbridge/ampbridge/policy"
)

// Config is what a configuration declares.
type Config struct {
	// Resources by address, as in aws_iam_role.central.
	Resources map[string]Resource
	// Outputs are the names of its outputs.
	Outputs []string
	// Removed are the addresses that its removed blocks let go, and whether what is
	// there is destroyed.
	Removed map[string]bool
}

// Resource is one resource block.
type Resource struct {
	// Attributes are evaluated: strings, numbers, lists and objects of them.
	Attributes map[string]cty.Value
	// Blocks are the types of the blocks within it, such as lifecycle.
	Blocks []string
}

// Parse evaluates a configuration. known says what attributes will be once
// resources are made, by their address, as in aws_prometheus_workspace.central →
// arn → value; those that the configuration itself sets need not be in it.
func Parse(text []byte, known map[string]map[string]string) (Config, error) {
	file, diagnostics := hclsyntax.ParseConfig(text, "main.tf", hcl.InitialPos)
	if diagnostics.HasErrors() {
		return Config{}, diagnostics
	}
	body := file.Body.(*hclsyntax.Body)
	values := map[string]map[string]cty.Value{}
	for address, attributes := range known {
		values[address] = map[string]cty.Value{}
		for name, value := range attributes {
			values[address][name] = cty.StringVal(value)
		}
	}
	// Literals first, so that others can refer to them.
	for _, b := range resources(body) {
		for name, a := range b.Body.Attributes {
			if value, d := a.Expr.Value(nil); !d.HasErrors() {
				if values[address(b)] == nil {
					values[address(b)] = map[string]cty.Value{}
				}
				values[address(b)][name] = value
			}
		}
	}
	context := scope(values)
	c := Config{Resources: map[string]Resource{}, Removed: map[string]bool{}}
	for _, b := range resources(body) {
		at := address(b)
		if _, twice := c.Resources[at]; twice {
			return Config{}, fmt.Errorf("%s stands there twice", at)
		}
		r := Resource{Attributes: map[string]cty.Value{}}
		for name, a := range b.Body.Attributes {
			value, diagnostics := a.Expr.Value(context)
			if diagnostics.HasErrors() {
				return Config{}, fmt.Errorf("%s.%s: %w", at, name, diagnostics)
			}
			r.Attributes[name] = value
		}
		for _, inner := range b.Body.Blocks {
			r.Blocks = append(r.Blocks, inner.Type)
		}
		c.Resources[at] = r
	}
	for _, b := range body.Blocks {
		switch b.Type {
		case "output":
			c.Outputs = append(c.Outputs, b.Labels[0])
		case "removed":
			at, destroys, err := removed(b.Body)
			if err != nil {
				return Config{}, err
			}
			if _, stays := c.Resources[at]; stays {
				return Config{}, fmt.Errorf("%s is removed, and a resource too", at)
			}
			if _, twice := c.Removed[at]; twice {
				return Config{}, fmt.Errorf("%s is removed twice", at)
			}
			c.Removed[at] = destroys
		}
	}
	slices.Sort(c.Outputs)
	return c, nil
}

// removed reads a removed block as Terraform does: without a word about it, what is
// there is destroyed.
func removed(body *hclsyntax.Body) (at string, destroys bool, err error) {
	from, found := body.Attributes["from"]
	if !found {
		return "", false, fmt.Errorf("a removed block has no from")
	}
	traversal, problems := hcl.AbsTraversalForExpr(from.Expr)
	if problems.HasErrors() || len(traversal) != 2 {
		return "", false, fmt.Errorf("removed: from is no address: %w", problems)
	}
	name, ok := traversal[1].(hcl.TraverseAttr)
	if !ok {
		return "", false, fmt.Errorf("removed: from is no address")
	}
	at, destroys = traversal.RootName()+"."+name.Name, true
	for _, b := range body.Blocks {
		if a, found := b.Body.Attributes["destroy"]; found && b.Type == "lifecycle" {
			value, problems := a.Expr.Value(nil)
			if problems.HasErrors() || value.Type() != cty.Bool {
				return "", false, fmt.Errorf("removed %s: destroy: %w", at, problems)
			}
			destroys = value.True()
		}
	}
	return at, destroys, nil
}

func resources(body *hclsyntax.Body) []*hclsyntax.Block {
	var list []*hclsyntax.Block
	for _, b := range body.Blocks {
		if b.Type == "resource" {
			list = append(list, b)
		}
	}
	return list
}

func address(b *hclsyntax.Block) string { return b.Labels[0] + "." + b.Labels[1] }

func scope(values map[string]map[string]cty.Value) *hcl.EvalContext {
	kinds := map[string]map[string]cty.Value{}
	for address, attributes := range values {
		kind, name, _ := strings.Cut(address, ".")
		if kinds[kind] == nil {
			kinds[kind] = map[string]cty.Value{}
		}
		kinds[kind][name] = cty.ObjectVal(attributes)
	}
	variables := map[string]cty.Value{}
	for kind, named := range kinds {
		variables[kind] = cty.ObjectVal(named)
	}
	return &hcl.EvalContext{Variables: variables, Functions: map[string]function.Function{"jsonencode": stdlib.JSONEncodeFunc}}
}

// String is an attribute that is a string; empty where it is not there, or is
// something else.
func (r Resource) String(name string) string {
	value, found := r.Attributes[name]
	if !found || value.Type() != cty.String {
		return ""
	}
	return value.AsString()
}

// Strings is an attribute that is a list of strings.
func (r Resource) Strings(name string) []string {
	var list []string
	if value, found := r.Attributes[name]; found && value.CanIterateElements() {
		for _, v := range value.AsValueSlice() {
			list = append(list, v.AsString())
		}
	}
	return list
}

// Map is an attribute that is an object of strings.
func (r Resource) Map(name string) map[string]string {
	m := map[string]string{}
	if value, found := r.Attributes[name]; found && value.CanIterateElements() {
		for k, v := range value.AsValueMap() {
			m[k] = v.AsString()
		}
	}
	return m
}

// Document is an attribute that is a policy document.
func (r Resource) Document(name string) (policy.Document, error) {
	return policy.ParseDocument(r.String(name))
}

package terraform

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
	"github.com/hashicorp/hcl/v2/hclwrite"
	"github.com/zclconf/go-cty/cty"

	"github.com/ampbridge/ampbridge/policy/bootstrap"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// Terraform destroys a resource that is not in the configuration any more. So [Central]
// reads what it wrote before, and keeps every workspace forever, in one of two forms:
//
//	in the earlier configuration | the policy today                    | in the next configuration
//	-----------------------------|-------------------------------------|---------------------------
//	resource, of a destination   | the same destination, its region    | the resource, with its arguments
//	resource, of a destination   | no such destination, other region   | removed { destroy = false }
//	removed                      | anything                            | removed, at the same address
//	nothing                      | ws-new                              | a resource, at a new address
//	nothing                      | an ARN                              | nothing: Terraform does not manage it;
//	                             |                                     | with imports, if bootstrap created
//	                             |                                     | it: a resource, and its import
//
// The address of a removed block is never used again. The state may still have it with other
// arguments, and then Terraform would replace the resource.

// workspaceType is the type of the resource that holds the user's metrics.
const workspaceType = "aws_prometheus_workspace"

// signature is the beginning of every configuration of [Central]. [ReadEarlier] refuses a file
// without it.
const signature = "# Written by ampbridge bootstrap -o terraform"

// Earlier holds the workspaces of a configuration that [Central] wrote before.
// The zero value means that there is none.
type Earlier struct {
	// account is the account's id; empty if the file does not contain it.
	account string
	kept    []keptWorkspace
	// PodIdentity is true if sync's role trusts EKS Pod Identity.
	PodIdentity bool
	// removed are the names in removed blocks, in the file's order.
	removed []string
}

// keptWorkspace is a resource of the earlier configuration.
type keptWorkspace struct {
	name string
	// destination and region are the resource's arguments; empty if it has none.
	destination, region string
	block               *hclwrite.Block
}

// ReadEarlier reads what Central wrote before. file is its name, for the error.
// An empty text means that there is no earlier configuration.
func ReadEarlier(file string, text []byte) (Earlier, error) {
	if len(strings.TrimSpace(string(text))) == 0 {
		return Earlier{}, nil
	}
	if !strings.HasPrefix(string(text), signature) {
		return Earlier{}, fmt.Errorf(
			"%s was not written by ampbridge bootstrap -o terraform: name another file, so that nothing in this one is lost",
			file,
		)
	}
	syntax, problems := hclsyntax.ParseConfig(text, file, hcl.InitialPos)
	if problems.HasErrors() {
		return Earlier{}, fmt.Errorf(
			"cannot read the earlier configuration, and without it Terraform could destroy a workspace: %w; correct the file, "+
				"or restore it from version control",
			problems,
		)
	}
	tokens, problems := hclwrite.ParseConfig(text, file, hcl.InitialPos)
	if problems.HasErrors() {
		return Earlier{}, fmt.Errorf("cannot read the earlier configuration: %w", problems)
	}
	e := Earlier{PodIdentity: strings.Contains(string(text), bootstrap.PodIdentityService)}
	blocks := tokens.Body().Blocks()
	for i, b := range syntax.Body.(*hclsyntax.Body).Blocks {
		switch {
		case b.Type == "resource" && len(b.Labels) == 2 && b.Labels[0] == workspaceType:
			if !hclsyntax.ValidIdentifier(b.Labels[1]) {
				return Earlier{}, fmt.Errorf(
					"%s, line %d: %q is not the name of a resource: use letters, digits, _ and -",
					file,
					b.TypeRange.Start.Line,
					b.Labels[1],
				)
			}
			e.kept = append(e.kept, keptWorkspace{
				name: b.Labels[1], destination: tagIn(b.Body, plan.TagDestination), region: literal(b.Body, "region"), block: blocks[i],
			})
		case b.Type == "removed":
			if name := removedWorkspace(b.Body); name != "" && !slices.Contains(e.removed, name) {
				e.removed = append(e.removed, name)
			}
		case b.Type == "data" && len(b.Labels) == 2 && b.Labels[0] == "aws_caller_identity":
			e.account = accountIn(b.Body)
		}
	}
	return e, nil
}

// literal returns the value of a literal string attribute; empty if it is something else.
func literal(body *hclsyntax.Body, name string) string {
	a, found := body.Attributes[name]
	if !found {
		return ""
	}
	return text(a.Expr)
}

func text(e hclsyntax.Expression) string {
	value, problems := e.Value(nil)
	if problems.HasErrors() || value.IsNull() || !value.IsKnown() || value.Type() != cty.String {
		return ""
	}
	return value.AsString()
}

func tagIn(body *hclsyntax.Body, tag string) string {
	a, found := body.Attributes["tags"]
	if !found {
		return ""
	}
	object, ok := a.Expr.(*hclsyntax.ObjectConsExpr)
	if !ok {
		return ""
	}
	for _, item := range object.Items {
		if text(item.KeyExpr) == tag {
			return text(item.ValueExpr)
		}
	}
	return ""
}

// removedWorkspace returns the name of the workspace in a removed block; empty if the block
// is for another type.
func removedWorkspace(body *hclsyntax.Body) string {
	a, found := body.Attributes["from"]
	if !found {
		return ""
	}
	traversal, problems := hcl.AbsTraversalForExpr(a.Expr)
	if problems.HasErrors() || len(traversal) < 2 || traversal.RootName() != workspaceType {
		return ""
	}
	name, ok := traversal[1].(hcl.TraverseAttr)
	if !ok {
		return ""
	}
	return name.Name
}

// accountIn returns the account that the guard of [head] compares with.
func accountIn(body *hclsyntax.Body) string {
	for _, lifecycle := range body.Blocks {
		for _, guard := range lifecycle.Body.Blocks {
			if condition, found := guard.Body.Attributes["condition"]; found {
				if equal, ok := condition.Expr.(*hclsyntax.BinaryOpExpr); ok {
					return text(equal.RHS)
				}
			}
		}
	}
	return ""
}

// workspaces are the parts of a configuration for workspaces.
type workspaces struct {
	// made maps placeholders in the policy to the resources of new workspaces.
	made map[string]string
	// parts are resources, and removed the removed blocks.
	parts, removed []string
	outputs        []string
	imports        []string
}

// continued returns the parts for each workspace, by the table above.
func (e Earlier) continued(c bootstrap.Central, found *bootstrap.Found) workspaces {
	w := workspaces{made: map[string]string{}}
	taken := map[string]bool{}
	for _, name := range e.removed {
		taken[name] = true
	}
	for _, k := range e.kept {
		taken[k.name] = true
	}
	used := map[string]bool{}
	for _, d := range c.Workspaces {
		i := slices.IndexFunc(e.kept, func(k keptWorkspace) bool {
			return !used[k.name] && k.destination == d.Destination && k.region == d.ARN.Region
		})
		existing := bootstrap.FoundWorkspace{}
		if found != nil {
			existing = c.Own(d, found.Workspaces)
		}
		switch {
		case i >= 0:
			k := e.kept[i]
			used[k.name] = true
			w.resource(d, k.name, k.text(d))
		case d.New || !existing.ARN.IsZero():
			name := label(d.Destination)
			for n := 2; taken[name]; n++ {
				// A destination's label contains no dash, so two names never become equal.
				name = label(d.Destination) + "-" + strconv.Itoa(n)
			}
			taken[name] = true
			if !existing.ARN.IsZero() {
				d.Alias = existing.Alias
				w.imports = append(w.imports, importBlock(workspaceType+"."+name, existing.ARN.ID()))
			}
			w.resource(d, name, fresh(d, name))
		}
	}
	gone := slices.Clone(e.removed)
	for _, k := range e.kept {
		if !slices.Contains(gone, k.name) {
			gone = append(gone, k.name)
		}
	}
	gone = slices.DeleteFunc(gone, func(name string) bool { return used[name] })
	for _, name := range gone {
		w.removed = append(w.removed, removedBlock(name))
	}
	return w
}

func (w *workspaces) resource(d bootstrap.Workspace, name, text string) {
	address := workspaceType + "." + name
	header := comment("The workspace of destination %s: write its ARN into the policy.", d.Destination)
	if d.New {
		w.made[d.ARN.String()] = name
	} else {
		header = comment("The workspace of destination %s, which the policy names by its ARN.", d.Destination)
	}
	w.parts = append(w.parts, header+text)
	for _, o := range []struct{ name, value, description string }{
		{"arn", "arn", "The workspace of destination " + d.Destination + ": write it into the policy."},
		{"id", "id", "The id of the workspace of destination " + d.Destination + "."},
		{"endpoint", "prometheus_endpoint", "The URL for queries of the workspace of destination " + d.Destination + "."},
	} {
		w.outputs = append(w.outputs, output("workspace_"+name+"_"+o.name, o.description, address+"."+o.value))
	}
}

// fresh returns the resource of a new workspace. prevent_destroy stops
// everything that would destroy it, including a replacement, while the block exists.
func fresh(d bootstrap.Workspace, name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "resource %q %q {\nregion = %s\nalias = %s\ntags = %s\n\n%s}\n",
		workspaceType, name, quote(d.ARN.Region), quote(d.Alias), object(tagged(d.Tags)), guard)
	return b.String()
}

const guard = "lifecycle {\nprevent_destroy = true\n}\n"

// text returns the earlier resource again. Its arguments stay, because another region
// or key would replace the workspace. If the workspace is new, alias and tags get today's values,
// which AWS changes in place.
func (k keptWorkspace) text(d bootstrap.Workspace) string {
	body := k.block.Body()
	if d.New {
		body.SetAttributeValue("alias", cty.StringVal(d.Alias))
		body.SetAttributeRaw("tags", rawObject(tagged(d.Tags)))
	}
	if !slices.ContainsFunc(body.Blocks(), func(b *hclwrite.Block) bool { return b.Type() == "lifecycle" }) {
		body.AppendNewline()
		body.AppendNewBlock("lifecycle", nil).Body().SetAttributeValue("prevent_destroy", cty.True)
	}
	// Drop the comments before the block, because they are written again.
	return fmt.Sprintf("resource %q %q {\n%s\n}\n", workspaceType, k.name, strings.TrimSpace(string(body.BuildTokens(nil).Bytes())))
}

// rawObject returns m as tokens in the form of [object].
func rawObject(m map[string]string) hclwrite.Tokens {
	f, problems := hclwrite.ParseConfig([]byte("tags = "+object(m)+"\n"), "tags", hcl.InitialPos)
	if problems.HasErrors() {
		panic(problems) // cannot happen: keys and values are quoted
	}
	return f.Body().GetAttribute("tags").Expr().BuildTokens(nil)
}

// removedBlock returns a block that makes Terraform forget a workspace without deleting it. If
// the state does not have the workspace, the block does nothing. It stays forever, because no run
// can know when the last state has been applied.
func removedBlock(name string) string {
	return comment("No destination has this workspace any more. Terraform forgets it, and its metrics stay.") +
		"removed {\nfrom = " + workspaceType + "." + name + "\n\nlifecycle {\ndestroy = false\n}\n}\n"
}

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

// A configuration has no history, and Terraform destroys what leaves it. So [Central]
// gets what it wrote before, and keeps every workspace forever, in one of two forms:
//
//	in the earlier configuration | the policy today                    | in the next configuration
//	-----------------------------|-------------------------------------|---------------------------
//	resource, of a destination   | the same destination, its region    | the resource, with its arguments
//	resource, of a destination   | no such destination, other region   | removed { destroy = false }
//	removed                      | whatever                            | removed, at the same address
//	nothing                      | ws-new                              | a resource, at a fresh address
//	nothing                      | an ARN                              | nothing: it is not Terraform's;
//	                             |                                     | with imports, and bootstrap made
//	                             |                                     | it: a resource, and its import
//
// An address that was let go is never used again: it may still be in the state,
// with other arguments, and then the resource would be replaced.

// workspaceType is the resource that holds people's metrics.
const workspaceType = "aws_prometheus_workspace"

// signature begins what [Central] writes. [ReadEarlier] refuses a file without it.
const signature = "# Written by ampbridge bootstrap -o terraform"

// Earlier is what a configuration that [Central] wrote before says of workspaces.
// The zero value is no earlier configuration.
type Earlier struct {
	// account is empty where the file does not say it.
	account string
	kept    []keptWorkspace
	// PodIdentity: sync's role trusts EKS Pod Identity.
	PodIdentity bool
	// removed are the names of the resources that were let go, in the file's order.
	removed []string
}

// keptWorkspace is a resource of the earlier configuration.
type keptWorkspace struct {
	name string
	// destination and region are as the resource says them; empty: it does not.
	destination, region string
	block               *hclwrite.Block
}

// ReadEarlier reads what Central wrote before; file is its name, for the error.
// An empty text is no earlier configuration.
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
			"cannot read the earlier configuration, and without it a workspace could leave Terraform: %w; correct the file, or take it "+
				"from version control",
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

// literal returns an attribute that is a literal string; empty: it is not.
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

// removedWorkspace returns the name of the workspace that a removed block lets go;
// empty: it is about something else.
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

// workspaces are the parts of a configuration that concern workspaces.
type workspaces struct {
	// made are the new ones, by the placeholder that the policy has for them, and
	// the name of their resource.
	made map[string]string
	// parts are resources, and removed the blocks for what was let go.
	parts, removed []string
	outputs        []string
	imports        []string
}

// continued decides what becomes of each workspace; the table is above.
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
				// Destinations' names have no dash here: no two become one.
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
		{"endpoint", "prometheus_endpoint", "Where the workspace of destination " + d.Destination + " is queried."},
	} {
		w.outputs = append(w.outputs, output("workspace_"+name+"_"+o.name, o.description, address+"."+o.value))
	}
}

// fresh is the resource of a workspace that is yet to be made. Its guard stops
// whatever would destroy it, a replacement too, for as long as the block is there.
func fresh(d bootstrap.Workspace, name string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "resource %q %q {\nregion = %s\nalias = %s\ntags = %s\n\n%s}\n",
		workspaceType, name, quote(d.ARN.Region), quote(d.Alias), object(tagged(d.Tags)), guard)
	return b.String()
}

const guard = "lifecycle {\nprevent_destroy = true\n}\n"

// text is the earlier resource again. Its arguments stay as they are: another
// region, or a key that somebody added, would replace the workspace. While it is
// new, alias and tags are today's, which AWS changes in place.
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
	// Without the comments before the block, which are written again.
	return fmt.Sprintf("resource %q %q {\n%s\n}\n", workspaceType, k.name, strings.TrimSpace(string(body.BuildTokens(nil).Bytes())))
}

// rawObject is m as tokens, in the form of [object].
func rawObject(m map[string]string) hclwrite.Tokens {
	f, problems := hclwrite.ParseConfig([]byte("tags = "+object(m)+"\n"), "tags", hcl.InitialPos)
	if problems.HasErrors() {
		panic(problems) // keys and values are quoted
	}
	return f.Body().GetAttribute("tags").Expr().BuildTokens(nil)
}

// removedBlock lets a workspace go: Terraform forgets it, and deletes nothing. Where
// the state does not have it, it does nothing. It stays for good, because no run
// can know when the last state has been applied.
func removedBlock(name string) string {
	return comment("No destination has this workspace any more. Terraform lets it go, and its metrics stay.") +
		"removed {\nfrom = " + workspaceType + "." + name + "\n\nlifecycle {\ndestroy = false\n}\n}\n"
}

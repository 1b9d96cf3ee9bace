// Command tfprovider is a provider for OpenTofu that has some resources of the aws
// provider, by the same names, and makes nothing: a resource exists in OpenTofu's state
// alone. Each call is a line of the file that AMPBRIDGE_TEST_CALLS names, so a test sees
// what would have been created and destroyed.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/hashicorp/terraform-plugin-framework/datasource"
	dataschema "github.com/hashicorp/terraform-plugin-framework/datasource/schema"
	"github.com/hashicorp/terraform-plugin-framework/path"
	"github.com/hashicorp/terraform-plugin-framework/provider"
	"github.com/hashicorp/terraform-plugin-framework/providerserver"
	"github.com/hashicorp/terraform-plugin-framework/resource"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/planmodifier"
	"github.com/hashicorp/terraform-plugin-framework/resource/schema/stringplanmodifier"
	"github.com/hashicorp/terraform-plugin-framework/types"
)

const account = "111122223333"

func main() {
	err := providerserver.Serve(context.Background(), func() provider.Provider { return aws{} }, providerserver.ServeOpts{
		Address: "registry.opentofu.org/hashicorp/aws",
	})
	if err != nil {
		log.Fatal(err)
	}
}

// kind is a type of resource. Forces names the attributes that make a new resource where
// they change, as in the aws provider.
type kind struct {
	name           string
	texts, forces  []string
	lists          []string
	tagged, number bool
	// id is the attribute that the identifier repeats; empty: the identifier is made up.
	id string
}

var kinds = []kind{
	{name: "prometheus_workspace", texts: []string{"alias"}, forces: []string{"region"}, tagged: true},
	{name: "iam_openid_connect_provider", forces: []string{"url"}, lists: []string{"client_id_list", "thumbprint_list"},
		tagged: true, id: "arn"},
	{name: "iam_policy", texts: []string{"policy"}, forces: []string{"name", "path", "description"}, tagged: true, id: "arn"},
	{name: "iam_role", texts: []string{"description", "assume_role_policy", "permissions_boundary"}, forces: []string{"name", "path"},
		tagged: true, number: true, id: "name"},
	{name: "iam_role_policy", texts: []string{"policy"}, forces: []string{"name", "role"}, id: "name"},
}

type aws struct{}

func (aws) Metadata(_ context.Context, _ provider.MetadataRequest, r *provider.MetadataResponse) {
	r.TypeName = "aws"
}

func (aws) Schema(context.Context, provider.SchemaRequest, *provider.SchemaResponse) {}

func (aws) Configure(context.Context, provider.ConfigureRequest, *provider.ConfigureResponse) {}

func (aws) DataSources(context.Context) []func() datasource.DataSource {
	return []func() datasource.DataSource{func() datasource.DataSource { return caller{} }}
}

func (aws) Resources(context.Context) (list []func() resource.Resource) {
	for _, k := range kinds {
		list = append(list, func() resource.Resource { return k })
	}
	return list
}

// caller is aws_caller_identity.
type caller struct{}

func (caller) Metadata(_ context.Context, _ datasource.MetadataRequest, r *datasource.MetadataResponse) {
	r.TypeName = "aws_caller_identity"
}

func (caller) Schema(_ context.Context, _ datasource.SchemaRequest, r *datasource.SchemaResponse) {
	r.Schema = dataschema.Schema{Attributes: map[string]dataschema.Attribute{
		"account_id": dataschema.StringAttribute{Computed: true},
	}}
}

func (caller) Read(ctx context.Context, _ datasource.ReadRequest, r *datasource.ReadResponse) {
	r.Diagnostics.Append(r.State.SetAttribute(ctx, path.Root("account_id"), account)...)
}

func (k kind) Metadata(_ context.Context, _ resource.MetadataRequest, r *resource.MetadataResponse) {
	r.TypeName = "aws_" + k.name
}

func (k kind) Schema(_ context.Context, _ resource.SchemaRequest, r *resource.SchemaResponse) {
	kept := []planmodifier.String{stringplanmodifier.UseStateForUnknown()}
	// What an import left open is as configured.
	replace := stringplanmodifier.RequiresReplaceIf(
		func(_ context.Context, q planmodifier.StringRequest, r *stringplanmodifier.RequiresReplaceIfFuncResponse) {
			r.RequiresReplace = !q.StateValue.IsNull()
		}, "a change makes a new resource", "a change makes a new resource")
	attributes := map[string]schema.Attribute{}
	for _, name := range k.texts {
		attributes[name] = schema.StringAttribute{Optional: true}
	}
	for _, name := range k.forces {
		attributes[name] = schema.StringAttribute{Optional: true, PlanModifiers: []planmodifier.String{replace}}
	}
	for _, name := range k.lists {
		attributes[name] = schema.ListAttribute{Optional: true, ElementType: types.StringType}
	}
	if k.tagged {
		attributes["tags"] = schema.MapAttribute{Optional: true, ElementType: types.StringType}
	}
	if k.number {
		attributes["max_session_duration"] = schema.Int64Attribute{Optional: true}
	}
	for _, name := range []string{"id", "arn", "prometheus_endpoint"} {
		attributes[name] = schema.StringAttribute{Computed: true, PlanModifiers: kept}
	}
	r.Schema = schema.Schema{Attributes: attributes}
}

// record appends a call to the file for the test.
func (k kind) record(call, id string) error {
	f, err := os.OpenFile(os.Getenv("AMPBRIDGE_TEST_CALLS"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(f, "%s aws_%s %s\n", call, k.name, id); err != nil {
		return err
	}
	return f.Close()
}

func (k kind) Create(ctx context.Context, q resource.CreateRequest, r *resource.CreateResponse) {
	r.State.Raw = q.Plan.Raw
	id := "ws-00000000"
	if k.id == "name" {
		var name types.String
		r.Diagnostics.Append(q.Plan.GetAttribute(ctx, path.Root("name"), &name)...)
		id = name.ValueString()
	}
	arn := "arn:aws:test:::" + k.name + "/" + id
	if k.name == "prometheus_workspace" {
		arn = "arn:aws:aps:eu-west-1:" + account + ":workspace/" + id
	}
	if k.id == "arn" {
		id = arn
	}
	for name, value := range map[string]string{"id": id, "arn": arn, "prometheus_endpoint": "https://" + id} {
		r.Diagnostics.Append(r.State.SetAttribute(ctx, path.Root(name), value)...)
	}
	if err := k.record("create", id); err != nil {
		r.Diagnostics.AddError("cannot record the call", err.Error())
	}
}

func (kind) Read(_ context.Context, q resource.ReadRequest, r *resource.ReadResponse) {
	r.State.Raw = q.State.Raw
}

func (k kind) Update(ctx context.Context, q resource.UpdateRequest, r *resource.UpdateResponse) {
	r.State.Raw = q.Plan.Raw
	for _, name := range []string{"id", "arn", "prometheus_endpoint"} {
		var old types.String
		r.Diagnostics.Append(q.State.GetAttribute(ctx, path.Root(name), &old)...)
		r.Diagnostics.Append(r.State.SetAttribute(ctx, path.Root(name), old)...)
	}
	if err := k.record("update", ""); err != nil {
		r.Diagnostics.AddError("cannot record the call", err.Error())
	}
}

func (k kind) Delete(ctx context.Context, q resource.DeleteRequest, r *resource.DeleteResponse) {
	var id types.String
	r.Diagnostics.Append(q.State.GetAttribute(ctx, path.Root("id"), &id)...)
	if err := k.record("delete", id.ValueString()); err != nil {
		r.Diagnostics.AddError("cannot record the call", err.Error())
	}
}

// ImportState takes a resource by its identifier. Its other attributes are open.
func (k kind) ImportState(ctx context.Context, q resource.ImportStateRequest, r *resource.ImportStateResponse) {
	for name, value := range map[string]string{"id": q.ID, "arn": q.ID, "prometheus_endpoint": "https://" + q.ID} {
		r.Diagnostics.Append(r.State.SetAttribute(ctx, path.Root(name), value)...)
	}
	if k.name == "prometheus_workspace" {
		r.Diagnostics.Append(r.State.SetAttribute(ctx, path.Root("region"), "eu-west-1")...)
	}
	if err := k.record("import", q.ID); err != nil {
		r.Diagnostics.AddError("cannot record the call", err.Error())
	}
}

package terraform

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/bootstrap"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// Central returns the configuration of an account's central part. New workspaces are
// outputs, because their ARNs must be copied into the policy. With existingProvider, the
// cluster's OIDC provider is managed elsewhere. earlier is the configuration of the last run:
// a workspace in it stays, as a resource or as a removed block that destroys
// nothing. The error is why earlier does not belong to this configuration.
//
// Sync uses the same provider and tags. They are written exactly as sync would write them, so that
// Terraform and sync do not undo each other's changes.
//
// found is what the account has, for import blocks; nil means that none are written.
func Central(c bootstrap.Central, existingProvider bool, earlier Earlier, found *bootstrap.Found) ([]byte, error) {
	if earlier.account != "" && earlier.account != c.Account {
		return nil, fmt.Errorf(
			"the earlier configuration is of account %s, and this one of account %s: give each account its own file",
			earlier.account,
			c.Account,
		)
	}
	known := references{}
	spaces := earlier.continued(c, found)
	for placeholder, name := range spaces.made {
		known[placeholder] = workspaceType + "." + name + ".arn"
	}
	parts, outputs := spaces.parts, spaces.outputs
	terraform, version := basic, withoutThumbprints
	if len(spaces.parts) > 0 {
		version = withRegions
	}
	imports := slices.Concat(spaces.imports, centralImports(c, existingProvider, found))
	switch {
	case len(spaces.removed) > 0:
		terraform = withRemoved
	case len(imports) > 0:
		terraform = withImports
	}
	if !c.Provider.IsZero() {
		if !existingProvider {
			known[c.Provider.String()] = providerAddress + ".arn"
			parts = append(
				parts,
				comment(
					"The cluster's issuer: AWS accepts its tokens for these audiences.",
				)+provider(
					c.Issuer,
					c.Audiences,
					c.Thumbprints,
					c.Tags,
				),
			)
		}
		if !c.Boundary.IsZero() {
			parts = append(
				parts,
				comment("The upper limit for roles created by sync, whatever their own documents allow.")+block(
					"aws_iam_policy", "boundary",
					attribute{"name", quote(c.Boundary.RoleName())},
					attribute{"path", quote(path(c.Boundary))},
					attribute{"description", quote("The most that roles made by ampbridge's sync can ever do")},
					attribute{"policy", known.document(c.Bound)},
					attribute{"tags", object(tagged(c.Tags))},
				),
			)
		}
		parts = append(parts, syncRole(c.Sync, tagged(c.Tags), known)...)
		outputs = append(outputs, output("sync_role_arn", "The role that sync acts as in this account.", "aws_iam_role.sync.arn"))
	}
	parts = append([]string{
		comment(signature[2:]+" for cluster %s, account %s: change the policy and write it again.", c.Cluster, c.Account) +
			comment("Docs: docs/guides/bootstrap.md of ampbridge."),
		head(c.Account, terraform, version),
	}, parts...)
	return format(slices.Concat(parts, spaces.removed, imports, outputs)...), nil
}

// centralImports returns import blocks for what belongs to the cluster already.
func centralImports(c bootstrap.Central, existingProvider bool, found *bootstrap.Found) []string {
	if found == nil || c.Provider.IsZero() {
		return nil
	}
	var list []string
	add := func(address, id string, owned bool) {
		if owned {
			list = append(list, importBlock(address, id))
		}
	}
	if p := found.Provider; p != nil && !existingProvider {
		adopts := c.AdoptProvider && p.Tags[plan.TagOwner] == ""
		add(providerAddress, c.Provider.String(), plan.Owned(p.Tags, c.Owner) || adopts)
	}
	if b := found.Boundary; b != nil {
		add("aws_iam_policy.boundary", c.Boundary.String(), plan.Owned(b.Tags, c.Owner))
	}
	if r := found.Role; r != nil {
		name, owned := c.Sync.ARN.RoleName(), r.OwnedAt(c.Sync.ARN, c.Owner)
		add("aws_iam_role.sync", name, owned)
		add("aws_iam_role_policy.sync", name+":"+plan.PolicyName, owned && r.Permissions != "")
	}
	return list
}

func syncRole(r bootstrap.SyncRole, tags map[string]string, known references) []string {
	return []string{
		comment("The role of sync: only its own service account, or its role in another account, may assume it.") + block(
			"aws_iam_role", "sync",
			attribute{"name", quote(r.ARN.RoleName())},
			attribute{"path", quote(path(r.ARN))},
			attribute{"description", quote(r.Description)},
			attribute{"assume_role_policy", known.document(r.Trust)},
			attribute{"tags", object(tags)},
		),
		block("aws_iam_role_policy", "sync",
			attribute{"name", quote(plan.PolicyName)},
			attribute{"role", "aws_iam_role.sync.name"},
			attribute{"policy", known.document(r.Permissions)},
		),
	}
}

func output(name, description, value string) string {
	return "output " + quote(name) + " {\ndescription = " + quote(description) + "\nvalue = " + value + "\n}\n"
}

// path returns the path of a role or policy in IAM.
func path(arn policy.ARN) string {
	_, rest, _ := strings.Cut(arn.Resource, "/")
	return "/" + rest[:strings.LastIndexByte(rest, '/')+1]
}

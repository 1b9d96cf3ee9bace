package terraform

import (
	"strings"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/bootstrap"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// Central is the configuration of an account's central part. New workspaces are
// its outputs: their ARNs belong in the policy. With existingProvider the
// cluster's OIDC provider is kept elsewhere.
//
// Sync works beside it. What sync looks at, the provider and its tags, is
// written as sync would, so that neither undoes what the other did.
func Central(c bootstrap.Central, existingProvider bool) []byte {
	known := references{}
	var parts, outputs []string
	version := withoutThumbprints
	for _, w := range c.Workspaces {
		if !w.New {
			continue
		}
		version = withRegions
		name := label(w.Destination)
		address := "aws_prometheus_workspace." + name
		known[w.ARN.String()] = address + ".arn"
		parts = append(parts, comment("The workspace of destination %s.", w.Destination)+block("aws_prometheus_workspace", name,
			attribute{"region", quote(w.ARN.Region)},
			attribute{"alias", quote(w.Alias)},
			attribute{"tags", object(tagged(w.Tags))},
		))
		for _, o := range []struct{ name, value, about string }{
			{"arn", "arn", "The workspace of destination " + w.Destination + ": write it into the policy."},
			{"id", "id", "The id of the workspace of destination " + w.Destination + "."},
			{"endpoint", "prometheus_endpoint", "Where the workspace of destination " + w.Destination + " is queried."},
		} {
			outputs = append(outputs, output("workspace_"+name+"_"+o.name, o.about, address+"."+o.value))
		}
	}
	if !c.Provider.IsZero() {
		if !existingProvider {
			known[c.Provider.String()] = providerAddress + ".arn"
			parts = append(parts, comment("The cluster's issuer: AWS takes its tokens, for these audiences.")+provider(c.Issuer, c.Audiences, c.Thumbprints, c.Tags))
		}
		if !c.Boundary.IsZero() {
			parts = append(parts, comment("The most that roles made by sync can ever do, whatever their own documents come to say.")+block("aws_iam_policy", "boundary",
				attribute{"name", quote(c.Boundary.RoleName())},
				attribute{"path", quote(path(c.Boundary))},
				attribute{"description", quote("The most that roles made by ampbridge's sync can ever do")},
				attribute{"policy", known.document(c.Bound)},
				attribute{"tags", object(tagged(c.Tags))},
			))
		}
		parts = append(parts, syncRole(c.Sync, tagged(c.Tags), known)...)
		outputs = append(outputs, output("sync_role_arn", "The role that sync acts as in this account.", "aws_iam_role.sync.arn"))
	}
	parts = append([]string{
		comment("Written by ampbridge bootstrap -o terraform for cluster %s, account %s: change the policy and write it again.", c.Cluster, c.Account) +
			comment("Docs: docs/bootstrap.md of ampbridge."),
		head(c.Account, version),
	}, parts...)
	return format(append(parts, outputs...)...)
}

func syncRole(r bootstrap.SyncRole, tags map[string]string, known references) []string {
	return []string{
		comment("What sync itself acts as: nobody but its own service account, or its role in another account, may assume it.") + block("aws_iam_role", "sync",
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

// terraformed says who keeps what sync does not look at.
func output(name, description, value string) string {
	return "output " + quote(name) + " {\ndescription = " + quote(description) + "\nvalue = " + value + "\n}\n"
}

// path is that of a role or policy in IAM.
func path(arn policy.ARN) string {
	_, rest, _ := strings.Cut(arn.Resource, "/")
	return "/" + rest[:strings.LastIndexByte(rest, '/')+1]
}

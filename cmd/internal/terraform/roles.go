package terraform

import (
	"maps"
	"strconv"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// managedBy is the value of [plan.TagManagedBy] on everything that Terraform creates.
const managedBy = "terraform"

// providerAddress is the address of the cluster's OIDC provider.
const providerAddress = "aws_iam_openid_connect_provider.cluster"

// Desired returns the plan of everything that the policy wants, as if nothing existed
// and sync managed everything. It ignores the accounts and the absence state of in.
func Desired(in plan.Input) plan.Plan {
	p := *in.Policy
	p.Trust.Manage = policy.ManageRoles
	return plan.Compute(plan.Input{
		Policy: &p, Issuer: in.Issuer, ServiceAccounts: in.ServiceAccounts, TrustQuota: in.TrustQuota,
		Accounts: map[string]plan.Account{},
	})
}

// Accounts returns the accounts in which a desired plan changes something, in the plan's order.
func Accounts(p plan.Plan) []string {
	var list []string
	seen := map[string]bool{}
	for _, c := range p.Changes {
		if !seen[c.Account] {
			seen[c.Account] = true
			list = append(list, c.Account)
		}
	}
	return list
}

// Roles returns the configuration of one account for a plan of [Desired]: the
// cluster's provider, and for each destination its role and permissions.
// With existingProvider the provider is managed elsewhere, and the text contains its ARN.
// With imports, Terraform takes over what sync created.
func Roles(p plan.Plan, account string, existingProvider, imports bool) []byte {
	version := basic
	if imports {
		version = withImports
	}
	parts := []string{
		comment(
			"Written by ampbridge plan -o terraform for cluster %s, account %s: change the policy and write it again.",
			p.Cluster,
			account,
		) +
			comment(
				"Docs: docs/guides/terraform.md of ampbridge.",
			),
		head(account, version, withoutThumbprints),
	}
	known, labels := references{}, roleLabels(p.Changes)
	if !existingProvider {
		known[p.Issuer.ProviderARN(partition(p, account), account).String()] = providerAddress + ".arn"
	}
	for _, c := range p.Changes {
		switch {
		case c.Account != account:
		case c.Call == plan.CreateProvider && !existingProvider:
			parts = append(
				parts,
				comment(
					"The cluster's issuer: AWS accepts its tokens for this audience.",
				)+provider(
					p.Issuer,
					[]string{c.Audience},
					c.Thumbprints,
					tagged(c.Tags),
				),
			)
		case c.Call == plan.CreateRole:
			parts = append(
				parts,
				comment(
					"Destination %s: exactly these service accounts may assume its role.",
					c.Destination,
				)+role(
					c,
					labels[c.Resource],
					known,
				),
			)
		case c.Call == plan.PutPermissions:
			parts = append(parts, permissions(c, labels[c.Resource], known))
		}
	}
	if imports {
		parts = append(parts, roleImports(p, account, existingProvider, labels)...)
	}
	return format(parts...)
}

func roleImports(p plan.Plan, account string, existingProvider bool, labels map[policy.ARN]string) []string {
	var list []string
	for _, c := range p.Changes {
		name := c.Resource.RoleName()
		switch {
		case c.Account != account:
		case c.Call == plan.CreateProvider && !existingProvider:
			list = append(list, importBlock(providerAddress, c.Resource.String()))
		case c.Call == plan.CreateRole:
			list = append(list, importBlock("aws_iam_role."+labels[c.Resource], name))
		case c.Call == plan.PutPermissions:
			list = append(list, importBlock("aws_iam_role_policy."+labels[c.Resource], name+":"+plan.PolicyName))
		}
	}
	return list
}

func partition(p plan.Plan, account string) string {
	for _, c := range p.Changes {
		if c.Account == account {
			return c.Resource.Partition
		}
	}
	return ""
}

func provider(issuer policy.Issuer, audiences, thumbprints []string, tags map[string]string) string {
	list := ""
	if len(thumbprints) > 0 {
		list = lines(thumbprints)
	}
	return block("aws_iam_openid_connect_provider", "cluster",
		attribute{"url", quote(string(issuer))},
		attribute{"client_id_list", lines(audiences)},
		attribute{"thumbprint_list", list},
		attribute{"tags", object(tags)},
	)
}

// roleLabels maps roles to resource names: the destination's, or with
// trust.roleScope: serviceAccount the destination's and the service account's.
func roleLabels(changes []plan.Change) map[policy.ARN]string {
	labels := map[policy.ARN]string{}
	for _, c := range changes {
		switch account := c.Tags[plan.TagServiceAccount]; {
		case c.Call != plan.CreateRole:
		case account == "":
			labels[c.Resource] = label(c.Destination)
		default:
			labels[c.Resource] = serviceAccountLabel(c.Destination, c.Tags[plan.TagNamespace], account)
		}
	}
	return labels
}

func role(c plan.Change, label string, known references) string {
	boundary := ""
	if c.Boundary.IsPolicy() {
		boundary = quote(c.Boundary.String())
	}
	return block("aws_iam_role", label,
		attribute{"name", quote(c.Resource.RoleName())},
		attribute{"path", quote(path(c.Resource))},
		attribute{"description", quote(c.Description)},
		attribute{"max_session_duration", strconv.Itoa(c.MaxSessionSeconds)},
		attribute{"permissions_boundary", boundary},
		attribute{"assume_role_policy", known.document(*c.Trust)},
		attribute{"tags", object(tagged(c.Tags))},
	)
}

func permissions(c plan.Change, label string, known references) string {
	return block("aws_iam_role_policy", label,
		attribute{"name", quote(plan.PolicyName)},
		attribute{"role", "aws_iam_role." + label + ".name"},
		attribute{"policy", known.document(*c.Permissions)},
	)
}

// tagged returns sync's tags with Terraform as the manager. The owner stays, so that sync
// can take over a role without replacing it.
func tagged(tags map[string]string) map[string]string {
	t := maps.Clone(tags)
	t[plan.TagManagedBy] = managedBy
	return t
}

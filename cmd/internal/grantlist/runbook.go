package grantlist

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
)

// RunbookOptions are the values that a runbook needs besides the module.
type RunbookOptions struct {
	// From is the file that was read. Dir is the folder for the policies.
	From, Dir   string
	Workspace   policy.Workspace
	Destination string
	// Cluster is the cluster's name, if the file describes a role.
	Cluster string
}

// Runbook returns the steps from the running module to ampbridge. Their order is important:
// the old trust of a pod is removed only after that pod writes with its new role, and
// nothing that is in use is deleted.
func Runbook(m Module, clusters []Cluster, o RunbookOptions) string {
	address, dir := cmp.Or(m.Address, "module.amp"), cmp.Or(o.Dir, "policies")
	r := &runbook{}
	from, whose, cluster := address, "the module's", ""
	if m.Role != "" {
		from, whose, cluster = "the role "+m.Role, "the old role's", " --cluster-name "+word(o.Cluster)
	}
	r.text("# From %s to ampbridge: workspace %s", from, o.Workspace)
	r.text("Samples flow during every step. You can stop after any step and nothing is lost. Steps 1 to 4 do not "+
		"change %s resources.", whose)
	if m.Alias != "" {
		r.text("The workspace keeps its alias %q, its tags and its metrics.", m.Alias)
	}
	if m.Address == "" && m.Role == "" {
		r.text("The file does not contain the module's address. These steps use %s; set another one with --module.", address)
	}

	policies := fmt.Sprintf("mkdir -p %s && ampbridge bootstrap policy --from %s%s --workspace %s --destination %s "+
		"--dir %s",
		word(dir), word(o.From), cluster, o.Workspace, o.Destination, word(dir))
	if m.Role != "" {
		r.step("Write the policy of the cluster")
		r.block(policies)
	} else {
		r.step("Save what exists: Terraform's state, and the policies of the clusters")
		r.block("terraform state pull > module.tfstate.backup", policies)
	}

	r.step("Create the boundary and sync's role, with credentials of account " + o.Workspace.Account)
	r.text("Bootstrap uses the OIDC providers as they are, with their audiences and thumbprints.")
	for _, c := range clusters {
		r.block(fmt.Sprintf("ampbridge bootstrap --policy %s --apply", word(path.Join(dir, c.Name+".yaml"))))
	}

	r.step("Install ampbridge in each cluster; sync creates the new roles next to " + whose)
	r.text("The label makes sync trust the service accounts; pods that do not ask for injection stay as they are.")
	for _, c := range clusters {
		lines := []string{"# in cluster " + c.Name + ": install the chart with this policy (docs/guides/install.md)"}
		for _, namespace := range namespaces(m, c) {
			lines = append(lines, fmt.Sprintf("kubectl label namespace %s %s=%s", namespace, policy.LabelInjection, policy.InjectionAnnotated))
		}
		r.block(append(lines, fmt.Sprintf("ampbridge sync --once --policy %s --dry-run", word(path.Join(dir, c.Name+".yaml"))))...)
	}
	r.text("Continue when the dry run shows no changes: then the new roles trust every service account of the list.")

	r.step("Move each Prometheus: annotate it, restart it, check it, then remove the old entry")
	for _, c := range clusters {
		for _, i := range c.Entries {
			e := m.Entries[i]
			r.block(
				fmt.Sprintf("# cluster %s, service account %s/%s", c.Name, e.Namespace, e.ServiceAccount),
				fmt.Sprintf("kubectl annotate serviceaccount -n %s %s %s=true", e.Namespace, e.ServiceAccount, policy.AnnotationInject),
				fmt.Sprintf("kubectl rollout restart statefulset -n %s  # the one of this Prometheus", e.Namespace),
				fmt.Sprintf("ampbridge doctor --policy %s -n %s --service-account %s",
					word(path.Join(dir, c.Name+".yaml")), e.Namespace, e.ServiceAccount),
			)
		}
	}
	if m.Role != "" {
		r.guide(m, clusters, dir, o)
		return r.out.String()
	}
	r.oldEntryWrites()
	r.text("When all other checks pass, remove the old remote_write entry for %s from the Prometheus", o.Workspace.ID())
	r.text("configuration: the sidecar then adds its block, in the same reload. Remove the annotation " +
		"eks.amazonaws.com/role-arn")
	r.text("from the service account, too.")

	r.letGo(address)

	r.step("Make sync the owner of the providers")
	for _, c := range clusters {
		r.block(fmt.Sprintf("# in %s, under trust: adoptProvider: true", path.Join(dir, c.Name+".yaml")),
			fmt.Sprintf("ampbridge sync --once --policy %s --dry-run  # tags the "+
				"provider", word(path.Join(dir, c.Name+".yaml"))))
	}
	r.text("No tool manages the workspace now; the policies name it. The module is not needed any more.")
	return r.out.String()
}

// oldEntryWrites writes who sends the samples until the old entry is removed.
func (r *runbook) oldEntryWrites() {
	r.text("While the old remote_write entry exists, ampbridge leaves its own block out, so the old entry still writes.")
	r.text("Doctor warns of it (check sidecar).")
}

// letGo writes how to make Terraform forget what stays. A removed block cannot name one instance
// of a module: it would forget the resources of all instances.
func (r *runbook) letGo(address string) {
	state := fmt.Sprintf("terraform state rm '%s.aws_prometheus_workspace.this' "+
		"'%s.aws_iam_openid_connect_provider.this'", address, address)
	if strings.Contains(address, "[") {
		r.step("Make Terraform forget the workspace and the providers")
		r.text("Do this before you remove this instance of the module, because removed blocks apply to all instances:")
		r.block(state)
		r.text("Then remove the instance. The plan must show that only its roles and policies are destroyed. They are " +
			"all that is left of it,")
		r.text("and no pod uses them any more.")
	} else {
		r.step("Make Terraform forget the workspace and the providers, with Terraform 1.7 or OpenTofu 1.7")
		r.text("Replace the module block by these blocks. The plan must show that the workspace and the providers are " +
			"forgotten,")
		r.text("and that only the module's roles and policies are destroyed. They are all that is left, and no pod " +
			"uses them any more.")
		for _, resource := range []string{"aws_prometheus_workspace.this", "aws_iam_openid_connect_provider.this"} {
			r.block("removed {", "  from = "+address+"."+resource, "", "  lifecycle {", "    destroy = false", "  }", "}")
		}
		r.text("With an older Terraform, do this before you remove the module block:")
		r.block(state)
	}
	r.block("terraform plan  # destroys no workspace and no provider", "terraform apply")
}

// guide writes the next steps for the role of the guide for AKS.
func (r *runbook) guide(m Module, clusters []Cluster, dir string, o RunbookOptions) {
	r.text("The pod gets its own token for AWS; the token of Azure's webhook is not used.")
	r.oldEntryWrites()
	r.text("When all other checks pass, remove the old remote_write entry for %s from the Prometheus", o.Workspace.ID())
	r.text("configuration, with its sigv4 and role_arn: the sidecar then adds its block, in the same reload.")

	r.step("Make the cluster the owner of the provider and the workspace")
	for _, c := range clusters {
		file := word(path.Join(dir, c.Name+".yaml"))
		r.block(fmt.Sprintf("# in %s, under trust: adoptProvider: true", path.Join(dir, c.Name+".yaml")),
			fmt.Sprintf("ampbridge sync --once --policy %s --dry-run  # tags the provider", file),
			fmt.Sprintf("ampbridge bootstrap --policy %s --adopt-workspace %s --apply  # tags the "+
				"workspace", file, o.Destination))
	}
	r.text("Both steps add tags and change nothing else. Skip the second one if other clusters share the workspace.")

	r.step("Finally delete the old role, and what it needed in Azure")
	r.text("Continue when nothing has used the role since the last Prometheus moved:")
	role := word(m.Role)
	r.block(fmt.Sprintf("aws iam get-role --role-name %s --query Role.RoleLastUsed", role))
	r.text("These commands delete the role, and the policies that only this role has:")
	r.block(
		fmt.Sprintf("for p in $(aws iam list-attached-role-policies --role-name %s --query "+
			"'AttachedPolicies[].PolicyArn' --output text); do",
			role),
		fmt.Sprintf("  aws iam detach-role-policy --role-name %s --policy-arn \"$p\"", role),
		"  aws iam delete-policy --policy-arn \"$p\"  # refused if something else uses it",
		"done",
		fmt.Sprintf("for p in $(aws iam list-role-policies --role-name %s --query 'PolicyNames[]' --output text); do", role),
		fmt.Sprintf("  aws iam delete-role-policy --role-name %s --policy-name \"$p\"", role),
		"done",
		"aws iam delete-role --role-name "+role,
	)
	r.text("In Azure and in the cluster, if nothing else uses them:")
	lines := []string{"az ad app delete --id <appId of Prometheus-AMP-Federation>  # with its federated credential"}
	for _, e := range m.Entries {
		lines = append(lines,
			fmt.Sprintf("kubectl annotate serviceaccount -n %s %s "+
				"azure.workload.identity/client-id-", e.Namespace, e.ServiceAccount),
			fmt.Sprintf("kubectl label serviceaccount -n %s %s azure.workload.identity/use-", e.Namespace, e.ServiceAccount))
	}
	r.block(lines...)
	r.text("Keep the OIDC provider, the workspace, and the cluster's OIDC issuer: ampbridge uses them.")
}

// namespaces returns the namespaces of a cluster's entries, each once.
func namespaces(m Module, c Cluster) []string {
	var list []string
	for _, i := range c.Entries {
		list = append(list, m.Entries[i].Namespace)
	}
	slices.Sort(list)
	return slices.Compact(list)
}

type runbook struct {
	out   strings.Builder
	steps int
}

func (r *runbook) text(format string, args ...any) {
	r.out.WriteString(fmt.Sprintf(format, args...) + "\n")
}

func (r *runbook) step(title string) {
	r.steps++
	r.text("\n## %d. %s", r.steps, title)
	r.out.WriteString("\n")
}

// block writes lines as Markdown code, indented.
func (r *runbook) block(lines ...string) {
	if !strings.HasSuffix(r.out.String(), "\n\n") {
		r.out.WriteString("\n")
	}
	for _, line := range lines {
		r.out.WriteString(strings.TrimRight("    "+line, " ") + "\n")
	}
	r.out.WriteString("\n")
}

// word returns text as one word of a shell.
func word(text string) string {
	plain := !slices.ContainsFunc([]rune(text), func(c rune) bool {
		return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./", c)
	})
	if plain && text != "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}

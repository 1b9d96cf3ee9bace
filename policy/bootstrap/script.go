package bootstrap

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// Script returns the central part as AWS CLI commands for bash. The script first reads what exists:
// it updates what belongs to this cluster, and it stops before any change if something belongs to
// others. So it can run again. With existingProvider, the cluster's OIDC provider is managed
// elsewhere.
func Script(c Central, existingProvider bool) string {
	s := &script{variables: map[string]string{}}
	s.line("#!/usr/bin/env bash")
	s.comment("Written by ampbridge bootstrap -o aws-cli for cluster %s, account %s.", c.Cluster, c.Account)
	s.line("# It can be run again: it creates what is missing, and changes nothing that others created.")
	s.line("set -euo pipefail")
	s.line(`if [ "$(aws sts get-caller-identity --query Account --output text)" != ` + shell(c.Account) + ` ]; then`)
	s.line("  echo " + shell("these commands are for account "+c.Account+": use credentials of that account") + " >&2")
	s.line("  exit 1")
	s.line("fi")
	s.line("owner=" + shell(c.Owner))
	s.line(scriptFunctions)
	manages, bounds := !c.Provider.IsZero(), !c.Provider.IsZero() && !c.Boundary.IsZero()
	s.comment("Read first: if something is refused, nothing is changed.")
	for _, w := range c.Workspaces {
		if w.New {
			s.findWorkspace(c.Owner, w)
		}
	}
	if manages && !existingProvider {
		s.find("provider", "aws iam get-open-id-connect-provider --open-id-connect-provider-arn "+shell(c.Provider.String()),
			"Tags", c.Provider)
	}
	if bounds {
		s.find("boundary", "aws iam get-policy --policy-arn "+shell(c.Boundary.String()), "Policy.Tags", c.Boundary)
	}
	if manages {
		s.find("role", "aws iam get-role --role-name "+shell(c.Sync.ARN.RoleName()), "Role.Tags", c.Sync.ARN)
	}
	for _, w := range c.Workspaces {
		if w.New {
			s.workspace(c, w)
		}
	}
	if !manages {
		return s.out.String()
	}
	if !existingProvider {
		s.provider(c)
	}
	if bounds {
		s.boundary(c)
	}
	s.role(c)
	s.line("echo " + shell("sync's role: "+c.Sync.ARN.String()))
	return s.out.String()
}

// scriptFunctions are the functions of the script. The CLI prints None for a value that is missing.
const scriptFunctions = `
refuse() {
  echo "$1: nothing was changed; ampbridge bootstrap shows what to do" >&2
  exit 1
}
# own NAME OWNER: fails if the resource does not exist, and stops the script if it belongs to others.
own() {
  case "$2" in
    "$owner") return 0 ;;
    '') return 1 ;;
  esac
  refuse "$1 exists and was not created for this cluster (tag ampbridge.io/owner)"
}
# read_owner QUERY COMMAND...: prints the owner's tag, None without such a tag, or nothing without such a resource.
read_owner() {
  local query="$1[?Key=='ampbridge.io/owner'].Value | [0]" answer
  shift
  if "$@" --query "$query" --output text 2>/dev/null; then return; fi
  if answer="$("$@" --query "$query" --output text 2>&1)" || [[ "$answer" != *NoSuchEntity* ]]; then
    echo "$answer" >&2
    return 1
  fi
}`

type script struct {
	out strings.Builder
	// variables are the shell's variables for values that are known only after a resource exists,
	// by the placeholder of the value.
	variables map[string]string
}

func (s *script) line(text string) { s.out.WriteString(text + "\n") }

// comment writes one line, whatever its text contains.
func (s *script) comment(format string, args ...any) {
	s.line("\n# " + strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " "))
}

// command writes one command, with one option per line.
func (s *script) command(name string, options ...string) {
	s.out.WriteString(name)
	for option := range slices.Chunk(options, 2) {
		s.out.WriteString(" \\\n  " + strings.Join(option, " "))
	}
	s.out.WriteString("\n")
}

// variable returns the shell variable for a destination's workspace. The prefix is needed because
// a destination's name is a DNS label, which can begin with a digit.
func variable(w Workspace) string { return "workspace_" + strings.ReplaceAll(w.Destination, "-", "_") }

// find writes into a variable of that name whether a resource exists and belongs to this cluster.
func (s *script) find(name, command, tags string, resource policy.ARN) {
	s.line(fmt.Sprintf(`%s="$(read_owner %s %s)"`, name, tags, command))
	s.line(fmt.Sprintf(`if own %s "$%s"; then %s=exists; else %s=; fi`, shell(resource.String()), name, name, name))
}

func (s *script) findWorkspace(owner string, w Workspace) {
	name := variable(w)
	s.variables[w.ARN.String()] = name
	query := fmt.Sprintf(
		"workspaces[?tags.\"%s\"=='%s' && tags.\"%s\"=='%s' && status.statusCode!='DELETING'].arn",
		plan.TagOwner, owner, plan.TagDestination, w.Destination)
	s.line(fmt.Sprintf(`found="$(aws amp list-workspaces --region %s --output text --query %s)"`, shell(w.ARN.Region), shell(query)))
	s.line("list=($found)") // ARNs contain nothing that a shell expands
	s.line(fmt.Sprintf(`if [ "${#list[@]}" -gt 1 ]; then refuse "destination %s has several workspaces: ${list[*]}"; fi`, w.Destination))
	s.line(name + `="${list[0]-}"`)
}

func (s *script) workspace(c Central, w Workspace) {
	name, region := variable(w), shell(w.ARN.Region)
	s.comment("The workspace of destination %s: write its ARN into the policy.", w.Destination)
	s.line(`if [ -z "$` + name + `" ]; then`)
	// The user's texts go in as JSON, because the CLI reads some other arguments as file names,
	// for example file://…. The token makes a repeated call create nothing new.
	s.out.WriteString(name + `="$(`)
	s.command("aws amp create-workspace", "--region", region,
		"--cli-input-json", shell(encode(map[string]any{
			"alias": w.Alias, "tags": w.Tags, "clientToken": ClientToken(c.Owner, w.ARN.Region, w.Destination),
		})), "--query", "arn --output text)\"")
	if len(c.extra) > 0 {
		s.line("else")
		s.command("aws amp tag-resource", "--region", region, "--resource-arn", `"$`+name+`"`, "--tags", shell(encode(c.extra)))
	}
	s.line("fi")
	s.line(`aws amp wait workspace-active --region ` + region + ` --workspace-id "${` + name + `##*/}"`)
	s.line(
		`aws amp describe-workspace --region ` + region + ` --workspace-id "${` + name + `##*/}" --query ` +
			`'workspace.[arn,workspaceId,prometheusEndpoint]' --output text`,
	)
}

// boundary creates the policy, or gives it a new version if its content differs. IAM returns
// a document in another order than it was written, so the comparison must not depend on the order.
func (s *script) boundary(c Central) {
	arn := shell(c.Boundary.String())
	s.comment("The upper limit for roles created by sync, whatever their own documents allow.")
	s.line("document=" + s.document(c.Bound))
	s.line(`if [ -z "$boundary" ]; then`)
	s.command("aws iam create-policy", "--policy-name", shell(c.Boundary.RoleName()), "--path", shell(pathOf(c.Boundary)),
		"--policy-document", `"$document"`, "--tags", s.tags(c.Tags))
	s.line("else")
	s.retag(c, "aws iam tag-policy --policy-arn "+arn)
	var words policy.Values
	for _, statement := range c.Bound.Statement {
		words = append(words, statement.Effect)
		words = append(words, slices.Concat(statement.Action, statement.Resource)...)
	}
	s.line(`version="$(aws iam get-policy --policy-arn ` + arn + ` --query Policy.DefaultVersionId --output text)"`)
	s.line(`current="$(aws iam get-policy-version --policy-arn ` + arn + ` --version-id "$version" --output text --query ` +
		`'to_array(PolicyVersion.Document.Statement)[].[Effect,Action,Resource][][]' | tr '\t' '\n' | LC_ALL=C sort)"`)
	s.line(`wanted="$(printf '%s\n' ` + s.list(words) + ` | LC_ALL=C sort)"`)
	s.line(`if [ "$current" != "$wanted" ]; then`)
	s.line(`old="$(aws iam list-policy-versions --policy-arn ` + arn + ` --output text --query ` +
		`'sort_by(Versions,&CreateDate)[?!IsDefaultVersion].VersionId | [3]')"`)
	s.line(`if [ "$old" != None ]; then`)
	s.line(`old="$(aws iam list-policy-versions --policy-arn ` + arn + ` --output text --query ` +
		`'sort_by(Versions,&CreateDate)[?!IsDefaultVersion].VersionId | [0]')"`)
	s.line(`aws iam delete-policy-version --policy-arn ` + arn + ` --version-id "$old"`)
	s.line("fi")
	s.line(`aws iam create-policy-version --set-as-default --policy-arn ` + arn + ` --policy-document "$document"`)
	s.line("fi")
	s.line("fi")
}

func (s *script) role(c Central) {
	name := shell(c.Sync.ARN.RoleName())
	s.comment("The role of sync: only its own service account, or its role in another account, may assume it.")
	s.line(`if [ -z "$role" ]; then`)
	s.command("aws iam create-role", "--role-name", name, "--path", shell(pathOf(c.Sync.ARN)),
		"--description", shell(c.Sync.Description), "--assume-role-policy-document", s.document(c.Sync.Trust), "--tags", s.tags(c.Tags))
	s.line("else")
	if c.Sync.PruneTrust {
		s.command("aws iam update-assume-role-policy", "--role-name", name, "--policy-document", s.document(c.Sync.Trust))
	} else {
		s.line("echo " + shell("the trust document of "+c.Sync.ARN.String()+" stays as it is; a script with "+
			"--prune-trust replaces it") + " >&2")
	}
	s.retag(c, "aws iam tag-role --role-name "+name)
	s.line("fi")
	s.command("aws iam put-role-policy", "--role-name", name, "--policy-name", shell(plan.PolicyName),
		"--policy-document", s.document(c.Sync.Permissions))
}

// retag applies the tags that the user gave.
func (s *script) retag(c Central, command string) {
	if len(c.extra) > 0 {
		s.line(command + " --tags " + s.tags(c.extra))
	}
}

// document returns d as one shell argument, with the variables in it.
func (s *script) document(d policy.Document) string {
	text := shell(d.String())
	for placeholder, variable := range s.variables {
		// End the single quotes, and begin them again. An ARN contains no quote.
		text = strings.ReplaceAll(text, `"`+placeholder+`"`, `"'"$`+variable+`"'"`)
	}
	return text
}

func (s *script) tags(tags map[string]string) string {
	type tag struct{ Key, Value string }
	list := []tag{}
	for _, d := range tagDifferences(tags) {
		list = append(list, tag{strings.TrimPrefix(d.Field, "tag "), d.Becomes})
	}
	return shell(encode(list))
}

func (s *script) words(list []string) string {
	quoted := make([]string, len(list))
	for i, w := range list {
		quoted[i] = shell(w)
	}
	return strings.Join(quoted, " ")
}

// list returns what words returns, with the variables in it.
func (s *script) list(values policy.Values) string {
	quoted := make([]string, len(values))
	for i, v := range values {
		if quoted[i] = shell(v); s.variables[v] != "" {
			quoted[i] = `"$` + s.variables[v] + `"`
		}
	}
	return strings.Join(quoted, " ")
}

func encode(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // cannot happen: strings, and lists and maps of strings, always encode
	}
	return string(text)
}

// shell returns text as one word. Within single quotes, the only special character for a shell is
// the closing quote.
func shell(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func pathOf(arn policy.ARN) string {
	_, rest, _ := strings.Cut(arn.Resource, "/")
	return "/" + rest[:strings.LastIndexByte(rest, '/')+1]
}

func (s *script) provider(c Central) {
	const command = "  aws iam create-open-id-connect-provider"
	arn := shell(c.Provider.String())
	options := []string{"--url", shell(string(c.Issuer)), "--client-id-list", s.words(c.Audiences)}
	tags := s.tags(c.Tags)
	s.comment("The cluster's issuer: AWS accepts its tokens for these audiences. AWS needs no thumbprint, but a " +
		"CLI older than 2.17 does (it")
	s.line("# exits with 252). So the CLI gets a thumbprint of no certificate, which AWS ignores if the issuer's " +
		"CA is a public one.")
	s.line("create_provider() {")
	s.command(command, append(options, "--tags", tags+` "$@"`)...)
	s.line("}")
	s.line(`if [ -z "$provider" ]; then`)
	if len(c.Thumbprints) > 0 {
		s.line("create_provider --thumbprint-list " + strings.Join(c.Thumbprints, " "))
	} else {
		s.line("create_provider || { [ $? = 252 ] && create_provider --thumbprint-list " + strings.Repeat("0", 40) + "; }")
	}
	s.line("else")
	for _, audience := range c.Audiences {
		s.command("aws iam add-client-id-to-open-id-connect-provider", "--open-id-connect-provider-arn", arn, "--client-id", shell(audience))
	}
	s.retag(c, "aws iam tag-open-id-connect-provider --open-id-connect-provider-arn "+arn)
	s.line("fi")
}

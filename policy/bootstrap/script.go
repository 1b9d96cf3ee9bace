package bootstrap

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// Script is the central part as commands of the AWS CLI, for bash, as if
// nothing were there. It stops at the first thing that exists, and changes
// nothing that does. With existingProvider the cluster's OIDC provider is kept
// elsewhere.
func Script(c Central, existingProvider bool) string {
	s := &script{variables: map[string]string{}}
	s.line("#!/usr/bin/env bash")
	s.comment("Written by ampbridge bootstrap -o aws-cli for cluster %s, account %s.", c.Cluster, c.Account)
	s.comment("It stops at the first thing that exists already; ampbridge bootstrap --apply goes on from there.")
	s.line("set -euo pipefail")
	s.line(`if [ "$(aws sts get-caller-identity --query Account --output text)" != ` + shell(c.Account) + ` ]; then`)
	s.line("  echo " + shell("these commands are for account "+c.Account+": use credentials of that account") + " >&2")
	s.line("  exit 1")
	s.line("fi")
	for _, w := range c.Workspaces {
		if w.New {
			s.workspace(w)
		}
	}
	if c.Provider.IsZero() {
		return s.out.String()
	}
	if !existingProvider {
		s.provider(c)
	}
	if !c.Boundary.IsZero() {
		s.comment("The most that roles made by sync can ever do, whatever their own documents come to say.")
		s.command("aws iam create-policy", "--policy-name", shell(c.Boundary.RoleName()), "--path", shell(pathOf(c.Boundary)),
			"--policy-document", s.document(c.Bound), "--tags", s.tags(c.Tags))
	}
	s.comment("The role of sync: only its own service account, or its role in another account, may assume it.")
	s.command("aws iam create-role", "--role-name", shell(c.Sync.ARN.RoleName()), "--path", shell(pathOf(c.Sync.ARN)),
		"--description", shell(c.Sync.Description), "--assume-role-policy-document", s.document(c.Sync.Trust), "--tags", s.tags(c.Tags))
	s.command("aws iam put-role-policy", "--role-name", shell(c.Sync.ARN.RoleName()), "--policy-name", shell(plan.PolicyName),
		"--policy-document", s.document(c.Sync.Permissions))
	s.line("echo " + shell("sync's role: "+c.Sync.ARN.String()))
	return s.out.String()
}

type script struct {
	out strings.Builder
	// variables hold what is known only once something is made, by the
	// placeholder that stands for it.
	variables map[string]string
}

func (s *script) line(text string) { s.out.WriteString(text + "\n") }

// comment keeps its text, whatever is in it, to one line.
func (s *script) comment(format string, args ...any) {
	s.line("\n# " + strings.Join(strings.Fields(fmt.Sprintf(format, args...)), " "))
}

// command is one command, an option to a line.
func (s *script) command(name string, options ...string) {
	s.out.WriteString(name)
	for option := range slices.Chunk(options, 2) {
		s.out.WriteString(" \\\n  " + strings.Join(option, " "))
	}
	s.out.WriteString("\n")
}

func (s *script) workspace(w Workspace) {
	// A destination's name is a DNS label, and no variable begins with a digit here.
	variable := "workspace_" + strings.ReplaceAll(w.Destination, "-", "_")
	s.variables[w.ARN.String()] = variable
	region := shell(w.ARN.Region)
	s.comment("The workspace of destination %s: write its ARN into the policy.", w.Destination)
	// Text of people's own goes in as JSON: of other arguments the CLI reads some,
	// such as file://…, as the names of files.
	s.out.WriteString(variable + `="$(`)
	s.command("aws amp create-workspace", "--region", region,
		"--cli-input-json", shell(encode(map[string]any{"alias": w.Alias, "tags": w.Tags})), "--query", "arn --output text)\"")
	s.line(`aws amp wait workspace-active --region ` + region + ` --workspace-id "${` + variable + `##*/}"`)
	s.line(
		`aws amp describe-workspace --region ` + region + ` --workspace-id "${` + variable + `##*/}" --query ` +
			`'workspace.[arn,workspaceId,prometheusEndpoint]' --output text`,
	)
}

// document is d as one argument, with the variables in it.
func (s *script) document(d policy.Document) string {
	text := shell(d.String())
	for placeholder, variable := range s.variables {
		// Out of the single quotes, and in again. An ARN holds no quote.
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

func encode(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings, and lists and maps of them, always encode
	}
	return string(text)
}

// shell is text as one word: within single quotes a shell reads nothing but the
// quote that ends them.
func shell(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

func pathOf(arn policy.ARN) string {
	_, rest, _ := strings.Cut(arn.Resource, "/")
	return "/" + rest[:strings.LastIndexByte(rest, '/')+1]
}

func (s *script) provider(c Central) {
	const command = "aws iam create-open-id-connect-provider"
	options := []string{"--url", shell(string(c.Issuer)), "--client-id-list", s.words(c.Audiences)}
	tags := s.tags(c.Tags)
	if len(c.Thumbprints) > 0 {
		s.comment("The cluster's issuer: AWS takes its tokens, for these audiences, and goes by the thumbprints of its CA.")
		s.command(command, append(options, "--thumbprint-list", strings.Join(c.Thumbprints, " "), "--tags", tags)...)
		return
	}
	s.comment("The cluster's issuer: AWS takes its tokens, for these audiences. AWS needs no thumbprint; a CLI older than 2.17 does (it")
	s.line("# ends with 252), and gets one that stands for no certificate: AWS does not look at it where the issuer's CA is a public one.")
	s.line("create_provider() {")
	s.command(command, append(options, "--tags", tags+` "$@"`)...)
	s.line("}")
	s.line("create_provider || { [ $? = 252 ] && create_provider --thumbprint-list " + strings.Repeat("0", 40) + "; }")
}

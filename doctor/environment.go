package doctor

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Environment judges the AWS identity of a Prometheus container by its
// environment, and by the configuration that it has applied (YAML; empty where
// it is not known). Values are looked at, and never shown.
func Environment(env map[string]string, config string) Finding {
	_, keys := env["AWS_ACCESS_KEY_ID"]
	role, web := env["AWS_ROLE_ARN"], env["AWS_WEB_IDENTITY_TOKEN_FILE"] != ""
	switch {
	case keys && (role != "" || web):
		return Fails(Identity, About{}, Do("take AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY out of the environment"),
			"AWS_ACCESS_KEY_ID is set beside AWS_ROLE_ARN: static keys win, and the role is never used")
	case role != "" && slices.Contains(sigv4Roles(config), role):
		return Fails(Identity, About{}, Do("take role_arn out of the sigv4 of that remote_write, or the whole entry: ampbridge adds its own"),
			"a remote_write of Prometheus's own has sigv4.role_arn %s, which is also AWS_ROLE_ARN: the role would have to assume itself, and IAM denies that", role)
	case role != "" && discoversWithNodesRole(config):
		return Fails(Identity, About{}, Do(`keep the identity out of the environment: environment: never in the grant, or the annotation ampbridge.io/environment: "never" on the pod; then roll it`),
			"service discovery of EC2 (ec2_sd_configs) has no credentials of its own, so it now uses AWS_ROLE_ARN, and no longer the node's role: it may find nothing")
	case keys:
		return Doubts(Identity, About{}, Do("take the static keys out, if nothing else needs them"), "AWS_ACCESS_KEY_ID is set: ampbridge does not use it, but something may")
	}
	return Holds(Identity, About{}, "no static keys%s", map[bool]string{true: ", AWS_ROLE_ARN for people and tools"}[role != ""])
}

var roleLine = regexp.MustCompile(`(?m)^\s*role_arn:\s*(\S+)\s*$`)

// sigv4Roles are the roles that entries of remote_write name. The text is
// Prometheus's own rendering: block style, two blanks deep.
func sigv4Roles(config string) []string {
	var roles []string
	for _, m := range roleLine.FindAllStringSubmatch(section(config, "remote_write"), -1) {
		roles = append(roles, strings.Trim(m[1], `"'`))
	}
	return roles
}

var ec2 = regexp.MustCompile(`(?m)^(\s*)ec2_sd_configs:\s*$`)

// discoversWithNodesRole tells whether some discovery of EC2 names no identity.
func discoversWithNodesRole(config string) bool {
	for _, at := range ec2.FindAllStringSubmatchIndex(config, -1) {
		indent := at[3] - at[2]
		if own := below(config[at[1]:], indent); !strings.Contains(own, "role_arn:") && !strings.Contains(own, "access_key:") && !strings.Contains(own, "profile:") {
			return true
		}
	}
	return false
}

// section is what is below a key of the top level.
func section(config, key string) string {
	at := regexp.MustCompile(fmt.Sprintf(`(?m)^%s:\s*$`, regexp.QuoteMeta(key))).FindStringIndex(config)
	if at == nil {
		return ""
	}
	return below(config[at[1]:], 0)
}

// below are the lines that belong to a key of that indent: deeper ones, and
// items of its list.
func below(text string, indent int) string {
	var b strings.Builder
	for i, line := range strings.SplitAfter(text, "\n") {
		bare := strings.TrimLeft(line, " ")
		deep := len(line) - len(bare)
		if i > 0 && strings.TrimSpace(line) != "" && (deep < indent || deep == indent && !strings.HasPrefix(bare, "- ")) {
			break
		}
		b.WriteString(line)
	}
	return b.String()
}

package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// ContainerState is what is known about the AWS identity of a Prometheus container.
type ContainerState struct {
	// Env is its environment. Its values are never shown.
	Env map[string]string
	// Given is true if ampbridge set the AWS variables (environment: container).
	Given bool
	// Hidden lists the sources of the environment that cannot be read.
	Hidden []string
	// Configs are the configurations in the pod, and the one that Prometheus applied, as YAML.
	Configs []string
}

// withoutIdentity is the fix for a container that must keep its own identity.
const withoutIdentity = `keep ampbridge's identity out of the Prometheus container: environment: sidecar in the grant (the default), ` +
	`or the annotation ampbridge.io/environment: "sidecar" on the pod; then restart it`

// Environment judges the AWS identity of a Prometheus container, and its effect on the
// entries of the configuration that use the AWS SDK's default chain.
func Environment(c ContainerState) Finding {
	users, readable := usersOf(c.Configs)
	_, keys := c.Env["AWS_ACCESS_KEY_ID"]
	role, web := c.Env["AWS_ROLE_ARN"], c.Env["AWS_WEB_IDENTITY_TOKEN_FILE"] != ""
	if keys && (role != "" || web) {
		return Failed(Identity, About{}, NewFix("take AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY out of the environment"),
			"AWS_ACCESS_KEY_ID is set beside AWS_ROLE_ARN: static keys win, and the role is never used")
	}
	if role != "" {
		for _, u := range users {
			if u.assumes == role {
				return Failed(
					Identity,
					About{},
					NewFix("take role_arn out of that entry, or the whole entry: ampbridge adds its own remote_write"),
					"%s has role_arn %s, which is also AWS_ROLE_ARN: the role would have to assume itself, and IAM denies that",
					u.where,
					role,
				)
			}
		}
	}
	if c.Given && len(users) > 0 {
		return moved(users)
	}
	switch {
	case keys:
		return Warned(
			Identity,
			About{},
			NewFix("take the static keys out, if nothing else needs them"),
			"AWS_ACCESS_KEY_ID is set: ampbridge does not use it, but something may",
		)
	case len(c.Hidden) > 0 && c.Given:
		return Skipped(
			Identity,
			About{},
			"part of the container's environment comes from %s, which doctor does not read",
			strings.Join(c.Hidden, ", "),
		)
	case c.Given && !readable:
		return Skipped(
			Identity,
			About{},
			"the container has ampbridge's AWS_ROLE_ARN, and its configuration cannot be read: a sigv4 or a service discovery of its own "+
				"would use that role",
		)
	}
	message := "no static keys"
	switch {
	case c.Given:
		message += ", AWS_ROLE_ARN for people and tools"
	case role != "":
		message += ", AWS_ROLE_ARN is the pod's own"
	}
	if len(c.Hidden) > 0 {
		message = "no AWS variable of ampbridge; part of the environment comes from " + strings.Join(c.Hidden, ", ") +
			", which doctor does not read, and nothing in it changes what ampbridge does"
	}
	if len(users) > 0 {
		message += "; the identity of the pod or its node is used, as before, by " + whereOf(users)
	}
	return Passed(Identity, About{}, "%s", message)
}

// moved judges entries that now get ampbridge's role from the default chain.
func moved(users []chainUser) Finding {
	gets := map[chainUse]string{
		useDiscovery: "service discovery is refused, and finds nothing",
		useAlerts:    "alerts are refused",
		useAssume:    "ampbridge's role may assume no other role",
	}
	var refused []chainUser
	var effects []string
	for _, u := range users {
		if u.use == useWrite {
			continue
		}
		refused = append(refused, u)
		if !slices.Contains(effects, gets[u.use]) {
			effects = append(effects, gets[u.use])
		}
	}
	if len(refused) == 0 {
		return Warned(
			Identity,
			About{},
			NewFix(withoutIdentity),
			"%s now %s AWS_ROLE_ARN, which is ampbridge's: it may write to that role's workspace, and to no other",
			whereOf(users),
			use(users),
		)
	}
	return Failed(
		Identity,
		About{},
		NewFix(withoutIdentity),
		"%s now %s AWS_ROLE_ARN, which is ampbridge's, and no longer the node's role or the pod's own identity: %s",
		whereOf(refused),
		use(refused),
		strings.Join(effects, "; "),
	)
}

// use returns the verb for the users.
func use(users []chainUser) string {
	if len(users) == 1 {
		return "uses"
	}
	return "use"
}

// chainUse is a way to use the AWS SDK's default chain.
type chainUse int

const (
	useWrite chainUse = iota
	// useAssume is a sigv4 that assumes its role_arn with the identity of the default chain.
	useAssume
	useAlerts
	useDiscovery
)

// chainUser is an entry of Prometheus's configuration that gets its AWS identity
// from the SDK's default chain.
type chainUser struct {
	// where is its place in the configuration, such as remote_write[0].sigv4.
	where string
	use   chainUse
	// assumes is its role_arn; empty: none.
	assumes string
}

// whereOf lists the places of the users, at most four.
func whereOf(users []chainUser) string {
	const shown = 3
	var list []string
	for _, u := range users {
		list = append(list, u.where)
	}
	if n := len(list) - shown; n > 1 {
		list = append(list[:shown], fmt.Sprintf("%d more", n))
	}
	return strings.Join(list, ", ")
}

// discoveries are Prometheus's service discoveries that use the AWS SDK
// (https://prometheus.io/docs/prometheus/latest/configuration/configuration/).
var discoveries = []string{
	"aws_sd_configs",
	"ec2_sd_configs",
	"ecs_sd_configs",
	"elasticache_sd_configs",
	"lightsail_sd_configs",
	"msk_sd_configs",
	"rds_sd_configs",
}

// awsIdentity has the fields of an entry that choose its identity.
type awsIdentity struct {
	AccessKey string `yaml:"access_key"`
	Profile   string `yaml:"profile"`
	RoleARN   string `yaml:"role_arn"`
}

// chained reports whether the entry gets its identity from the default chain. A role_arn is
// assumed with that identity.
func (i awsIdentity) chained() bool { return i.AccessKey == "" && i.Profile == "" }

// prometheusConfig has the fields of a configuration that may use AWS. Agent mode has the
// same fields. Files of scrape_config_files have only scrape_configs.
type prometheusConfig struct {
	RemoteWrite   []signing                         `yaml:"remote_write"`
	ScrapeConfigs []map[string]yaml.Node            `yaml:"scrape_configs"`
	Alerting      struct{ Alertmanagers []manager } `yaml:"alerting"`
}

type signing struct {
	SigV4 *awsIdentity `yaml:"sigv4"`
}

// manager is an entry of alertmanagers. It may sign requests and discover servers.
type manager struct {
	signing     `yaml:",inline"`
	Discoveries map[string]yaml.Node `yaml:",inline"`
}

// usersOf returns every user of the default chain once. readable is true if one of the
// configurations is YAML.
func usersOf(configs []string) (users []chainUser, readable bool) {
	for _, text := range configs {
		var c prometheusConfig
		if text == "" || yaml.Unmarshal([]byte(text), &c) != nil {
			continue
		}
		readable = true
		for i, w := range c.RemoteWrite {
			users = w.add(users, fmt.Sprintf("remote_write[%d]", i), useWrite)
		}
		for i, m := range c.Alerting.Alertmanagers {
			where := fmt.Sprintf("alerting.alertmanagers[%d]", i)
			users = discovered(m.add(users, where, useAlerts), where, m.Discoveries)
		}
		for i, s := range c.ScrapeConfigs {
			users = discovered(users, fmt.Sprintf("scrape_configs[%d]", i), s)
		}
	}
	slices.SortStableFunc(users, func(a, b chainUser) int { return cmp.Compare(a.where, b.where) })
	return slices.Compact(users), readable
}

// add appends an entry that signs.
func (s signing) add(users []chainUser, where string, use chainUse) []chainUser {
	if s.SigV4 == nil || !s.SigV4.chained() {
		return users
	}
	if s.SigV4.RoleARN != "" {
		use = useAssume
	}
	return append(users, chainUser{where + ".sigv4", use, s.SigV4.RoleARN})
}

// discovered appends the service discoveries of an entry that use the default chain.
func discovered(users []chainUser, where string, entry map[string]yaml.Node) []chainUser {
	for _, name := range discoveries {
		node, ok := entry[name]
		if !ok {
			continue
		}
		var list []awsIdentity
		if node.Decode(&list) != nil {
			continue
		}
		for i, d := range list {
			if d.chained() {
				users = append(users, chainUser{fmt.Sprintf("%s.%s[%d]", where, name, i), useDiscovery, d.RoleARN})
			}
		}
	}
	return users
}

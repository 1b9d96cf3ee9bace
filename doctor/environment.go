package doctor

import "go.yaml.in/yaml/v4"

// Environment judges the AWS identity of a Prometheus container by its
// environment, and by the configurations that it has applied or is given (YAML;
// none where they are not known). Values are looked at, and never shown.
func Environment(env map[string]string, configs ...string) Finding {
	var config prometheusConfig
	for _, text := range configs {
		c := readConfig(text)
		config.RemoteWrite = append(config.RemoteWrite, c.RemoteWrite...)
		config.ScrapeConfigs = append(config.ScrapeConfigs, c.ScrapeConfigs...)
	}
	_, keys := env["AWS_ACCESS_KEY_ID"]
	role, web := env["AWS_ROLE_ARN"], env["AWS_WEB_IDENTITY_TOKEN_FILE"] != ""
	switch {
	case keys && (role != "" || web):
		return Fails(Identity, About{}, Do("take AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY out of the environment"),
			"AWS_ACCESS_KEY_ID is set beside AWS_ROLE_ARN: static keys win, and the role is never used")
	case role != "" && config.assumes(role):
		return Fails(Identity, About{}, Do("take role_arn out of the sigv4 of that remote_write, or the whole entry: ampbridge adds its own"),
			"a remote_write of Prometheus's own has sigv4.role_arn %s, which is also AWS_ROLE_ARN: the role would have to assume itself, and IAM denies that", role)
	case role != "" && config.discoversAsNode():
		return Fails(Identity, About{}, Do(`keep the identity out of the environment: environment: never in the grant, or the annotation ampbridge.io/environment: "never" on the pod; then roll it`),
			"service discovery of EC2 (ec2_sd_configs) has no credentials of its own, so it now uses AWS_ROLE_ARN, and no longer the node's role: it may find nothing")
	case keys:
		return Doubts(Identity, About{}, Do("take the static keys out, if nothing else needs them"), "AWS_ACCESS_KEY_ID is set: ampbridge does not use it, but something may")
	}
	return Holds(Identity, About{}, "no static keys%s", map[bool]string{true: ", AWS_ROLE_ARN for people and tools"}[role != ""])
}

// prometheusConfig is what of Prometheus's configuration says who it is for AWS.
type prometheusConfig struct {
	RemoteWrite []struct {
		SigV4 struct {
			RoleARN string `yaml:"role_arn"`
		} `yaml:"sigv4"`
	} `yaml:"remote_write"`
	ScrapeConfigs []struct {
		EC2 []struct {
			AccessKey string `yaml:"access_key"`
			Profile   string `yaml:"profile"`
			RoleARN   string `yaml:"role_arn"`
		} `yaml:"ec2_sd_configs"`
	} `yaml:"scrape_configs"`
}

// readConfig takes what it can: what is wrong with a configuration is
// Prometheus's to say.
func readConfig(text string) (c prometheusConfig) {
	_ = yaml.Unmarshal([]byte(text), &c)
	return c
}

// assumes tells whether an entry of remote_write assumes the role.
func (c prometheusConfig) assumes(role string) bool {
	for _, r := range c.RemoteWrite {
		if r.SigV4.RoleARN == role {
			return true
		}
	}
	return false
}

// discoversAsNode tells whether some discovery of EC2 names no identity.
func (c prometheusConfig) discoversAsNode() bool {
	for _, s := range c.ScrapeConfigs {
		for _, d := range s.EC2 {
			if d.AccessKey == "" && d.Profile == "" && d.RoleARN == "" {
				return true
			}
		}
	}
	return false
}

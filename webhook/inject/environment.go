package inject

import (
	"path"
	"slices"
	"strings"

	"gomodules.xyz/jsonpatch/v2"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

const (
	variableCredentialsFile = "AWS_SHARED_CREDENTIALS_FILE"
	variableConfigFile      = "AWS_CONFIG_FILE"
	variableLoadConfig      = "AWS_SDK_LOAD_CONFIG"
	variableRole            = "AWS_ROLE_ARN"
	variableToken           = "AWS_WEB_IDENTITY_TOKEN_FILE"
	variableRegion          = "AWS_REGION"
	variableDefaultRegion   = "AWS_DEFAULT_REGION"
	variableRegionalSTS     = "AWS_STS_REGIONAL_ENDPOINTS"
)

// identityVariables are those by which the AWS SDKs find an identity, or files
// of them (https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html).
var identityVariables = []string{
	"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
	"AWS_PROFILE", "AWS_DEFAULT_PROFILE", variableCredentialsFile, variableConfigFile,
	variableRole, variableToken,
	"AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
	"AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
}

// proxyVariables lead the SDKs' calls to STS, and Prometheus's own requests.
var proxyVariables = []string{"HTTPS_PROXY", "https_proxy"}

// azureVariables are those of Azure's workload identity webhook. They are the
// pod's identity, unless the policy itself takes the token of that webhook.
var azureVariables = []string{"AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"}

// identityVolumes are added by amazon-eks-pod-identity-webhook.
var identityVolumes = []string{"aws-iam-token", "eks-pod-identity-token"}

// environment are what the Prometheus container gets.
type environment struct {
	env    []EnvVar
	mounts []VolumeMount
}

// planEnvironment makes the container see the credentials file. It adds the AWS variables
// where the environment is container and nothing in the pod has an identity.
func planEnvironment(pod *Pod, c *Container, e policy.Entitlement, o Options, reload Reload) (environment, *policy.Decision) {
	var s environment
	token := tokenOf(o.Policy)
	for _, dir := range []string{sidecarconfig.CredentialsDir, token.MountPath} {
		for _, m := range c.VolumeMounts {
			if m.Name == token.Name && path.Clean(m.MountPath) == token.MountPath && token.Name != sidecarconfig.VolumeToken {
				continue // Azure's webhook has mounted it
			}
			_, over := below(path.Clean(m.MountPath), dir)
			_, under := below(dir, path.Clean(m.MountPath))
			if over || under {
				return s, refuse(
					MountConflict,
					"container %q has a mount at %q, which covers %s: mount it elsewhere",
					c.Name,
					m.MountPath,
					dir,
				)
			}
		}
	}
	s.mounts = append(s.mounts, VolumeMount{Name: sidecarconfig.VolumeCredentials, MountPath: sidecarconfig.CredentialsDir, ReadOnly: true})

	credentials, config := filesInUse(c)
	switch {
	case reload == ReloadNever && config:
		return s, refuse(
			CredentialFilesTaken,
			"container %q uses AWS's config file itself (%s, or a volume at ~/.aws), which a pod without a reloader needs: free it, or "+
				"add a reloader",
			c.Name,
			variableConfigFile,
		)
	case reload == ReloadNever && o.Policy.STS.ProxyURL != "" && !slices.ContainsFunc(proxyVariables, c.setsEnv):
		return s, refuse(
			NoReloader,
			"nothing in the pod reloads Prometheus, so it has to call STS itself, and cannot be told sts.proxyURL: add a reloader, or "+
				"set HTTPS_PROXY in container %q",
			c.Name,
		)
	case reload == ReloadNever:
		s.setEnv(variableConfigFile, credentialsFile)
		// Read by the SDK of Prometheus before 3.5.
		if !c.setsEnv(variableLoadConfig) {
			s.setEnv(variableLoadConfig, "1")
		}
		if !c.setsEnv(variableRegionalSTS) {
			s.setEnv(variableRegionalSTS, "regional")
		}
		s.mount(c, token)
	case !credentials:
		s.setEnv(variableCredentialsFile, credentialsFile)
	case !config:
		s.setEnv(variableConfigFile, credentialsFile)
		// The SDK of Prometheus before 3.5 reads that file only when told to.
		if !c.setsEnv(variableLoadConfig) {
			s.setEnv(variableLoadConfig, "1")
		}
	default:
		return s, refuse(
			CredentialFilesTaken,
			"container %q uses AWS's credentials file and its config file itself (%s, %s, or a volume at ~/.aws): free one of them",
			c.Name,
			variableCredentialsFile,
			variableConfigFile,
		)
	}

	identity := identityEnv(e, o.Policy)
	if e.Environment != policy.EnvironmentContainer || len(identity) == 0 || hasIdentity(pod, e, o) {
		return s, nil
	}
	// One region beside another would have tools disagree.
	region := c.setsEnv(variableRegion) || c.setsEnv(variableDefaultRegion)
	for _, v := range identity {
		switch v.Name {
		case variableRegion, variableDefaultRegion:
			if region {
				continue
			}
		case variableRegionalSTS:
			if c.setsEnv(v.Name) || s.sets(v.Name) {
				continue
			}
		}
		s.env = append(s.env, v)
	}
	s.mount(c, token)
	return s, nil
}

// identityEnv returns the variables by which the AWS SDKs and tools get a
// session. Several destinations have no one role: there are none then.
func identityEnv(e policy.Entitlement, p *policy.Policy) []EnvVar {
	if len(e.Destinations) != 1 {
		return nil
	}
	d := e.Destinations[0]
	return []EnvVar{
		{Name: variableRole, Value: p.RoleFor(d, e.Subject).String()},
		{Name: variableToken, Value: tokenFile(p)},
		{Name: variableRegion, Value: d.Workspace.Region},
		{Name: variableDefaultRegion, Value: d.Workspace.Region},
		{Name: variableRegionalSTS, Value: "regional"},
	}
}

// withdraw takes the variables of [identityEnv] out of the Prometheus container
// of an injected pod that has an identity of its own by now. Other webhooks,
// EKS Pod Identity's for one, come after this one, and the API server then calls
// this one again.
func withdraw(pod *Pod, e policy.Entitlement, o Options) []jsonpatch.Operation {
	index, refused := selectContainer(pod)
	identity := identityEnv(e, o.Policy)
	if refused != nil || len(identity) == 0 {
		return nil
	}
	own := slices.Concat(
		identity,
		[]EnvVar{{Name: variableCredentialsFile, Value: credentialsFile}, {Name: variableConfigFile, Value: credentialsFile}},
	)
	if !hasIdentity(pod, e, o, own...) {
		return nil
	}
	c, at := &pod.Spec.Containers[index], pointer("spec", "containers", index)
	// They stand in one row, in the order of identityEnv. A variable of the same
	// value elsewhere is the user's.
	first := slices.Index(c.Env, identity[0])
	if first < 0 {
		return nil
	}
	end := first
	for _, v := range identity {
		if end < len(c.Env) && c.Env[end] == v {
			end++
		}
	}
	var p patch
	for i := end - 1; i >= first; i-- {
		p.remove(at + pointer("env", i))
	}
	a, err := sidecarconfig.Decode(encodedConfig(pod))
	if err != nil || a.Reload == sidecarconfig.StartOnly {
		return p.operations // the SDK of such a Prometheus reads the token
	}
	for i, v := range slices.Backward(c.VolumeMounts) {
		if v.Name == sidecarconfig.VolumeToken {
			p.remove(at + pointer("volumeMounts", i))
		}
	}
	return p.operations
}

func (s *environment) sets(name string) bool {
	return slices.ContainsFunc(s.env, func(v EnvVar) bool { return v.Name == name })
}

// mount adds a mount that neither the container nor s has yet.
func (s *environment) mount(c *Container, m VolumeMount) {
	if !c.mounts(m.MountPath) && !slices.Contains(s.mounts, m) {
		s.mounts = append(s.mounts, m)
	}
}

func (s *environment) setEnv(name, value string) {
	s.env = append(s.env, EnvVar{Name: name, Value: value})
}

// filesInUse tells which of the AWS SDK's two files the container brings
// itself: each variable of ours would hide the file of that kind, under
// another name or in the home directory, wherever that is.
func filesInUse(c *Container) (credentials, config bool) {
	credentials, config = filesAtHome(c)
	return credentials || c.setsEnv(variableCredentialsFile), config || c.setsEnv(variableConfigFile)
}

// filesAtHome reports which of the two the container mounts in ~/.aws.
func filesAtHome(c *Container) (credentials, config bool) {
	for _, m := range c.VolumeMounts {
		at := path.Clean(m.MountPath)
		home := strings.HasSuffix(at, "/.aws")
		credentials = credentials || home || strings.HasSuffix(at, "/.aws/credentials")
		config = config || home || strings.HasSuffix(at, "/.aws/config")
	}
	return credentials, config
}

// hasIdentity reports whether the pod has an AWS identity, or may have one: what
// envFrom brings cannot be seen, and the variables of ampbridge would win over
// it. own are the variables that ampbridge has added.
func hasIdentity(pod *Pod, e policy.Entitlement, o Options, own ...EnvVar) bool {
	role := o.ServiceAccountAnnotations[policy.AnnotationIRSA]
	if role != "" && !slices.ContainsFunc(e.Destinations, func(d policy.Destination) bool {
		return role == o.Policy.RoleFor(d, e.Subject).String()
	}) {
		return true
	}
	azure := o.Policy.Token.Source != policy.TokenSourceAzure
	for c := range pod.all {
		if c.Name == sidecarconfig.ContainerName {
			continue
		}
		credentials, config := filesAtHome(c)
		if len(c.EnvFrom) > 0 || credentials || config ||
			slices.ContainsFunc(c.VolumeMounts, func(m VolumeMount) bool { return slices.Contains(identityVolumes, m.Name) }) {
			return true
		}
		for _, v := range c.Env {
			if slices.Contains(identityVariables, v.Name) && !slices.Contains(own, v) || azure && slices.Contains(azureVariables, v.Name) {
				return true
			}
		}
	}
	return false
}

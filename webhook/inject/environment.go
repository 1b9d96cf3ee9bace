package inject

import (
	"slices"
	"strings"

	"gomodules.xyz/jsonpatch/v2"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

const (
	variableCredentialsFile = "AWS_SHARED_CREDENTIALS_FILE"
	variableConfigFile      = "AWS_CONFIG_FILE"
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

// proxyVariables name the proxy of requests over HTTPS, and what it is not for.
var proxyVariables = []string{"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"}

// azureVariables are those of Azure's workload identity webhook. They are the
// pod's identity, unless the policy itself takes the token of that webhook.
var azureVariables = []string{"AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"}

// identityVolumes are added by amazon-eks-pod-identity-webhook.
var identityVolumes = []string{"aws-iam-token", "eks-pod-identity-token"}

// ownCredentials is how Prometheus finds the profiles that the sidecar writes.
var ownCredentials = EnvVar{Name: variableCredentialsFile, Value: credentialsFile}

// environment are what the Prometheus container gets.
type environment struct {
	env    []EnvVar
	mounts []VolumeMount
}

// planEnvironment makes the container see the volume of the credentials: the relay's
// password lies there, and the profile for sigv4, which a variable names. It adds the
// AWS variables where the environment is container and nothing in the pod has an
// identity.
func planEnvironment(pod *Pod, c *Container, e policy.Entitlement, o Options) (environment, *policy.Decision) {
	var s environment
	token := tokenOf(o.Policy)
	for _, dir := range []string{sidecarconfig.CredentialsDir, token.MountPath} {
		for _, m := range c.VolumeMounts {
			if m.Name == token.Name && cleanPath(m.MountPath) == token.MountPath && token.Name != sidecarconfig.VolumeToken {
				continue // Azure's webhook has mounted it
			}
			_, over := below(cleanPath(m.MountPath), dir)
			_, under := below(dir, cleanPath(m.MountPath))
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

	if anySigV4(e) {
		s.env = append(s.env, ownCredentials)
	}

	if e.Environment != policy.EnvironmentContainer {
		return s, nil
	}
	identity := identityEnv(e, o.Policy)
	if len(identity) == 0 || hasIdentity(pod, e, o) {
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
			if c.setsEnv(v.Name) {
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

// withdraw takes back what has become wrong in an injected pod, because another
// webhook has changed it since; the API server then calls this one again. A pod with an
// identity of its own loses the variables of [identityEnv]: EKS Pod Identity's webhook
// comes after this one. One with AWS files of its own gets the relay.
func withdraw(pod *Pod, e policy.Entitlement, o Options) []jsonpatch.Operation {
	index, refused := selectContainer(pod)
	if refused != nil {
		return nil
	}
	var p patch
	c, at := pod.Spec.Containers[index], pointer("spec", "containers", index)
	c.Env = relayInstead(&p, pod, c, at)
	identity := identityEnv(e, o.Policy)
	if len(identity) == 0 {
		return p.operations
	}
	own := append(slices.Clone(identity), ownCredentials)
	if !hasIdentity(pod, e, o, own...) {
		return p.operations
	}
	// They stand in one row, in the order of identityEnv. A variable of the same
	// value elsewhere is the user's.
	first := slices.Index(c.Env, identity[0])
	if first < 0 {
		return p.operations
	}
	end := first
	for _, v := range identity {
		if end < len(c.Env) && c.Env[end] == v {
			end++
		}
	}
	for i := end - 1; i >= first; i-- {
		p.remove(at + pointer("env", i))
	}
	for i, v := range slices.Backward(c.VolumeMounts) {
		if v.Name == sidecarconfig.VolumeToken {
			p.remove(at + pointer("volumeMounts", i))
		}
	}
	return p.operations
}

// mount adds a mount that neither the container nor s has yet.
func (s *environment) mount(c *Container, m VolumeMount) {
	if !c.mounts(m.MountPath) && !slices.Contains(s.mounts, m) {
		s.mounts = append(s.mounts, m)
	}
}

// proxyEnv returns the variables of Prometheus's container by which the sidecar
// finds the proxy to AMP, where the policy asks for that. A value that the kubelet
// makes of other variables is none of the sidecar's container.
func proxyEnv(c *Container, a sidecarconfig.Config) []EnvVar {
	if !slices.ContainsFunc(a.Destinations, func(d sidecarconfig.Destination) bool { return d.AMP.ProxyFromEnvironment }) {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(c.Env), func(v EnvVar) bool {
		return !slices.Contains(proxyVariables, v.Name) || v.ValueFrom != nil || strings.Contains(v.Value, "$(")
	})
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
		if len(c.EnvFrom) > 0 || filesAtHome(c) ||
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

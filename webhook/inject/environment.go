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

// identityVariables are the variables with which the AWS SDKs find an identity or files with one
// (https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html).
var identityVariables = []string{
	"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
	"AWS_PROFILE", "AWS_DEFAULT_PROFILE", variableCredentialsFile, variableConfigFile,
	variableRole, variableToken,
	"AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
	"AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
}

// proxyVariables name the proxy of HTTPS requests, and the hosts that need no proxy.
var proxyVariables = []string{"HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"}

// azureVariables are the variables of Azure's workload identity webhook. They give the pod an
// identity, unless the policy itself uses the token of that webhook.
var azureVariables = []string{"AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"}

// identityVolumes are the volumes that amazon-eks-pod-identity-webhook adds.
var identityVolumes = []string{"aws-iam-token", "eks-pod-identity-token"}

// ownCredentials is the variable with the file of profiles that the sidecar writes for Prometheus.
var ownCredentials = EnvVar{Name: variableCredentialsFile, Value: credentialsFile}

// environment is what the Prometheus container gets.
type environment struct {
	env    []EnvVar
	mounts []VolumeMount
}

// planEnvironment mounts the credentials' volume into the container. The volume has the relay's
// password, and the profile for sigv4 that a variable names. If the entitlement's environment is
// container and nothing in the pod has an identity, planEnvironment also adds the AWS variables.
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
	// If the container had two region variables with different values, tools would use different
	// regions.
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

// identityEnv returns the variables with which the AWS SDKs and tools get a session. It returns
// none for several destinations, because they have more than one role.
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

// withdraw removes parts of an injection that are wrong because another webhook has changed the pod
// since; the API server then calls this webhook again. A pod with an identity of its own loses the
// variables of [identityEnv], for example because EKS Pod Identity's webhook runs after this one. A
// pod with AWS files of its own gets the relay.
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
	// The added variables are consecutive, in the order of identityEnv. A variable with the same
	// value at another place belongs to the user.
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

// mount adds a mount if neither the container nor s has it.
func (s *environment) mount(c *Container, m VolumeMount) {
	if !c.mounts(m.MountPath) && !slices.Contains(s.mounts, m) {
		s.mounts = append(s.mounts, m)
	}
}

// proxyEnv returns the proxy variables of the Prometheus container for the sidecar, if the policy
// asks for them. It skips values that refer to other variables, because the sidecar's container
// does not have these variables.
func proxyEnv(c *Container, a sidecarconfig.Config) []EnvVar {
	if !slices.ContainsFunc(a.Destinations, func(d sidecarconfig.Destination) bool { return d.AMP.ProxyFromEnvironment }) {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(c.Env), func(v EnvVar) bool {
		return !slices.Contains(proxyVariables, v.Name) || v.ValueFrom != nil || strings.Contains(v.Value, "$(")
	})
}

// hasIdentity reports whether the pod has, or could have, an AWS identity. The variables of envFrom
// are not visible here, and ampbridge's variables would override them. own are the variables that
// ampbridge has added.
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

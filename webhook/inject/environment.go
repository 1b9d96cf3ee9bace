package inject

import (
	"path"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/assignment"
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

// identityVolumes are added by amazon-eks-pod-identity-webhook.
var identityVolumes = []string{"aws-iam-token", "eks-pod-identity-token"}

// surroundings are what the Prometheus container gets.
type surroundings struct {
	env    []EnvVar
	mounts []VolumeMount
}

// surround makes the container see the credentials file, and the identity too
// where the entitlement says so and that takes nothing away.
func surround(c *Container, e policy.Entitlement, o Options, reload Reload) (surroundings, *policy.Decision) {
	var s surroundings
	token := tokenOf(o.Policy)
	for _, dir := range []string{assignment.CredentialsDir, token.MountPath} {
		for _, m := range c.VolumeMounts {
			if m.Name == token.Name && path.Clean(m.MountPath) == token.MountPath && token.Name != VolumeToken {
				continue // Azure's webhook has mounted it
			}
			_, over := below(path.Clean(m.MountPath), dir)
			_, under := below(dir, path.Clean(m.MountPath))
			if over || under {
				return s, refuse(MountConflict, "container %q has a mount at %q, which covers %s: mount it elsewhere", c.Name, m.MountPath, dir)
			}
		}
	}
	s.mounts = append(s.mounts, VolumeMount{Name: VolumeCredentials, MountPath: assignment.CredentialsDir, ReadOnly: true})

	credentials, config := filesInUse(c)
	switch {
	case reload == ReloadNever && config:
		return s, refuse(CredentialFilesTaken, "container %q uses AWS's config file itself (%s, or a volume at ~/.aws), which a pod without a reloader needs: free it, or add a reloader", c.Name, variableConfigFile)
	case reload == ReloadNever && o.Policy.STS.ProxyURL != "" && !slices.ContainsFunc(proxyVariables, c.setsEnv):
		return s, refuse(NoReloader, "nothing in the pod reloads Prometheus, so it has to call STS itself, and cannot be told sts.proxyURL: add a reloader, or set HTTPS_PROXY in container %q", c.Name)
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
		return s, refuse(CredentialFilesTaken, "container %q uses AWS's credentials file and its config file itself (%s, %s, or a volume at ~/.aws): free one of them", c.Name, variableCredentialsFile, variableConfigFile)
	}

	if e.Environment != policy.EnvironmentAuto || len(e.Destinations) != 1 || hasIdentity(c, o.ServiceAccountAnnotations, o.Policy.RoleFor(e.Destinations[0], e.Subject)) {
		return s, nil
	}
	d := e.Destinations[0]
	s.setEnv(variableRole, o.Policy.RoleFor(d, e.Subject).String())
	s.setEnv(variableToken, tokenFile(o.Policy))
	// One region beside another's would have tools disagree.
	if !c.setsEnv(variableRegion) && !c.setsEnv(variableDefaultRegion) {
		s.setEnv(variableRegion, d.Workspace.Region)
		s.setEnv(variableDefaultRegion, d.Workspace.Region)
	}
	if !c.setsEnv(variableRegionalSTS) && reload != ReloadNever {
		s.setEnv(variableRegionalSTS, "regional")
	}
	s.mount(c, token)
	return s, nil
}

// mount adds a mount that neither the container nor s has yet.
func (s *surroundings) mount(c *Container, m VolumeMount) {
	if !c.mounts(m.MountPath) && !slices.Contains(s.mounts, m) {
		s.mounts = append(s.mounts, m)
	}
}

func (s *surroundings) setEnv(name, value string) {
	s.env = append(s.env, EnvVar{Name: name, Value: value})
}

// filesInUse tells which of the AWS SDK's two files the container brings
// itself: each variable of ours would hide the file of that kind, under
// another name or in the home directory, wherever that is.
func filesInUse(c *Container) (credentials, config bool) {
	credentials, config = c.setsEnv(variableCredentialsFile), c.setsEnv(variableConfigFile)
	for _, m := range c.VolumeMounts {
		at := path.Clean(m.MountPath)
		home := strings.HasSuffix(at, "/.aws")
		credentials = credentials || home || strings.HasSuffix(at, "/.aws/credentials")
		config = config || home || strings.HasSuffix(at, "/.aws/config")
	}
	return credentials, config
}

// hasIdentity tells whether the container has an AWS identity that is not ours,
// or may have one: what envFrom brings cannot be seen, and a variable of ours
// would win over it.
func hasIdentity(c *Container, serviceAccount map[string]string, ours policy.ARN) bool {
	role := serviceAccount[policy.AnnotationIRSA]
	return role != "" && role != ours.String() || len(c.EnvFrom) > 0 ||
		slices.ContainsFunc(identityVariables, c.setsEnv) ||
		slices.ContainsFunc(c.VolumeMounts, func(m VolumeMount) bool { return slices.Contains(identityVolumes, m.Name) })
}

package inject

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// AnnotationAWSConfig contains the AWS configuration of a pod with mode identity, if the
// destination has an assumeRole. The containers read it through a volume.
const AnnotationAWSConfig = policy.AnnotationAWSConfig

const (
	awsConfigFile = sidecarconfig.AWSConfigDir + "/" + sidecarconfig.AWSConfigFile

	variableEndpointSTS = "AWS_ENDPOINT_URL_STS"
	// variableLoadConfig makes the AWS SDK for Go v1 read AWS_CONFIG_FILE.
	variableLoadConfig = "AWS_SDK_LOAD_CONFIG"
)

// planIdentity returns what is added to a pod with mode identity.
func planIdentity(pod *Pod, named []namedContainer, e policy.Entitlement, o Options) (a addition, refused *policy.Decision) {
	if what := foreignIdentity(pod, named, e, o); what != "" {
		return a, refuse(ForeignIdentity, "%s, but the variables of mode identity would override it: remove it, or the annotation %s",
			what, policy.AnnotationContainer)
	}
	mounts := []VolumeMount{tokenOf(o.Policy)}
	a.volumes = tokenVolume(o.Policy)
	if text := awsConfig(e, o.Policy); text != "" {
		a.annotations = map[string]string{AnnotationAWSConfig: text}
		a.volumes = append(a.volumes, addedVolume{Name: sidecarconfig.VolumeAWSConfig, DownwardAPI: &downwardAPI{Items: []downwardItem{{
			Path: sidecarconfig.AWSConfigFile, FieldRef: FieldRef{FieldPath: "metadata.annotations['" + AnnotationAWSConfig + "']"},
		}}}})
		mounts = append(mounts, VolumeMount{Name: sidecarconfig.VolumeAWSConfig, MountPath: sidecarconfig.AWSConfigDir, ReadOnly: true})
	}
	variables := identityVariablesFor(e, o.Policy)
	for i := range named {
		c := &named[i]
		for _, m := range mounts {
			if refused := c.covered(m); refused != nil {
				return a, refused
			}
			c.addMount(m)
		}
		region := c.setsEnv(variableRegion) || c.setsEnv(variableDefaultRegion)
		for _, v := range variables {
			// The user's own value stays if it is not an identity. With two regions, programs would
			// disagree.
			isRegion := v.Name == variableRegion || v.Name == variableDefaultRegion
			if isRegion && region || c.setsEnv(v.Name) {
				continue
			}
			c.addedEnv = append(c.addedEnv, v)
		}
	}
	a.containers, a.mark = named, identityMark(e, o.Policy, named)
	return a, nil
}

// identityVariablesFor returns the variables of a container with mode identity. With them its
// program gets sessions from STS, as every program with an AWS SDK does. For a second role the SDKs
// need a file instead, because the variables of the first role would override the file.
func identityVariablesFor(e policy.Entitlement, p *policy.Policy) []EnvVar {
	env := identityEnv(e, p)
	if len(env) == 0 {
		return nil
	}
	d := e.Destinations[0]
	if !d.AssumeRole.IsZero() {
		env = slices.DeleteFunc(env, func(v EnvVar) bool { return v.Name == variableRole || v.Name == variableToken })
		env = append([]EnvVar{{Name: variableConfigFile, Value: awsConfigFile}, {Name: variableLoadConfig, Value: "1"}}, env...)
	}
	if endpoint := p.STSFor(d).Endpoint; endpoint != "" {
		env = append(env, EnvVar{Name: variableEndpointSTS, Value: endpoint})
	}
	return env
}

// awsConfig returns the AWS configuration of a destination with an assumeRole; empty if it has
// none. It contains no secret.
func awsConfig(e policy.Entitlement, p *policy.Policy) string {
	d := e.Destinations[0]
	if d.AssumeRole.IsZero() {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "[default]\nregion = %s\nsts_regional_endpoints = regional\nrole_arn = %s\nsource_profile = ampbridge\n",
		d.Workspace.Region, d.AssumeRole)
	if d.ExternalID != "" {
		fmt.Fprintf(&b, "external_id = %s\n", d.ExternalID)
	}
	fmt.Fprintf(&b, "\n[profile ampbridge]\nregion = %s\nsts_regional_endpoints = regional\nrole_arn = %s\nweb_identity_token_file = %s\n",
		d.Workspace.Region, p.RoleFor(d, e.Subject), tokenFile(p))
	return b.String()
}

// foreignIdentity describes the AWS identity that one of the named containers has or could have;
// empty if there is none. Other containers may have one, because nothing is added to them.
func foreignIdentity(pod *Pod, named []namedContainer, e policy.Entitlement, o Options) string {
	role := o.ServiceAccountAnnotations[policy.AnnotationIRSA]
	if role != "" && role != o.Policy.RoleFor(e.Destinations[0], e.Subject).String() {
		return "the service account has another role in " + policy.AnnotationIRSA
	}
	for _, name := range identityVolumes {
		if pod.volume(name) >= 0 {
			return "the pod has the volume " + name + " of EKS's webhook"
		}
	}
	for _, c := range named {
		for _, v := range c.Env {
			if slices.Contains(identityVariables, v.Name) {
				return c.called() + " sets " + v.Name
			}
		}
		switch {
		case len(c.EnvFrom) > 0:
			return c.called() + " has envFrom, which may set AWS variables"
		case filesAtHome(c.Container):
			return c.called() + " has a volume at ~/.aws"
		}
	}
	return ""
}

// identityMark returns the value of [AnnotationInjected] for a pod with mode identity.
func identityMark(e policy.Entitlement, p *policy.Policy, named []namedContainer) string {
	m := Injected{Version: 1, Mode: policy.ModeIdentity, Destinations: []string{e.Destinations[0].Name}, Policy: identityDigest(e, p)}
	for _, c := range named {
		m.Containers = append(m.Containers, c.Name)
	}
	return m.encode()
}

// identityDigest returns a hash of what the policy gives to a pod with mode identity.
func identityDigest(e policy.Entitlement, p *policy.Policy) string {
	text, err := json.Marshal([]any{identityVariablesFor(e, p), awsConfig(e, p), p.Token}, json.Deterministic(true))
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:6])
}

package inject

import (
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/webhook/jsonread"
)

const (
	// apiTokenDir is where the API server's ServiceAccount plugin mounts a token into every
	// container without a mount there.
	apiTokenDir = "/var/run/secrets/kubernetes.io/serviceaccount"

	credentialsFile = sidecarconfig.CredentialsDir + "/" + sidecarconfig.CredentialsFile

	// These are added to a pod by Azure's workload identity webhook
	// (https://azure.github.io/azure-workload-identity/docs/concepts.html).
	azureVolume    = "azure-identity-token"
	azureTokenDir  = "/var/run/secrets/azure/tokens"
	azureTokenName = "azure-identity-token"
	azureUse       = "azure.workload.identity/use"

	// nobody is the user of Prometheus's own image.
	nobody int64 = 65534
)

// user is the user of the sidecar.
type user struct {
	uid, gid *int64
	// prometheus is true if Prometheus certainly runs as the same user.
	prometheus bool
	seccomp    Seccomp
}

// userOf returns the first of these that is set: the policy's user, the user of the Prometheus
// container, the pod's user.
func userOf(pod *Pod, c *Container, s policy.SecurityContext) user {
	u := user{uid: c.SecurityContext.RunAsUser, gid: c.SecurityContext.RunAsGroup}
	if u.uid == nil {
		u.uid = pod.Spec.SecurityContext.RunAsUser
	}
	if u.gid == nil {
		u.gid = pod.Spec.SecurityContext.RunAsGroup
	}
	u.prometheus = u.uid != nil
	if s.RunAsUser != nil {
		u.prometheus = u.prometheus && *u.uid == int64(*s.RunAsUser)
		u.uid = new(int64(*s.RunAsUser))
	}
	if s.RunAsGroup != nil {
		u.gid = new(int64(*s.RunAsGroup))
	}
	u.seccomp = seccompOf(pod, c, s.SeccompProfile)
	return u
}

// seccompOf returns the profile that the policy requests. Its type is empty if there is none.
func seccompOf(pod *Pod, c *Container, wanted string) Seccomp {
	file, local := strings.CutPrefix(wanted, policy.SeccompLocalhost)
	switch {
	case local:
		return Seccomp{string(corev1.SeccompProfileTypeLocalhost), file}
	case wanted == policy.SeccompNone,
		wanted == policy.SeccompAuto && c.SecurityContext.SeccompProfile.Type == "" && pod.Spec.SecurityContext.SeccompProfile.Type == "":
		return Seccomp{}
	}
	return Seccomp{Type: string(corev1.SeccompProfileTypeRuntimeDefault)}
}

// These types describe what a patch adds. They have only members that injection sets, because users
// read patches too. Each type appends itself as JSON with the same result as encoding/json;
// TestAppended compares both.
type (
	container struct {
		Name                     string             `json:"name"`
		Image                    string             `json:"image"`
		Command                  []string           `json:"command"`
		Env                      []EnvVar           `json:"env"`
		Ports                    []Port             `json:"ports,omitempty"`
		Resources                Resources          `json:"resources,omitzero"`
		RestartPolicy            string             `json:"restartPolicy"`
		SecurityContext          restrictedSecurity `json:"securityContext"`
		StartupProbe             execProbe          `json:"startupProbe"`
		LivenessProbe            execProbe          `json:"livenessProbe"`
		TerminationMessagePolicy string             `json:"terminationMessagePolicy"`
		VolumeMounts             []VolumeMount      `json:"volumeMounts"`

		// encodedResources are Resources in JSON; nil if they are not encoded yet.
		encodedResources []byte
	}
	restrictedSecurity struct {
		AllowPrivilegeEscalation bool         `json:"allowPrivilegeEscalation"`
		Capabilities             capabilities `json:"capabilities"`
		ReadOnlyRootFilesystem   bool         `json:"readOnlyRootFilesystem"`
		RunAsNonRoot             bool         `json:"runAsNonRoot,omitzero"`
		RunAsUser                *int64       `json:"runAsUser"`
		RunAsGroup               *int64       `json:"runAsGroup,omitzero"`
		SeccompProfile           Seccomp      `json:"seccompProfile,omitzero"`
	}
	capabilities struct {
		Drop []string `json:"drop"`
	}
	execProbe struct {
		Exec             Exec `json:"exec"`
		PeriodSeconds    int  `json:"periodSeconds"`
		TimeoutSeconds   int  `json:"timeoutSeconds"`
		FailureThreshold int  `json:"failureThreshold"`
		// TerminationGracePeriodSeconds is the probe's grace period; 0 for the pod's grace period.
		TerminationGracePeriodSeconds int `json:"terminationGracePeriodSeconds,omitzero"`
	}
	addedVolume struct {
		Name      string     `json:"name"`
		EmptyDir  emptyDir   `json:"emptyDir,omitzero"`
		Projected *projected `json:"projected,omitzero"`
		// DownwardAPI is the volume with the AWS configuration of mode identity.
		DownwardAPI *downwardAPI `json:"downwardAPI,omitzero"`
	}
	emptyDir struct {
		Medium    string          `json:"medium"`
		SizeLimit policy.Quantity `json:"sizeLimit,omitzero"`
	}
	downwardAPI struct {
		Items []downwardItem `json:"items"`
	}
	downwardItem struct {
		Path     string   `json:"path"`
		FieldRef FieldRef `json:"fieldRef"`
	}
	projected struct {
		Sources []tokenSource `json:"sources"`
	}
	tokenSource struct {
		ServiceAccountToken serviceAccountToken `json:"serviceAccountToken"`
	}
	serviceAccountToken struct {
		Audience          string `json:"audience"`
		ExpirationSeconds int    `json:"expirationSeconds"`
		Path              string `json:"path"`
	}
)

func (c *container) appendJSON(b []byte) []byte {
	b = appendString(append(b, `{"name":`...), c.Name)
	b = appendString(append(b, `,"image":`...), c.Image)
	b = appendStrings(append(b, `,"command":`...), c.Command)
	b = appendList(append(b, `,"env":`...), c.Env, (*EnvVar).appendJSON)
	if len(c.Ports) > 0 {
		b = appendList(append(b, `,"ports":`...), c.Ports, (*Port).appendJSON)
	}
	switch {
	case c.Resources.any() && c.encodedResources != nil:
		b = append(append(b, `,"resources":`...), c.encodedResources...)
	case c.Resources.any():
		b = c.Resources.appendJSON(append(b, `,"resources":`...))
	}
	b = appendString(append(b, `,"restartPolicy":`...), c.RestartPolicy)
	b = c.SecurityContext.appendJSON(append(b, `,"securityContext":`...))
	b = c.StartupProbe.appendJSON(append(b, `,"startupProbe":`...))
	b = c.LivenessProbe.appendJSON(append(b, `,"livenessProbe":`...))
	b = appendString(append(b, `,"terminationMessagePolicy":`...), c.TerminationMessagePolicy)
	b = appendList(append(b, `,"volumeMounts":`...), c.VolumeMounts, (*VolumeMount).appendJSON)
	return append(b, '}')
}

func (s *restrictedSecurity) appendJSON(b []byte) []byte {
	b = strconv.AppendBool(append(b, `{"allowPrivilegeEscalation":`...), s.AllowPrivilegeEscalation)
	b = appendStrings(append(b, `,"capabilities":{"drop":`...), s.Capabilities.Drop)
	b = strconv.AppendBool(append(b, `},"readOnlyRootFilesystem":`...), s.ReadOnlyRootFilesystem)
	if s.RunAsNonRoot {
		b = append(b, `,"runAsNonRoot":true`...)
	}
	b = strconv.AppendInt(append(b, `,"runAsUser":`...), *s.RunAsUser, 10)
	if s.RunAsGroup != nil {
		b = strconv.AppendInt(append(b, `,"runAsGroup":`...), *s.RunAsGroup, 10)
	}
	if s.SeccompProfile != (Seccomp{}) {
		b = s.SeccompProfile.appendJSON(append(b, `,"seccompProfile":`...))
	}
	return append(b, '}')
}

func (p *execProbe) appendJSON(b []byte) []byte {
	b = appendStrings(append(b, `{"exec":{"command":`...), p.Exec.Command)
	b = strconv.AppendInt(append(b, `},"periodSeconds":`...), int64(p.PeriodSeconds), 10)
	b = strconv.AppendInt(append(b, `,"timeoutSeconds":`...), int64(p.TimeoutSeconds), 10)
	b = strconv.AppendInt(append(b, `,"failureThreshold":`...), int64(p.FailureThreshold), 10)
	if p.TerminationGracePeriodSeconds != 0 {
		b = strconv.AppendInt(append(b, `,"terminationGracePeriodSeconds":`...), int64(p.TerminationGracePeriodSeconds), 10)
	}
	return append(b, '}')
}

func (v *addedVolume) appendJSON(b []byte) []byte {
	b = appendString(append(b, `{"name":`...), v.Name)
	if e := v.EmptyDir; e != (emptyDir{}) {
		b = appendString(append(b, `,"emptyDir":{"medium":`...), e.Medium)
		if e.SizeLimit != "" {
			b = appendString(append(b, `,"sizeLimit":`...), string(e.SizeLimit))
		}
		b = append(b, '}')
	}
	if v.Projected != nil {
		b = appendList(append(b, `,"projected":{"sources":`...), v.Projected.Sources, (*tokenSource).appendJSON)
		b = append(b, '}')
	}
	if v.DownwardAPI != nil {
		b = appendList(append(b, `,"downwardAPI":{"items":`...), v.DownwardAPI.Items, (*downwardItem).appendJSON)
		b = append(b, '}')
	}
	return append(b, '}')
}

func (i *downwardItem) appendJSON(b []byte) []byte {
	b = appendString(append(b, `{"path":`...), i.Path)
	b = appendString(append(b, `,"fieldRef":{"fieldPath":`...), i.FieldRef.FieldPath)
	return append(b, '}', '}')
}

// member reads a volume that this or another webhook has added.
func (e *emptyDir) member(r *jsonread.Reader, name []byte) error {
	switch string(name) {
	case "medium":
		return r.String(&e.Medium)
	case "sizeLimit":
		if r.PeekKind() != '"' { // injection never writes a number
			return r.SkipValue()
		}
		return r.String((*string)(&e.SizeLimit))
	}
	return r.SkipValue()
}

func (t *tokenSource) appendJSON(b []byte) []byte {
	b = appendString(append(b, `{"serviceAccountToken":{"audience":`...), t.ServiceAccountToken.Audience)
	b = strconv.AppendInt(append(b, `,"expirationSeconds":`...), int64(t.ServiceAccountToken.ExpirationSeconds), 10)
	b = appendString(append(b, `,"path":`...), t.ServiceAccountToken.Path)
	return append(b, "}}"...)
}

// securityContext returns a context that passes the restricted Pod Security Standard if
// Prometheus's own does.
func (u user) securityContext() restrictedSecurity {
	s := restrictedSecurity{
		Capabilities:           capabilities{Drop: dropAll},
		ReadOnlyRootFilesystem: true,
		RunAsUser:              u.uid,
		RunAsGroup:             u.gid,
		SeccompProfile:         u.seccomp,
	}
	if u.uid == nil {
		s.RunAsUser = new(nobody)
		if u.gid == nil {
			s.RunAsGroup = new(nobody)
		}
	}
	s.RunAsNonRoot = *s.RunAsUser != 0
	return s
}

// tokenOf returns the mount of the service-account token that the policy uses.
func tokenOf(p *policy.Policy) VolumeMount {
	if p.Token.Source == policy.TokenSourceAzure {
		return VolumeMount{Name: azureVolume, MountPath: azureTokenDir, ReadOnly: true}
	}
	return VolumeMount{Name: sidecarconfig.VolumeToken, MountPath: sidecarconfig.TokenDir, ReadOnly: true}
}

// tokenFile returns the token's path in a container with this mount.
func tokenFile(p *policy.Policy) string {
	if p.Token.Source == policy.TokenSourceAzure {
		return azureTokenDir + "/" + azureTokenName
	}
	return sidecarconfig.TokenDir + "/" + sidecarconfig.TokenFile
}

// requireToken refuses a pod without the token volume, if another webhook must add it.
func requireToken(pod *Pod, p *policy.Policy) *policy.Decision {
	switch {
	case p.Token.Source != policy.TokenSourceAzure || pod.volume(azureVolume) >= 0:
		return nil
	case pod.Metadata.Labels[azureUse] != "true":
		return refuse(
			NoAzureToken,
			`the policy's token.source is azure, but the pod does not request a token from Azure's webhook: add the label %s: "true" to the pod`,
			azureUse,
		)
	}
	return refuse(
		NoAzureToken,
		"Azure's webhook has not added the volume %s to the pod: is it installed? If it runs after this webhook, the pod is checked again",
		azureVolume,
	)
}

// sidecar returns the container that runs with the encoded config and mirrors into the volume
// target.
func sidecar(image, target, config string, token VolumeMount, u user, r Resources) container {
	c := container{
		Name:          sidecarconfig.ContainerName,
		Image:         image,
		Command:       programCommand,
		Env:           append(make([]EnvVar, 0, 8), EnvVar{Name: sidecarconfig.Variable, Value: escape(config)}, podName, podNamespace),
		Resources:     r,
		RestartPolicy: string(corev1.ContainerRestartPolicyAlways),
		VolumeMounts: []VolumeMount{
			{Name: sidecarconfig.VolumeSource, MountPath: sidecarconfig.SourceDir, ReadOnly: true},
			{Name: target, MountPath: sidecarconfig.TargetDir},
			{Name: sidecarconfig.VolumeCredentials, MountPath: sidecarconfig.CredentialsDir},
			token,
			{Name: sidecarconfig.VolumeNoAPIToken, MountPath: apiTokenDir, ReadOnly: true},
		},
		// Prometheus starts only after its configuration exists. The sidecar needs a few seconds at
		// most, whatever AWS does.
		StartupProbe: execProbe{PeriodSeconds: 1, TimeoutSeconds: 5, FailureThreshold: 60},
		// If the sidecar hangs, its heartbeat becomes old and the kubelet restarts it, but not
		// Prometheus. The pod's own grace period is for Prometheus and is often ten minutes.
		LivenessProbe:            execProbe{PeriodSeconds: 20, TimeoutSeconds: 10, FailureThreshold: 3, TerminationGracePeriodSeconds: 5},
		SecurityContext:          u.securityContext(),
		TerminationMessagePolicy: string(corev1.TerminationMessageFallbackToLogsOnError),
	}
	c.StartupProbe.Exec.Command, c.LivenessProbe.Exec.Command = readyCommand, aliveCommand
	return c
}

// Parts that all sidecars share. They must not be changed.
var (
	programCommand = []string{sidecarconfig.Program}
	readyCommand   = []string{sidecarconfig.Program, sidecarconfig.ReadyArgument}
	aliveCommand   = []string{sidecarconfig.Program, sidecarconfig.AliveArgument}
	dropAll        = []string{"ALL"}

	podName      = fromField(sidecarconfig.PodNameVariable, "metadata.name")
	podNamespace = fromField(sidecarconfig.PodNamespaceVariable, "metadata.namespace")
)

// escape prevents the kubelet from expanding variables in a value.
func escape(value string) string { return strings.ReplaceAll(value, "$", "$$") }

func unescape(value string) string { return strings.ReplaceAll(value, "$$", "$") }

func fromField(name, field string) EnvVar {
	return EnvVar{Name: name, ValueFrom: &ValueFrom{FieldRef{FieldPath: field}}}
}

// volumes returns the volumes that are added in addition to the moved source. Those for files of
// the sidecar are in memory, so session credentials are never written to a disk.
func volumes(p *policy.Policy) []addedVolume {
	added := append([]addedVolume{memoryVolume(sidecarconfig.VolumeCredentials, p.Sidecar)}, tokenVolume(p)...)
	return append(added, memoryVolume(sidecarconfig.VolumeNoAPIToken, p.Sidecar))
}

// tokenVolume returns the volume with the token; none if Azure's webhook adds it.
func tokenVolume(p *policy.Policy) []addedVolume {
	t := p.Token
	if t.Source == policy.TokenSourceAzure {
		return nil
	}
	return []addedVolume{{Name: sidecarconfig.VolumeToken, Projected: &projected{Sources: []tokenSource{{serviceAccountToken{
		Audience: t.Audience, ExpirationSeconds: t.ExpirationSeconds, Path: sidecarconfig.TokenFile,
	}}}}}}
}

// memoryVolume returns a volume in memory. It has a size limit because some admission policies
// require one.
func memoryVolume(name string, s policy.Sidecar) addedVolume {
	return addedVolume{Name: name, EmptyDir: emptyDir{string(corev1.StorageMediumMemory), s.VolumeSizeLimit}}
}

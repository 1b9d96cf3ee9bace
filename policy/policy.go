package policy

import (
	"fmt"
	"time"
)

// APIVersion and Kind are the required values at the beginning of a policy file.
const (
	APIVersion = "ampbridge.io/v1alpha1"
	Kind       = "Policy"
)

// Policy is the cluster admin's file: the destinations of metrics, and who may use them.
// [Parse] returns one with its defaults filled in and its rules checked.
type Policy struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	// Paused stops new injections; running pods are not changed.
	Paused       bool          `yaml:"paused"`
	Cluster      Cluster       `yaml:"cluster"`
	Destinations []Destination `yaml:"destinations"`
	Grants       []Grant       `yaml:"grants"`
	Token        Token         `yaml:"token"`
	Session      Session       `yaml:"session"`
	STS          STS           `yaml:"sts"`
	Sidecar      Sidecar       `yaml:"sidecar"`
	Trust        Trust         `yaml:"trust"`
	Audit        Audit         `yaml:"audit"`
}

// Cluster names the Kubernetes cluster that this policy is for.
type Cluster struct {
	// Name is a DNS label, unique in each AWS account that the cluster writes
	// to. It is the value of the label `cluster`, and part of role names and paths.
	Name string `yaml:"name"`
	// Issuer is the service-account issuer, byte for byte as tokens contain it.
	// If empty, it is read from the API server.
	Issuer Issuer `yaml:"issuer"`
	// IssuerCA is for an issuer with a certificate that no public authority signed.
	IssuerCA IssuerCA `yaml:"issuerCA"`
}

// Destination is an AMP workspace, with the role that writes to it or queries it.
type Destination struct {
	// Name is a DNS label, unique in the policy.
	Name string `yaml:"name"`
	// Workspace determines region, account, partition and URL.
	Workspace Workspace `yaml:"workspace"`
	// Role is set if the admin manages the role; sync then does not change it.
	// If empty, sync creates its own role, see [Policy.Role].
	Role ARN `yaml:"role"`
	// AssumeRole is a second role, which the sidecar assumes with the first one. It never equals
	// Role: a role may not assume itself unless its trust document allows it, and that would gain
	// nothing.
	AssumeRole ARN `yaml:"assumeRole"`
	// ExternalID is sent to AWS when AssumeRole is assumed; empty if there is none.
	ExternalID string `yaml:"externalID"`
	// STS overrides fields of the policy's STS section, see [Policy.STSFor].
	STS STS `yaml:"sts"`
	// Endpoint replaces scheme and host of the workspace's URL, for example with a VPC endpoint, a
	// FIPS name or a dual-stack name. It has no path.
	Endpoint string `yaml:"endpoint"`
	// Delivery is [DeliveryAuto] by default.
	Delivery Delivery `yaml:"delivery"`
	// Access is what the role may do with the workspace; [AccessWrite] by default.
	Access      []Access    `yaml:"access"`
	RemoteWrite RemoteWrite `yaml:"remoteWrite"`
}

// Delivery is how a pod's samples reach a destination.
type Delivery string

// The values of [Destination.Delivery] and of the pod annotation. The delivery of an injected
// pod is always one of the last two.
const (
	// DeliveryAuto selects sigv4 if the pod proves that it can load each new session,
	// and relay otherwise.
	DeliveryAuto Delivery = "auto"
	// DeliverySigV4: Prometheus signs with the sessions that the sidecar gets.
	DeliverySigV4 Delivery = "sigv4"
	// DeliveryRelay: Prometheus writes to the sidecar, which signs and forwards.
	DeliveryRelay Delivery = "relay"
)

// problem returns the problem with the value, and the fix; empty if the value is known.
func (d Delivery) problem() string { return unknown(d, DeliveryAuto, DeliverySigV4, DeliveryRelay) }

// RemoteWrite holds what the admin can tune in a destination's block.
type RemoteWrite struct {
	QueueConfig         QueueConfig     `yaml:"queueConfig"`
	WriteRelabelConfigs []RelabelConfig `yaml:"writeRelabelConfigs"`
	// SendNativeHistograms is for Prometheus 2.40 and newer; see [Block.For].
	SendNativeHistograms bool `yaml:"sendNativeHistograms"`
	// SendExemplars is for Prometheus 2.27 and newer.
	SendExemplars bool     `yaml:"sendExemplars"`
	Metadata      Metadata `yaml:"metadata"`
	// RemoteTimeout limits one write; 0 means Prometheus's own 30 s.
	RemoteTimeout Duration `yaml:"remoteTimeout"`
	// RetryOn429 retries samples that AMP answers with 429, and does not drop them; nil means true.
	RetryOn429 *bool `yaml:"retryOn429"`
	// ProxyURL is the proxy to AMP. ProxyFromEnvironment (for Prometheus 2.43 and newer) means the
	// proxy in HTTPS_PROXY. If neither is set, there is no proxy.
	ProxyURL             string `yaml:"proxyURL"`
	ProxyFromEnvironment bool   `yaml:"proxyFromEnvironment"`
	// CABundle is PEM text with roots that are added to the system's.
	CABundle string `yaml:"caBundle"`
}

// Metadata is Prometheus's metadata_config.
type Metadata struct {
	// Send is true by default.
	Send *bool `yaml:"send"`
}

// isTrue returns the value of a setting that is true by default.
func isTrue(setting *bool) bool { return setting == nil || *setting }

// DropsOn429 reports whether samples that AMP answers with 429 are dropped.
func (r RemoteWrite) DropsOn429() bool { return !isTrue(r.RetryOn429) }

// QueueConfig is Prometheus's queue_config. A zero value means Prometheus's own default, except for
// the three values that AWS recommends (see [Destination.Block]).
type QueueConfig struct {
	Capacity          int      `yaml:"capacity"`
	MaxShards         int      `yaml:"maxShards"`
	MinShards         int      `yaml:"minShards"`
	MaxSamplesPerSend int      `yaml:"maxSamplesPerSend"`
	BatchSendDeadline Duration `yaml:"batchSendDeadline"`
	MinBackoff        Duration `yaml:"minBackoff"`
	MaxBackoff        Duration `yaml:"maxBackoff"`
	// SampleAgeLimit is for Prometheus 2.50 and newer; see [Block.For].
	SampleAgeLimit Duration `yaml:"sampleAgeLimit"`
}

// RelabelConfig is one of Prometheus's write_relabel_configs.
type RelabelConfig struct {
	SourceLabels []string `yaml:"sourceLabels"`
	Separator    *string  `yaml:"separator"`
	Regex        *string  `yaml:"regex"`
	Modulus      int      `yaml:"modulus"`
	TargetLabel  string   `yaml:"targetLabel"`
	Replacement  *string  `yaml:"replacement"`
	Action       string   `yaml:"action"`
}

// Grant lets service accounts use destinations.
type Grant struct {
	Namespaces      []Glob   `yaml:"namespaces"`
	ServiceAccounts []Glob   `yaml:"serviceAccounts"`
	Destinations    []string `yaml:"destinations"`
	// MaxSubjectsPerNamespace prevents one tenant from filling a role's trust document;
	// 0 means no limit.
	MaxSubjectsPerNamespace int `yaml:"maxSubjectsPerNamespace"`
	// Mode is [ModePrometheus] by default.
	Mode Mode `yaml:"mode"`
	// Environment is [EnvironmentSidecar] by default.
	Environment Environment `yaml:"environment"`
	// HA names a group of replicas that AMP deduplicates. Together with the workload it
	// becomes the label `cluster` for AMP's election, see [Policy.Group]. If empty, there are no
	// replica labels.
	HA string `yaml:"ha"`
	// IRSA also writes the role to the annotation eks.amazonaws.com/role-arn, which gives the
	// identity to every pod of the service account.
	IRSA bool `yaml:"irsa"`
}

// Environment selects the containers that get the AWS variables AWS_ROLE_ARN,
// AWS_WEB_IDENTITY_TOKEN_FILE and AWS_REGION.
type Environment string

// The values of [Grant.Environment] and of the pod annotation.
const (
	// EnvironmentSidecar selects only the config sidecar, because that calls STS.
	EnvironmentSidecar Environment = "sidecar"
	// EnvironmentContainer also selects the Prometheus container, for people and tools that read
	// the variables there. It applies only if nothing in the pod has an AWS identity.
	EnvironmentContainer Environment = "container"
)

// problem returns the problem with the value, and the fix; empty if the value is known. auto and
// never are values of earlier versions.
func (e Environment) problem() string {
	switch e {
	case "auto":
		return `"auto" does not exist any more: remove it, or write container to have the AWS variables in the Prometheus container too`
	case "never":
		return `"never" does not exist any more: remove it, because the AWS variables are now only in the sidecar, or write sidecar`
	}
	return unknown(e, EnvironmentSidecar, EnvironmentContainer)
}

// Token is the projected service-account token that the sidecar sends to STS.
type Token struct {
	// Audience is sts.amazonaws.com by default, or [AudienceAzure] with source azure.
	Audience string `yaml:"audience"`
	// ExpirationSeconds is 600 to 86400; the kubelet renews the token after 80 % of it.
	ExpirationSeconds int    `yaml:"expirationSeconds"`
	Source            string `yaml:"source"`
}

// Values of [Token.Source].
const (
	// TokenSourceProjected is a volume that ampbridge adds.
	TokenSourceProjected = "projected"
	// TokenSourceAzure is the volume that Azure's workload identity webhook adds to pods that ask
	// for it. Azure's webhook also sets the token's expiry.
	TokenSourceAzure = "azure"
)

// AudienceAzure is the audience of the tokens that Azure's webhook projects.
const AudienceAzure = "api://AzureADTokenExchange"

// Session is what the sidecar asks STS for.
type Session struct {
	// Duration is 15m to 12h, and at most what the role allows.
	Duration Duration `yaml:"duration"`
}

// STS is how the sidecar reaches the token service.
type STS struct {
	// Endpoint replaces https://sts.<region>.<suffix>, for example with a VPC endpoint.
	Endpoint string `yaml:"endpoint"`
	ProxyURL string `yaml:"proxyURL"`
	// CABundle is PEM text with roots that are added to the system's.
	CABundle string `yaml:"caBundle"`
}

// Sidecar configures the config sidecar's container.
type Sidecar struct {
	// Image is the sidecar's image; empty means the webhook's own.
	Image            string      `yaml:"image"`
	Resources        Resources   `yaml:"resources"`
	ImagePullSecrets []SecretRef `yaml:"imagePullSecrets"`
	// VolumeSizeLimit is the sizeLimit of each memory volume. The files there count
	// against the container's memory limit.
	VolumeSizeLimit Quantity        `yaml:"volumeSizeLimit"`
	SecurityContext SecurityContext `yaml:"securityContext"`
}

// SecurityContext holds settings that policies of the cluster may require of the container.
type SecurityContext struct {
	// SeccompProfile is [SeccompAuto], [SeccompRuntimeDefault], [SeccompNone], or
	// [SeccompLocalhost] and a file below the kubelet's directory of profiles.
	SeccompProfile string `yaml:"seccompProfile"`
	// RunAsUser and RunAsGroup are the container's ids; nil means those of Prometheus.
	RunAsUser  *int `yaml:"runAsUser"`
	RunAsGroup *int `yaml:"runAsGroup"`
}

// Values of [SecurityContext.SeccompProfile].
const (
	// SeccompAuto selects RuntimeDefault if the pod or Prometheus's container has a profile, and
	// none otherwise. Some platforms require a profile, and others forbid one.
	SeccompAuto           = "auto"
	SeccompRuntimeDefault = "RuntimeDefault"
	SeccompNone           = "none"
	// SeccompLocalhost is the beginning of a path to a profile on the node.
	SeccompLocalhost = "Localhost/"
)

// SecretRef names a Secret of the pod's namespace.
type SecretRef struct {
	Name string `yaml:"name" json:"name"`
}

// Resources are the container's requests and limits, as Kubernetes quantities.
type Resources struct {
	Requests ResourceList `yaml:"requests"`
	Limits   ResourceList `yaml:"limits"`
}

// ResourceList has a quantity for each of the two resources a sidecar uses.
type ResourceList struct {
	CPU    Quantity `yaml:"cpu"`
	Memory Quantity `yaml:"memory"`
}

// Trust configures how sync manages the AWS side.
type Trust struct {
	// Manage is roles if sync creates and corrects roles, or none if somebody else does.
	Manage string `yaml:"manage"`
	// RoleScope selects one role per destination, or one per destination and service account.
	RoleScope string `yaml:"roleScope"`
	// PermissionsBoundary is set on every role that sync creates. It is mandatory with
	// manage: roles, because without it stolen credentials of sync could create an administrator.
	PermissionsBoundary ARN       `yaml:"permissionsBoundary"`
	PruneAfter          Duration  `yaml:"pruneAfter"`
	Interval            Duration  `yaml:"interval"`
	Accounts            []Account `yaml:"accounts"`
	// AdoptProvider lets sync take over an OIDC provider of the issuer that has no owner. Sync
	// tags it, and from then on corrects and removes it.
	AdoptProvider bool `yaml:"adoptProvider"`
	// Tags are set on every role and provider that sync creates, in addition to sync's own tags.
	Tags map[string]string `yaml:"tags"`
	// RolePath is the beginning of the roles' IAM path, such as /team/; see [Policy.RolePath].
	RolePath string `yaml:"rolePath"`
}

// Values of the trust section.
const (
	ManageRoles = "roles"
	ManageNone  = "none"
	// RoleScopeDestination: a destination has one role, which trusts all subjects that are
	// granted. IAM has a quota for the length of its trust document.
	RoleScopeDestination = "destination"
	// RoleScopeServiceAccount: each service account has its own role for each of its
	// destinations. IAM has a quota for the number of an account's roles.
	RoleScopeServiceAccount = "serviceAccount"
)

// Account is an AWS account that sync reaches by assuming a role in it.
type Account struct {
	ID       string `yaml:"id"`
	SyncRole ARN    `yaml:"syncRole"`
}

// Audit configures what happens to pods that were not injected.
type Audit struct {
	Repair string `yaml:"repair"`
}

// Values of [Audit.Repair].
const (
	RepairNone = "none"
	// RepairEvict evicts a pod if its successor would be injected as the policy says.
	RepairEvict = "evict"
)

// Duration is a time.Duration in Go's notation: 15m, 6h, 1h30m.
type Duration time.Duration

// UnmarshalText parses Go's notation.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration: write it like 15m, 6h or 1h30m", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText returns Go's notation.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d Duration) String() string { return time.Duration(d).String() }

// Destination returns the destination with that name.
func (p *Policy) Destination(name string) (Destination, bool) {
	for _, d := range p.Destinations {
		if d.Name == name {
			return d, true
		}
	}
	return Destination{}, false
}

// STSFor returns how to reach STS for a destination. If the destination leaves a field empty,
// the policy's value applies.
func (p *Policy) STSFor(d Destination) STS {
	s := d.STS
	setDefault(&s.Endpoint, p.STS.Endpoint)
	setDefault(&s.ProxyURL, p.STS.ProxyURL)
	setDefault(&s.CABundle, p.STS.CABundle)
	return s
}

func (p *Policy) setDefaults() {
	if p.Token.Source == TokenSourceAzure {
		setDefault(&p.Token.Audience, AudienceAzure)
	}
	setDefault(&p.Token.Audience, "sts.amazonaws.com")
	setDefault(&p.Token.ExpirationSeconds, 3600)
	setDefault(&p.Token.Source, TokenSourceProjected)
	setDefault(&p.Session.Duration, Duration(6*time.Hour))
	// The limit is enough for the memory volumes, an edit of 4 MB and the relay.
	setDefault(&p.Sidecar.Resources.Requests.CPU, "10m")
	setDefault(&p.Sidecar.Resources.Requests.Memory, "32Mi")
	setDefault(&p.Sidecar.Resources.Limits.Memory, "256Mi")
	setDefault(&p.Sidecar.VolumeSizeLimit, defaultVolumeSize(p.Sidecar.Resources.Limits.Memory))
	setDefault(&p.Sidecar.SecurityContext.SeccompProfile, SeccompAuto)
	setDefault(&p.Trust.Manage, ManageRoles)
	setDefault(&p.Trust.RoleScope, RoleScopeDestination)
	setDefault(&p.Trust.PruneAfter, Duration(time.Hour))
	setDefault(&p.Trust.Interval, Duration(10*time.Minute))
	setDefault(&p.Audit.Repair, RepairNone)
	for i := range p.Destinations {
		setDefault(&p.Destinations[i].Delivery, DeliveryAuto)
		if p.Destinations[i].Access == nil {
			p.Destinations[i].Access = []Access{AccessWrite}
		}
	}
	for i := range p.Grants {
		setDefault(&p.Grants[i].Mode, ModePrometheus)
		setDefault(&p.Grants[i].Environment, EnvironmentSidecar)
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

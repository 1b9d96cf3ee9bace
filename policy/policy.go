package policy

import (
	"fmt"
	"time"
)

// APIVersion and Kind are what the head of a policy file must say.
const (
	APIVersion = "ampbridge.io/v1alpha1"
	Kind       = "Policy"
)

// Policy is the cluster admin's file: where metrics may go, and whose.
// Make one with [Parse]; its defaults are filled in and its rules hold.
type Policy struct {
	APIVersion string `yaml:"apiVersion"`
	Kind       string `yaml:"kind"`
	// Paused stops new injections; pods that run are left as they are.
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
	// to: it is the `cluster` label, and part of role names and paths.
	Name string `yaml:"name"`
	// Issuer is the service-account issuer, byte for byte as tokens carry it.
	// Empty: discovered from the API server.
	Issuer Issuer `yaml:"issuer"`
	// IssuerCA is for an issuer whose certificate no public authority vouches for.
	IssuerCA IssuerCA `yaml:"issuerCA"`
}

// Destination is an AMP workspace and the role that writes to it, or queries it.
type Destination struct {
	// Name is a DNS label, unique in the policy.
	Name string `yaml:"name"`
	// Workspace says it all: region, account, partition and URL derive from it.
	Workspace Workspace `yaml:"workspace"`
	// Role is set by the admin who keeps the role himself; sync then leaves it
	// alone. Empty: sync's own, see [Policy.Role].
	Role ARN `yaml:"role"`
	// AssumeRole is a second role, chained by the sidecar. Never equal to Role:
	// a role may not assume itself unless its trust says so, and it gains nothing.
	AssumeRole ARN `yaml:"assumeRole"`
	// ExternalID is shown to AWS when AssumeRole is assumed; empty: none.
	ExternalID string `yaml:"externalID"`
	// STS replaces fields of the policy's: see [Policy.STSFor].
	STS STS `yaml:"sts"`
	// Endpoint replaces scheme and host of the workspace's URL: a VPC endpoint,
	// FIPS or dual-stack name. No path.
	Endpoint string `yaml:"endpoint"`
	// Delivery is [DeliveryAuto] by default.
	Delivery Delivery `yaml:"delivery"`
	// Access is what the role may do with the workspace; by default [AccessWrite].
	Access      []Access    `yaml:"access"`
	RemoteWrite RemoteWrite `yaml:"remoteWrite"`
}

// Delivery is how a pod's samples reach a destination.
type Delivery string

// The values of [Destination.Delivery] and of the pod annotation. A pod that is
// injected has one of the last two.
const (
	// DeliveryAuto: sigv4 where the pod proves that it can take each new session,
	// else relay.
	DeliveryAuto Delivery = "auto"
	// DeliverySigV4: Prometheus signs, with the sessions that the sidecar gets.
	DeliverySigV4 Delivery = "sigv4"
	// DeliveryRelay: Prometheus writes to the sidecar, which signs and forwards.
	DeliveryRelay Delivery = "relay"
)

// problem returns what is wrong with the value, and the fix; empty where the value
// is known.
func (d Delivery) problem() string {
	switch d {
	case DeliveryAuto, DeliverySigV4, DeliveryRelay:
		return ""
	}
	return fmt.Sprintf("%q is unknown: write auto, sigv4 or relay", string(d))
}

// RemoteWrite is what the admin may tune of a destination's block.
type RemoteWrite struct {
	QueueConfig         QueueConfig     `yaml:"queueConfig"`
	WriteRelabelConfigs []RelabelConfig `yaml:"writeRelabelConfigs"`
	// SendNativeHistograms is for Prometheus 2.40 and newer; see [Block.For].
	SendNativeHistograms bool `yaml:"sendNativeHistograms"`
	// SendExemplars is for Prometheus 2.27 and newer.
	SendExemplars bool     `yaml:"sendExemplars"`
	Metadata      Metadata `yaml:"metadata"`
	// RemoteTimeout bounds one write; 0: Prometheus's own 30 s.
	RemoteTimeout Duration `yaml:"remoteTimeout"`
	// RetryOn429: AMP's answer 429 is retried, and not dropped; nil: it is.
	RetryOn429 *bool `yaml:"retryOn429"`
	// ProxyURL is the proxy to AMP; empty: none, or with ProxyFromEnvironment (which
	// is for Prometheus 2.43 and newer) the one that HTTPS_PROXY names.
	ProxyURL             string `yaml:"proxyURL"`
	ProxyFromEnvironment bool   `yaml:"proxyFromEnvironment"`
	// CABundle is PEM text, added to the system's roots.
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

// QueueConfig is Prometheus's queue_config. Zero values mean Prometheus's own defaults, but for the three
// that AWS recommends (see [Destination.Block]).
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

// Grant says which service accounts may write to which destinations.
type Grant struct {
	Namespaces      []Glob   `yaml:"namespaces"`
	ServiceAccounts []Glob   `yaml:"serviceAccounts"`
	Destinations    []string `yaml:"destinations"`
	// MaxSubjectsPerNamespace keeps one tenant from using up a role's trust
	// document. 0: no cap.
	MaxSubjectsPerNamespace int `yaml:"maxSubjectsPerNamespace"`
	// Mode is [ModePrometheus] by default.
	Mode Mode `yaml:"mode"`
	// Environment is [EnvironmentSidecar] by default.
	Environment Environment `yaml:"environment"`
	// HA names a group of replicas that AMP is to deduplicate; with what tells
	// workloads apart it becomes the `cluster` label of the election: see
	// [Policy.Group]. Empty: no replica labels.
	HA string `yaml:"ha"`
	// IRSA also shows the role in eks.amazonaws.com/role-arn, which gives every
	// pod of the service account the identity.
	IRSA bool `yaml:"irsa"`
}

// Environment names the containers that get the AWS variables: AWS_ROLE_ARN,
// AWS_WEB_IDENTITY_TOKEN_FILE and AWS_REGION.
type Environment string

// The values of [Grant.Environment] and of the pod annotation.
const (
	// EnvironmentSidecar: the config sidecar alone, because it calls STS.
	EnvironmentSidecar Environment = "sidecar"
	// EnvironmentContainer: the Prometheus container too, for people and tools
	// that look there, and only where nothing in the pod has an AWS identity.
	EnvironmentContainer Environment = "container"
)

// problem returns what is wrong with the value, and the fix; empty where the
// value is known. auto and never are values of earlier versions.
func (e Environment) problem() string {
	switch e {
	case EnvironmentSidecar, EnvironmentContainer:
		return ""
	case "auto":
		return `"auto" does not exist any more: leave it out, or write container to have the AWS variables in the Prometheus container too`
	case "never":
		return `"never" does not exist any more: leave it out, because the AWS variables now stand in the sidecar alone, or write sidecar`
	}
	return fmt.Sprintf("%q is unknown: write sidecar or container", string(e))
}

// Token is the projected service-account token that the sidecar shows to STS.
type Token struct {
	// Audience: by default sts.amazonaws.com, or [AudienceAzure] with source azure.
	Audience string `yaml:"audience"`
	// ExpirationSeconds is 600 to 86400; the kubelet renews at 80 % of it.
	ExpirationSeconds int    `yaml:"expirationSeconds"`
	Source            string `yaml:"source"`
}

// Values of [Token.Source].
const (
	// TokenSourceProjected is a volume of our own.
	TokenSourceProjected = "projected"
	// TokenSourceAzure is the volume that Azure's workload identity webhook adds
	// to pods that ask for it; its expiry is Azure's too.
	TokenSourceAzure = "azure"
)

// AudienceAzure is the audience of the tokens that Azure's webhook projects.
const AudienceAzure = "api://AzureADTokenExchange"

// Session is what is asked of STS.
type Session struct {
	// Duration is 15m to 12h, and never more than the role allows.
	Duration Duration `yaml:"duration"`
}

// STS says how the sidecar reaches the token service.
type STS struct {
	// Endpoint replaces https://sts.<region>.<suffix>, for VPC endpoints.
	Endpoint string `yaml:"endpoint"`
	ProxyURL string `yaml:"proxyURL"`
	// CABundle is PEM text, added to the system's roots.
	CABundle string `yaml:"caBundle"`
}

// Sidecar is how the config sidecar's container is made.
type Sidecar struct {
	// Image: empty means the webhook's own.
	Image            string      `yaml:"image"`
	Resources        Resources   `yaml:"resources"`
	ImagePullSecrets []SecretRef `yaml:"imagePullSecrets"`
	// VolumeSizeLimit is the sizeLimit of each memory volume. What lies there counts
	// against the container's memory limit.
	VolumeSizeLimit Quantity        `yaml:"volumeSizeLimit"`
	SecurityContext SecurityContext `yaml:"securityContext"`
}

// SecurityContext is what policies of the cluster may demand of the sidecar's container.
type SecurityContext struct {
	// SeccompProfile is [SeccompAuto], [SeccompRuntimeDefault], [SeccompNone], or
	// [SeccompLocalhost] and a file below the kubelet's directory of profiles.
	SeccompProfile string `yaml:"seccompProfile"`
	// RunAsUser and RunAsGroup: nil means those of Prometheus.
	RunAsUser  *int `yaml:"runAsUser"`
	RunAsGroup *int `yaml:"runAsGroup"`
}

// Values of [SecurityContext.SeccompProfile].
const (
	// SeccompAuto: RuntimeDefault where the pod or Prometheus's container has a profile,
	// else none. There are platforms that demand one, and others that forbid it.
	SeccompAuto           = "auto"
	SeccompRuntimeDefault = "RuntimeDefault"
	SeccompNone           = "none"
	// SeccompLocalhost begins the path of a profile on the node.
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

// Trust is how sync keeps the AWS side.
type Trust struct {
	// Manage: roles (sync creates and corrects) or none (somebody else does).
	Manage string `yaml:"manage"`
	// RoleScope: a role for each destination, or for each of its service accounts.
	RoleScope string `yaml:"roleScope"`
	// PermissionsBoundary is put on every role that sync creates; mandatory
	// with manage: roles, because without it a stolen sync could make itself
	// an administrator.
	PermissionsBoundary ARN       `yaml:"permissionsBoundary"`
	PruneAfter          Duration  `yaml:"pruneAfter"`
	Interval            Duration  `yaml:"interval"`
	Accounts            []Account `yaml:"accounts"`
	// AdoptProvider: an OIDC provider of the issuer that nothing owns becomes the
	// cluster's; sync tags it, and from then on corrects and removes it.
	AdoptProvider bool `yaml:"adoptProvider"`
	// Tags are on every role and provider that sync makes, beside its own.
	Tags map[string]string `yaml:"tags"`
	// RolePath begins the IAM path of the roles, as in /team/; see [Policy.RolePath].
	RolePath string `yaml:"rolePath"`
}

// Values of the trust section.
const (
	ManageRoles = "roles"
	ManageNone  = "none"
	// RoleScopeDestination: a destination has one role, which trusts all that are
	// granted. The length of its trust document is a quota of IAM's.
	RoleScopeDestination = "destination"
	// RoleScopeServiceAccount: each service account has a role of its own for each
	// of its destinations. The number of the account's roles is a quota of IAM's.
	RoleScopeServiceAccount = "serviceAccount"
)

// Account is an AWS account that sync reaches by assuming a role in it.
type Account struct {
	ID       string `yaml:"id"`
	SyncRole ARN    `yaml:"syncRole"`
}

// Audit is what happens to pods that slipped through.
type Audit struct {
	Repair string `yaml:"repair"`
}

// Values of [Audit.Repair].
const (
	RepairNone = "none"
	// RepairEvict evicts the pods that another admission would fix.
	RepairEvict = "evict"
)

// Duration is a time.Duration written as in Go: 15m, 6h, 1h30m.
type Duration time.Duration

// UnmarshalText parses d from its Go form.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil || v < 0 {
		return fmt.Errorf("%q is not a duration: write it like 15m, 6h or 1h30m", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes d in its Go form.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

func (d Duration) String() string { return time.Duration(d).String() }

// Destination finds a destination by its name.
func (p *Policy) Destination(name string) (Destination, bool) {
	for _, d := range p.Destinations {
		if d.Name == name {
			return d, true
		}
	}
	return Destination{}, false
}

// STSFor returns how to reach STS for a destination: a field that the destination leaves
// empty is the policy's.
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
	// The limit leaves room for the memory volumes, an edit of 4 MB and the relay.
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

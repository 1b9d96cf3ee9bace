package sidecarconfig

// Names of the things that injection adds to a pod.
const (
	// ContainerName is the name of the native sidecar, which is the first init container.
	ContainerName = "ampbridge-config"
	// MetricsPortName is the name of the sidecar's port. If a container of the
	// pod already has a port of that name, the sidecar's name gets a suffix.
	MetricsPortName = "ampbridge"

	VolumeSource      = "ampbridge-source"
	VolumeCredentials = "ampbridge-credentials"
	VolumeToken       = "ampbridge-token"
	VolumeNoAPIToken  = "ampbridge-no-api-token"
	// VolumeAWSConfig exists only in mode identity.
	VolumeAWSConfig = "ampbridge-aws-config"
)

// The sidecar's program in the image, and the arguments for its probes.
const (
	Program = "/config-sidecar"
	// ReadyArgument makes the program exit with 0 if a configuration is served.
	ReadyArgument = "ready"
	// AliveArgument makes the program exit with 1 if the running sidecar hangs.
	AliveArgument = "alive"
)

// Environment variables of the sidecar's container.
const (
	// Variable holds the config, encoded by [Config.Encode].
	Variable = "AMPBRIDGE_SIDECAR_CONFIG"
	// PodNameVariable and PodNamespaceVariable come from the downward API,
	// because pods may have no name at admission.
	PodNameVariable      = "AMPBRIDGE_POD_NAME"
	PodNamespaceVariable = "AMPBRIDGE_POD_NAMESPACE"
)

// Environment variables of containers with mode relay.
const (
	WriteURLVariable          = "AMPBRIDGE_REMOTE_WRITE_URL"
	WriteUserVariable         = "AMPBRIDGE_REMOTE_WRITE_USERNAME"
	WritePasswordFileVariable = "AMPBRIDGE_REMOTE_WRITE_PASSWORD_FILE"
)

// The mount paths of the sidecar's volumes. Source and target are fixed, so that a
// sidecar that cannot read its config can still mirror.
const (
	SourceDir      = "/var/run/ampbridge.io/source"
	TargetDir      = "/var/run/ampbridge.io/config"
	CredentialsDir = "/var/run/secrets/ampbridge.io/credentials"
	TokenDir       = "/var/run/secrets/ampbridge.io/token"
	AWSConfigDir   = "/var/run/secrets/ampbridge.io/aws"
)

// Names of files.
const (
	// CredentialsFile has the AWS profiles, in [CredentialsDir].
	CredentialsFile = "credentials"
	// StatusFile holds a [Status]. HeartbeatFile shows when the sidecar's loop last moved. Both are
	// in the same directory as the credentials file.
	StatusFile    = "status.json"
	HeartbeatFile = "heartbeat"
	// TokenFile is the projected service-account token, in [TokenDir].
	TokenFile = "token"
	// RelayPasswordFile has the relay's password, in [CredentialsDir].
	RelayPasswordFile = "relay-password"
	// AWSConfigFile is the AWS configuration of mode identity, in [AWSConfigDir].
	AWSConfigFile = "config"
)

// CAFile returns the path of the file with the roots that Prometheus trusts for a
// destination's workspace. The sidecar writes it.
func CAFile(destination string) string { return CredentialsDir + "/" + destination + ".ca.pem" }

// Values of [Config.MetricsPort].
const (
	DefaultMetricsPort int32 = 9095
	// NoMetrics means that no port is free, or that the pod is in the host's network.
	NoMetrics int32 = -1
)

// Paths that the sidecar serves at the metrics port.
const (
	MetricsPath = "/metrics"
	// StatusPath returns a [Status] as JSON.
	StatusPath = "/status"
	// QueuesPath returns what Prometheus's own metrics show about the pod's blocks. The sidecar
	// reads these metrics in the pod's network.
	QueuesPath = "/prometheus/metrics"
)

package sidecarconfig

// Names of what injection adds to a pod.
const (
	// ContainerName is the native sidecar's, the first of the init containers.
	ContainerName = "ampbridge-config"
	// MetricsPortName is the name of the sidecar's port. Where a container of the
	// pod has the name already, the sidecar's has a suffix.
	MetricsPortName = "ampbridge"

	VolumeSource      = "ampbridge-source"
	VolumeCredentials = "ampbridge-credentials"
	VolumeToken       = "ampbridge-token"
	VolumeNoAPIToken  = "ampbridge-no-api-token"
	// VolumeAWSConfig is for mode identity alone.
	VolumeAWSConfig = "ampbridge-aws-config"
)

// The sidecar's program in the image, and the arguments with which its probes call it.
const (
	Program = "/config-sidecar"
	// ReadyArgument: exit with 0 once a configuration is served.
	ReadyArgument = "ready"
	// AliveArgument: exit with 1 if the running sidecar hangs.
	AliveArgument = "alive"
)

// Environment variables of the sidecar's container.
const (
	// Variable holds the config, encoded by [Config.Encode].
	Variable = "AMPBRIDGE_SIDECAR_CONFIG"
	// PodNameVariable and PodNamespaceVariable come from the downward API:
	// pods have no name at admission.
	PodNameVariable      = "AMPBRIDGE_POD_NAME"
	PodNamespaceVariable = "AMPBRIDGE_POD_NAMESPACE"
)

// Environment variables of containers with mode relay.
const (
	WriteURLVariable          = "AMPBRIDGE_REMOTE_WRITE_URL"
	WriteUserVariable         = "AMPBRIDGE_REMOTE_WRITE_USERNAME"
	WritePasswordFileVariable = "AMPBRIDGE_REMOTE_WRITE_PASSWORD_FILE"
)

// Where the sidecar's volumes are mounted. Source and target are fixed, so that a
// sidecar that cannot read its config still mirrors.
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
	// StatusFile holds a [Status], and HeartbeatFile is as old as the sidecar's last
	// sign of life. Both lie beside the credentials file.
	StatusFile    = "status.json"
	HeartbeatFile = "heartbeat"
	// TokenFile is the projected service-account token, in [TokenDir].
	TokenFile = "token"
	// RelayPasswordFile has the relay's password, in [CredentialsDir].
	RelayPasswordFile = "relay-password"
	// AWSConfigFile is the AWS configuration of mode identity, in [AWSConfigDir].
	AWSConfigFile = "config"
)

// CAFile returns the path of the file of roots by which Prometheus trusts the way to a
// destination's workspace. The sidecar writes it.
func CAFile(destination string) string { return CredentialsDir + "/" + destination + ".ca.pem" }

// Values of [Config.MetricsPort].
const (
	DefaultMetricsPort int32 = 9095
	// NoMetrics: no port is free, or the pod is on the host's network.
	NoMetrics int32 = -1
)

// Paths that the sidecar serves at the metrics port.
const (
	MetricsPath = "/metrics"
	// StatusPath gives a [Status] as JSON.
	StatusPath = "/status"
	// QueuesPath gives Prometheus's own metrics of the blocks of the pod, which the sidecar
	// reads in the pod's network.
	QueuesPath = "/prometheus/metrics"
)

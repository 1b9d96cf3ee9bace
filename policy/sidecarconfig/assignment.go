// Package sidecarconfig is what the webhook tells one config sidecar to do. It
// travels in the pod, as JSON in an environment variable, because the sidecar
// may not call the Kubernetes API; the policy file stays with the admin.
//
// A pod keeps its sidecar until it is rolled, so the two sides may differ in
// version. Fields are only ever added, and a sidecar ignores those it does not
// know: a webhook of this version serves every sidecar of [Version] 1.
package sidecarconfig

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// Version of the format.
const Version = 1

// Environment variables of the sidecar's container.
const (
	// Variable holds the assignment, encoded by [Config.Encode].
	Variable = "AMPBRIDGE_ASSIGNMENT"
	// PodNameVariable and PodNamespaceVariable come from the downward API:
	// pods have no name at admission.
	PodNameVariable      = "AMPBRIDGE_POD_NAME"
	PodNamespaceVariable = "AMPBRIDGE_POD_NAMESPACE"
)

// The places of the sidecar's own volumes. Source and target are fixed, so that
// a sidecar that cannot read its assignment still mirrors.
const (
	SourceDir      = "/var/run/ampbridge.io/source"
	TargetDir      = "/var/run/ampbridge.io/config"
	CredentialsDir = "/var/run/secrets/ampbridge.io/credentials"
	TokenDir       = "/var/run/secrets/ampbridge.io/token"
)

// Config is one sidecar's work. It holds no secrets.
type Config struct {
	Version int    `json:"version"`
	Cluster string `json:"cluster"`
	// Source is the directory where the kubelet puts the user's files; Target
	// the one that Prometheus, or its reloader, sees in its stead.
	Source string `json:"source"`
	Target string `json:"target"`
	// File is the one configuration file, relative to Source; gzipped where its
	// name ends in .gz.
	File string `json:"file"`
	// Credentials is the file of AWS profiles that Prometheus reads.
	Credentials string `json:"credentials"`
	// Private: the sidecar runs as Prometheus's user, so the credentials file
	// can have mode 0600. Otherwise it is 0644, in a volume that only the two
	// containers mount.
	Private bool `json:"private,omitempty"`
	// Token is the file of the projected service-account token.
	Token string `json:"token"`
	// SessionSeconds is what is asked of STS.
	SessionSeconds int           `json:"sessionSeconds"`
	STS            STS           `json:"sts"`
	Destinations   []Destination `json:"destinations"`
	// Reload is [StartOnly] where nothing makes Prometheus read its
	// configuration again; empty where something does.
	Reload string `json:"reload,omitempty"`
	// Prometheus is where it listens; zero where the pod does not say.
	Prometheus Prometheus `json:"prometheus,omitzero"`
	// MountPoints are the places in Target where other volumes are mounted. The
	// kubelet makes them in the volumes that it fills, so the sidecar does here.
	MountPoints []MountPoint `json:"mountPoints,omitempty"`
	// MetricsPort is where to serve metrics: a port that no container of the pod
	// takes, or [NoMetrics]. 0, as older webhooks leave it: [DefaultMetricsPort].
	MetricsPort int32 `json:"metricsPort,omitempty"`
}

// Values of [Config.MetricsPort].
const (
	DefaultMetricsPort int32 = 9095
	// NoMetrics: no port is free, or the pod is on the host's network.
	NoMetrics int32 = -1
)

// StartOnly is the [Config.Reload] of pods whose Prometheus reads its
// configuration when it starts, and never again. No session could be handed
// over to it later, so its profile holds the role and the token's file, and
// its SDK gets the sessions: the block is served only while STS provably
// answers, because Prometheus asks it when it starts.
const StartOnly = "start-only"

// Prometheus is how to talk to the pod's Prometheus, without credentials.
type Prometheus struct {
	// Address is host and port, as seen from the pod.
	Address string `json:"address"`
	// Prefix is that of its paths, without a slash at the end.
	Prefix string `json:"prefix,omitempty"`
	// TLS: it has a web configuration file, which may ask for TLS; the pod does
	// not show what is in it.
	TLS bool `json:"tls,omitempty"`
}

// MountPoint is a directory, or a file, at the top of Target.
type MountPoint struct {
	Name string `json:"name"`
	File bool   `json:"file,omitempty"`
}

// STS is policy.STS.
type STS struct {
	Endpoint string `json:"endpoint,omitempty"`
	ProxyURL string `json:"proxyURL,omitempty"`
	CABundle string `json:"caBundle,omitempty"`
}

// Destination is a workspace, the way to a session for it, and its block.
type Destination struct {
	Name       string `json:"name"`
	Role       string `json:"role"`
	AssumeRole string `json:"assumeRole,omitempty"`
	Region     string `json:"region"`
	// Block is complete but for the replica's labels.
	Block policy.Block `json:"block"`
	// Replica asks for [policy.Block.WithReplica] with the pod's name.
	Replica bool `json:"replica,omitempty"`
}

// New is the assignment that follows from a policy and what it entitles a pod
// to; the caller adds the files' places.
func New(p *policy.Policy, e policy.Entitlement) Config {
	a := Config{
		Version: Version, Cluster: p.Cluster.Name,
		SessionSeconds: int(time.Duration(p.Session.Duration) / time.Second),
		STS:            STS(p.STS),
	}
	for _, d := range e.Destinations {
		label := p.Cluster.Name
		if e.HA != "" {
			label = e.HA
		}
		a.Destinations = append(a.Destinations, Destination{
			Name: d.Name, Role: p.RoleFor(d, e.Subject).String(), AssumeRole: d.AssumeRole.String(), Region: d.Workspace.Region,
			Block: d.Block(label), Replica: e.HA != "",
		})
	}
	return a
}

// For is the destination's block as a pod of this name gets it.
func (d Destination) For(pod string) policy.Block {
	if d.Replica {
		return d.Block.WithReplica(pod)
	}
	return d.Block
}

// Encode writes the assignment as JSON. The kubelet expands $(NAME) and $$ in
// the values of environment variables: whoever puts the text into a pod doubles
// every $ in it.
func (a Config) Encode() string {
	text, err := json.Marshal(a)
	if err != nil {
		panic(err) // strings, numbers and slices of them always encode
	}
	return string(text)
}

// Decode reads what [Config.Encode] wrote, of this or a later minor form.
func Decode(text string) (Config, error) {
	var a Config
	if err := json.Unmarshal([]byte(text), &a); err != nil {
		return a, fmt.Errorf("%s: %w", Variable, err)
	}
	if a.Version != Version {
		return a, fmt.Errorf("%s: version %d: this sidecar reads version %d", Variable, a.Version, Version)
	}
	for _, f := range []struct{ name, value string }{
		{"source", a.Source}, {"target", a.Target}, {"file", a.File}, {"credentials", a.Credentials}, {"token", a.Token},
	} {
		if f.value == "" {
			return a, fmt.Errorf("%s: %s is missing", Variable, f.name)
		}
	}
	return a, nil
}

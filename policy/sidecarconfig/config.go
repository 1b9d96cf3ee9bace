// Package sidecarconfig is the contract between the webhook and the config
// sidecar: what the webhook tells a sidecar ([Config]), what the sidecar says of
// itself ([Status]), and the names, paths and ports that both know (names.go).
//
// The config travels in the pod, as JSON in an environment variable, because the
// sidecar may not call the Kubernetes API; the policy file stays with the admin.
// The status is served at [StatusPath] of the metrics port.
//
// A pod keeps its sidecar until it is rolled, so the two sides may differ in
// version. Fields are only ever added, and a reader ignores fields that it does
// not know. What a sidecar must not ignore needs a new version: of a version that
// it does not know it mirrors the user's configuration as it is.
package sidecarconfig

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// Versions of the format of [Config]. A sidecar of the first version knows no relay,
// and would give a block with sigv4 to a Prometheus that must not have one; so a
// config with [policy.DeliveryRelay] in it has the second.
// One of the second mirrors a configuration, and one with [policy.ModeRelay], which has
// the third, has none.
const (
	VersionSigV4  = 1
	VersionRelay  = 2
	VersionWriter = 3
)

// Config is what one sidecar is told. It holds no secrets.
type Config struct {
	Version int    `json:"version"`
	Cluster string `json:"cluster"`
	// Source is the directory where the kubelet puts the user's files. Target is the
	// directory that Prometheus, or its reloader, sees instead.
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
	// SessionSeconds is how long a session of STS lasts.
	SessionSeconds int           `json:"sessionSeconds"`
	STS            STS           `json:"sts"`
	Destinations   []Destination `json:"destinations"`
	// Reload is [StartOnly] in configs of earlier webhooks, for a Prometheus that
	// never reads its configuration again: see [Config.DeliveryOf].
	Reload string `json:"reload,omitempty"`
	// Prometheus is where it listens; zero where the pod does not say.
	Prometheus Prometheus `json:"prometheus,omitzero"`
	// MountPoints are the places in Target where other volumes are mounted. The
	// kubelet makes them in the volumes that it fills, so the sidecar does here.
	MountPoints []MountPoint `json:"mountPoints,omitempty"`
	// MetricsPort is where to serve metrics and status: a port that no container of
	// the pod takes, or [NoMetrics]. 0 means [DefaultMetricsPort].
	MetricsPort int32 `json:"metricsPort,omitempty"`
	// RelayPort is the relay's with [VersionWriter]: the program that writes to it knows
	// the port from a variable. 0: the sidecar takes a free one.
	RelayPort int32 `json:"relayPort,omitempty"`
}

// ForWriter reports whether the sidecar serves no configuration, and relays only: what
// writes to it is no Prometheus.
func (c Config) ForWriter() bool { return c.Version == VersionWriter }

// StartOnly is the [Config.Reload] of earlier webhooks for pods whose Prometheus
// reads its configuration when it starts, and never again.
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
	// Version is Prometheus's, such as 3.15, as far as the pod says; empty: not known.
	Version string `json:"version,omitempty"`
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

// Destination is a workspace, how to get a session for it, and its block.
type Destination struct {
	Name       string `json:"name"`
	Role       string `json:"role"`
	AssumeRole string `json:"assumeRole,omitempty"`
	Region     string `json:"region"`
	// Delivery is [policy.DeliverySigV4] or [policy.DeliveryRelay]; empty, in configs
	// of version 1: see [Config.DeliveryOf].
	Delivery policy.Delivery `json:"delivery,omitempty"`
	// Block is complete but for the replica's labels. It is the one for sigv4; the
	// sidecar makes the relay's from it ([policy.Block.ByRelay]).
	Block policy.Block `json:"block"`
	// STS replaces [Config.STS] for this destination; nil: it does not.
	STS *STS `json:"sts,omitempty"`
	// ExternalID is shown when AssumeRole is assumed; empty: none.
	ExternalID string `json:"externalID,omitempty"`
	// AMP is how the relay reaches the workspace.
	AMP AMP `json:"amp,omitzero"`
	// Replica asks for [policy.Block.WithReplica] with the pod's name.
	Replica bool `json:"replica,omitempty"`
}

// AMP is how the relay reaches a workspace. With sigv4 the same stands in the block, and
// here too, because a pod may move to the relay.
type AMP struct {
	// ProxyURL is the proxy's; with ProxyFromEnvironment the sidecar's variables
	// HTTPS_PROXY and NO_PROXY name it. At most one of the two is set.
	ProxyURL             string `json:"proxyURL,omitempty"`
	ProxyFromEnvironment bool   `json:"proxyFromEnvironment,omitempty"`
	// CABundle is PEM text, added to the system's roots. Where the block for sigv4 has
	// a CA file, the sidecar writes the two into it.
	CABundle string `json:"caBundle,omitempty"`
	// DropOn429: AMP's answer 429 passes, and Prometheus drops those samples.
	DropOn429 bool `json:"dropOn429,omitempty"`
}

// DeliveryOf returns the delivery of a destination: sigv4 or relay. Webhooks of version
// 1 knew sigv4 alone, and had a Prometheus that nothing reloads call STS itself; now
// it gets the relay.
func (c Config) DeliveryOf(d Destination) policy.Delivery {
	if d.Delivery == policy.DeliveryRelay || c.Reload == StartOnly {
		return policy.DeliveryRelay
	}
	return policy.DeliverySigV4
}

// New returns the config that follows from a policy and what it entitles a pod
// to; the caller adds the files' places. The delivery of each destination of e is
// decided: it is not [policy.DeliveryAuto].
func New(p *policy.Policy, e policy.Entitlement) Config {
	c := Config{
		Version: VersionSigV4, Cluster: p.Cluster.Name,
		SessionSeconds: int(time.Duration(p.Session.Duration) / time.Second),
		STS:            STS(p.STS),
	}
	for _, d := range e.Destinations {
		if e.Mode == policy.ModeRelay {
			d.Delivery = policy.DeliveryRelay
		}
		if d.Delivery == policy.DeliveryRelay {
			c.Version = VersionRelay
		}
		block := d.Block(p.Cluster.Name)
		if e.HA != "" {
			block = d.GroupBlock(e.HA)
		}
		configured := Destination{
			Name: d.Name, Role: p.RoleFor(d, e.Subject).String(), AssumeRole: d.AssumeRole.String(), Region: d.Workspace.Region,
			ExternalID: d.ExternalID,
			Delivery:   d.Delivery, Block: block, Replica: e.HA != "",
			AMP: AMP{
				ProxyURL: d.RemoteWrite.ProxyURL, ProxyFromEnvironment: d.RemoteWrite.ProxyFromEnvironment,
				CABundle: d.RemoteWrite.CABundle, DropOn429: d.RemoteWrite.DropsOn429(),
			},
		}
		if own := p.STSFor(d); own != p.STS {
			configured.STS = (*STS)(&own)
		}
		if d.RemoteWrite.CABundle != "" {
			configured.Block.TLS = &policy.BlockTLS{CAFile: CAFile(d.Name)}
		}
		c.Destinations = append(c.Destinations, configured)
	}
	if e.Mode == policy.ModeRelay {
		c.Version = VersionWriter
	}
	return c
}

// For returns the destination's block for a pod of this name.
func (d Destination) For(pod string) policy.Block {
	if d.Replica {
		return d.Block.WithReplica(pod)
	}
	return d.Block
}

// Encode returns the config as JSON. The kubelet expands $(NAME) and $$ in the values
// of environment variables: so every $ of the text is doubled in the pod.
func (c Config) Encode() string {
	text, err := json.Marshal(c)
	if err != nil {
		panic(err) // strings, numbers and slices of them always encode
	}
	return string(text)
}

// Decode reads what [Config.Encode] wrote. It ignores fields that it does not know.
func Decode(text string) (Config, error) {
	var c Config
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return c, fmt.Errorf("%s: %w", Variable, err)
	}
	if c.Version < VersionSigV4 || c.Version > VersionWriter {
		return c, fmt.Errorf("%s: version %d: this sidecar reads versions %d to %d", Variable, c.Version, VersionSigV4, VersionWriter)
	}
	for _, f := range []struct {
		name, value string
		optional    bool
	}{
		{"source", c.Source, c.ForWriter()}, {"target", c.Target, c.ForWriter()}, {"file", c.File, c.ForWriter()},
		{"credentials", c.Credentials, false}, {"token", c.Token, false},
	} {
		if f.value == "" && !f.optional {
			return c, fmt.Errorf("%s: %s is missing", Variable, f.name)
		}
	}
	if c.ForWriter() && (c.RelayPort < 1 || c.RelayPort > 65535) {
		return c, fmt.Errorf("%s: relayPort is %d: it must be a port", Variable, c.RelayPort)
	}
	return c, nil
}

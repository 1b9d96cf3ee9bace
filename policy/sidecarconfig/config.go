// Package sidecarconfig is the contract between the webhook and the config
// sidecar: the config that the webhook gives to a sidecar ([Config]), the status that the sidecar
// reports ([Status]), and the names, paths and ports that both know (names.go).
//
// The config is in the pod, as JSON in an environment variable, because the
// sidecar may not call the Kubernetes API, and pods should not see the whole policy file.
// The status is served at [StatusPath] of the metrics port.
//
// A pod keeps its sidecar until it is rolled, so the two sides may differ in
// version. Fields are only ever added, and a reader ignores fields that it does
// not know. A field that a sidecar must not ignore needs a new version. If a sidecar does not
// know the version, it mirrors the user's configuration unchanged.
package sidecarconfig

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// Versions of the format of [Config]. A sidecar of the first version has no relay. It would write
// a block with sigv4 for every Prometheus, so a config with [policy.DeliveryRelay] has the second
// version. A sidecar of the second version always mirrors a configuration. With [policy.ModeRelay]
// there is none, so such a config has the third version.
const (
	VersionSigV4  = 1
	VersionRelay  = 2
	VersionWriter = 3
)

// Config is what the webhook tells one sidecar. It holds no secrets.
type Config struct {
	Version int    `json:"version"`
	Cluster string `json:"cluster"`
	// Source is the directory with the user's files, which the kubelet fills. Target is the
	// directory that Prometheus or its reloader reads instead.
	Source string `json:"source"`
	Target string `json:"target"`
	// File is the configuration file, relative to Source. It is gzipped if its
	// name ends in .gz.
	File string `json:"file"`
	// Credentials is the file of AWS profiles that Prometheus reads.
	Credentials string `json:"credentials"`
	// Private is true if the sidecar runs as Prometheus's user, so that the credentials file
	// can have mode 0600. Otherwise it has 0644, in a volume that only the two
	// containers mount.
	Private bool `json:"private,omitempty"`
	// Token is the file of the projected service-account token.
	Token string `json:"token"`
	// SessionSeconds is the duration of an STS session.
	SessionSeconds int           `json:"sessionSeconds"`
	STS            STS           `json:"sts"`
	Destinations   []Destination `json:"destinations"`
	// Reload is [StartOnly] in configs of earlier webhooks, for a Prometheus that
	// never reads its configuration again: see [Config.DeliveryOf].
	Reload string `json:"reload,omitempty"`
	// Prometheus is how to reach the pod's Prometheus; zero if the pod does not show it.
	Prometheus Prometheus `json:"prometheus,omitzero"`
	// MountPoints are the places in Target where other volumes are mounted. The
	// kubelet creates them in the volumes that it fills, so the sidecar creates them here.
	MountPoints []MountPoint `json:"mountPoints,omitempty"`
	// MetricsPort is the port for metrics and status: a port that no container of
	// the pod uses, or [NoMetrics]. 0 means [DefaultMetricsPort].
	MetricsPort int32 `json:"metricsPort,omitempty"`
	// RelayPort is the relay's port with [VersionWriter]. The writing program reads it from a
	// variable. 0 means that the sidecar takes a free port.
	RelayPort int32 `json:"relayPort,omitempty"`
}

// ForWriter reports whether the sidecar only relays and serves no configuration, because the
// writing program is not Prometheus.
func (c Config) ForWriter() bool { return c.Version == VersionWriter }

// StartOnly is the [Config.Reload] of earlier webhooks for pods with a Prometheus that
// reads its configuration only when it starts.
const StartOnly = "start-only"

// Prometheus is how to reach the pod's Prometheus, without credentials.
type Prometheus struct {
	// Address is host and port, as seen from the pod.
	Address string `json:"address"`
	// Prefix is the prefix of Prometheus's paths, without a slash at the end.
	Prefix string `json:"prefix,omitempty"`
	// TLS is true if Prometheus has a web configuration file. The file may require TLS, but the pod
	// does not show its content.
	TLS bool `json:"tls,omitempty"`
	// Version is Prometheus's version, such as 3.15, if the pod shows it; empty if it does not.
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

// Destination is a workspace, with its block and what is needed to get a session for it.
type Destination struct {
	Name       string `json:"name"`
	Role       string `json:"role"`
	AssumeRole string `json:"assumeRole,omitempty"`
	Region     string `json:"region"`
	// Delivery is [policy.DeliverySigV4] or [policy.DeliveryRelay]. In configs
	// of version 1 it is empty: see [Config.DeliveryOf].
	Delivery policy.Delivery `json:"delivery,omitempty"`
	// Block is the block for sigv4, complete except for the replica's labels. The sidecar makes
	// the relay's block from it ([policy.Block.ByRelay]).
	Block policy.Block `json:"block"`
	// STS replaces [Config.STS] for this destination; nil if it does not.
	STS *STS `json:"sts,omitempty"`
	// ExternalID is sent when AssumeRole is assumed; empty if there is none.
	ExternalID string `json:"externalID,omitempty"`
	// AMP is how the relay reaches the workspace.
	AMP AMP `json:"amp,omitzero"`
	// Replica asks for [policy.Block.WithReplica] with the pod's name.
	Replica bool `json:"replica,omitempty"`
}

// AMP is how the relay reaches a workspace. With sigv4 the block has the same settings. They are
// repeated here because a pod may move to the relay.
type AMP struct {
	// ProxyURL is the proxy. With ProxyFromEnvironment the sidecar's variables
	// HTTPS_PROXY and NO_PROXY name it. At most one of the two fields is set.
	ProxyURL             string `json:"proxyURL,omitempty"`
	ProxyFromEnvironment bool   `json:"proxyFromEnvironment,omitempty"`
	// CABundle is PEM text with roots that are added to the system's. If the block for sigv4 has
	// a CA file, the sidecar writes both into it.
	CABundle string `json:"caBundle,omitempty"`
	// DropOn429 passes AMP's answer 429 on, so that Prometheus drops those samples.
	DropOn429 bool `json:"dropOn429,omitempty"`
}

// DeliveryOf returns the delivery of a destination: sigv4 or relay. Webhooks of version
// 1 had only sigv4, and let a Prometheus without a reload call STS itself. Such a Prometheus
// now gets the relay.
func (c Config) DeliveryOf(d Destination) policy.Delivery {
	if d.Delivery == policy.DeliveryRelay || c.Reload == StartOnly {
		return policy.DeliveryRelay
	}
	return policy.DeliverySigV4
}

// New returns the config for a policy and an entitlement. The caller adds the places of files. The
// caller has decided each destination's delivery before, so none is [policy.DeliveryAuto].
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

// For returns the destination's block for the pod with this name.
func (d Destination) For(pod string) policy.Block {
	if d.Replica {
		return d.Block.WithReplica(pod)
	}
	return d.Block
}

// Encode returns the config as JSON. The kubelet expands $(NAME) and $$ in the values
// of environment variables, so every $ of the text is doubled in the pod.
func (c Config) Encode() string {
	text, err := json.Marshal(c)
	if err != nil {
		panic(err) // cannot happen: strings, numbers and slices of them always encode
	}
	return string(text)
}

// Decode reads a text that [Config.Encode] returned. It ignores fields that it does not know.
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

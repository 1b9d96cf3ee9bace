package policy

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Block is one entry of Prometheus's remote_write. Prometheus refuses to load a configuration
// with a field that it does not know. So [Block.For] removes the fields that the running version
// does not know, before a block is written.
type Block struct {
	URL string `yaml:"url" json:"url"`
	// Name is the remote_write name; empty for a Prometheus without names, see [Block.For].
	Name string `yaml:"name,omitempty" json:"name,omitempty"`
	// ID is the name that [Block.For] removed; empty if the block still has its Name.
	ID string `yaml:"-" json:"-"`

	RemoteTimeout        string         `yaml:"remote_timeout,omitempty" json:"remote_timeout,omitempty"`
	SendExemplars        bool           `yaml:"send_exemplars,omitempty" json:"send_exemplars,omitempty"`
	SendNativeHistograms bool           `yaml:"send_native_histograms,omitempty" json:"send_native_histograms,omitempty"`
	WriteRelabelConfigs  []BlockRelabel `yaml:"write_relabel_configs,omitempty" json:"write_relabel_configs,omitempty"`
	// The proxy and TLS settings for the connection to AMP. A block for the relay has none of them.
	// The caller sets TLS if the policy has a CA bundle, because only the caller knows the file's path.
	ProxyURL             string    `yaml:"proxy_url,omitempty" json:"proxy_url,omitempty"`
	ProxyFromEnvironment bool      `yaml:"proxy_from_environment,omitempty" json:"proxy_from_environment,omitempty"`
	TLS                  *BlockTLS `yaml:"tls_config,omitempty" json:"tls_config,omitempty"`
	// SigV4 makes Prometheus sign. BasicAuth is for the relay, which signs itself. Exactly one
	// of the two is set.
	SigV4       *BlockSigV4     `yaml:"sigv4,omitempty" json:"sigv4,omitempty"`
	BasicAuth   *BlockBasicAuth `yaml:"basic_auth,omitempty" json:"basicAuth,omitempty"`
	QueueConfig BlockQueue      `yaml:"queue_config" json:"queue_config"`
	// Metadata configures sending metadata; nil means Prometheus's default, which is to send it.
	Metadata *BlockMetadata `yaml:"metadata_config,omitempty" json:"metadata_config,omitempty"`
}

// BlockTLS is tls_config.
type BlockTLS struct {
	// CAFile holds all roots that Prometheus trusts for this block, including the system's.
	CAFile string `yaml:"ca_file" json:"ca_file"`
}

// BlockMetadata is metadata_config.
type BlockMetadata struct {
	Send bool `yaml:"send" json:"send"`
}

// BlockSigV4 never has a role: with role_arn Prometheus would call STS itself.
type BlockSigV4 struct {
	// Region is always set: without it, older signers sign for an empty region.
	Region string `yaml:"region" json:"region"`
	// Profile is the section of the credentials file that the sidecar writes.
	// If empty, Prometheus uses the identity of its own container.
	Profile string `yaml:"profile,omitempty" json:"profile,omitempty"`
}

// BlockBasicAuth is how Prometheus authenticates to the relay of its own pod.
type BlockBasicAuth struct {
	Username     string `yaml:"username" json:"username"`
	PasswordFile string `yaml:"password_file" json:"passwordFile"`
}

// BlockQueue is queue_config.
type BlockQueue struct {
	Capacity          int    `yaml:"capacity,omitempty" json:"capacity,omitempty"`
	MaxShards         int    `yaml:"max_shards,omitempty" json:"max_shards,omitempty"`
	MinShards         int    `yaml:"min_shards,omitempty" json:"min_shards,omitempty"`
	MaxSamplesPerSend int    `yaml:"max_samples_per_send,omitempty" json:"max_samples_per_send,omitempty"`
	BatchSendDeadline string `yaml:"batch_send_deadline,omitempty" json:"batch_send_deadline,omitempty"`
	MinBackoff        string `yaml:"min_backoff,omitempty" json:"min_backoff,omitempty"`
	MaxBackoff        string `yaml:"max_backoff,omitempty" json:"max_backoff,omitempty"`
	// RetryOnRateLimit makes Prometheus retry after a 429. AMP answers 429 above a workspace's rate
	// limit, and without a retry those samples are dropped.
	RetryOnRateLimit bool   `yaml:"retry_on_http_429,omitempty" json:"retry_on_http_429,omitempty"`
	SampleAgeLimit   string `yaml:"sample_age_limit,omitempty" json:"sample_age_limit,omitempty"`
}

// BlockRelabel is one of write_relabel_configs. The fields are pointers because an empty value
// and an absent one differ for Prometheus.
type BlockRelabel struct {
	SourceLabels []string `yaml:"source_labels,omitempty,flow" json:"source_labels,omitempty"`
	Separator    *string  `yaml:"separator,omitempty" json:"separator,omitempty"`
	Regex        *string  `yaml:"regex,omitempty" json:"regex,omitempty"`
	Modulus      int      `yaml:"modulus,omitempty" json:"modulus,omitempty"`
	TargetLabel  string   `yaml:"target_label,omitempty" json:"target_label,omitempty"`
	Replacement  *string  `yaml:"replacement,omitempty" json:"replacement,omitempty"`
	Action       string   `yaml:"action,omitempty" json:"action,omitempty"`
}

// The values that AWS recommends for AMP
// (https://docs.aws.amazon.com/prometheus/latest/userguide/AMP-onboard-ingest-metrics-remote-write-EKS.html).
const (
	recommendedCapacity          = 2500
	recommendedMaxShards         = 200
	recommendedMaxSamplesPerSend = 1000
)

// BlockName returns a destination's remote_write name, which is also its AWS profile.
func BlockName(destination string) string { return "ampbridge-" + destination }

// URL returns the URL that Prometheus writes to.
func (d Destination) URL() string {
	base := strings.TrimSuffix(d.Endpoint, "/")
	if base == "" {
		base = "https://" + d.Workspace.Host()
	}
	return base + "/workspaces/" + d.Workspace.ID() + "/api/v1/remote_write"
}

// Block returns the remote_write entry for d. A series without a label cluster gets the value
// of cluster. A label that exists is kept: to overwrite it would merge series that differ only in it.
func (d Destination) Block(cluster string) Block {
	none := ""
	return d.block(BlockRelabel{SourceLabels: []string{"cluster"}, Regex: &none, TargetLabel: "cluster", Replacement: &cluster})
}

// GroupBlock returns [Destination.Block] for a pod in a group of replicas. Every series gets the
// group as its label cluster, because AMP elects one replica per value of that label. A series with
// another value would take part in the election of another group.
func (d Destination) GroupBlock(group string) Block {
	return d.block(BlockRelabel{TargetLabel: "cluster", Replacement: &group})
}

func (d Destination) block(cluster BlockRelabel) Block {
	q := d.RemoteWrite.QueueConfig
	b := Block{
		URL:                  d.URL(),
		Name:                 BlockName(d.Name),
		RemoteTimeout:        d.RemoteWrite.RemoteTimeout.prometheus(),
		SendExemplars:        d.RemoteWrite.SendExemplars,
		SendNativeHistograms: d.RemoteWrite.SendNativeHistograms,
		ProxyURL:             d.RemoteWrite.ProxyURL,
		ProxyFromEnvironment: d.RemoteWrite.ProxyFromEnvironment,
		SigV4:                &BlockSigV4{Region: d.Workspace.Region, Profile: BlockName(d.Name)},
		QueueConfig: BlockQueue{
			Capacity:          q.Capacity,
			MaxShards:         q.MaxShards,
			MinShards:         q.MinShards,
			MaxSamplesPerSend: q.MaxSamplesPerSend,
			BatchSendDeadline: q.BatchSendDeadline.prometheus(),
			MinBackoff:        q.MinBackoff.prometheus(),
			MaxBackoff:        q.MaxBackoff.prometheus(),
			RetryOnRateLimit:  !d.RemoteWrite.DropsOn429(),
			SampleAgeLimit:    q.SampleAgeLimit.prometheus(),
		},
	}
	if !isTrue(d.RemoteWrite.Metadata.Send) {
		b.Metadata = &BlockMetadata{Send: false}
	}
	setDefault(&b.QueueConfig.Capacity, recommendedCapacity)
	setDefault(&b.QueueConfig.MaxShards, max(recommendedMaxShards, q.MinShards))
	setDefault(&b.QueueConfig.MaxSamplesPerSend, recommendedMaxSamplesPerSend)
	for _, r := range d.RemoteWrite.WriteRelabelConfigs {
		b.WriteRelabelConfigs = append(b.WriteRelabelConfigs, BlockRelabel(r))
	}
	// These rules come last, so that an admin's labelkeep cannot remove our labels.
	b.WriteRelabelConfigs = append(b.WriteRelabelConfigs, cluster)
	return b
}

// RelayUser is the user name of the relay's basic authentication.
const RelayUser = "ampbridge"

// RelayPath returns the path of the relay that Prometheus writes to. It ends like the workspace's
// own URL, so that people and [promconfig] see which workspace it is.
func (b Block) RelayPath() string {
	_, path, _ := strings.Cut(strings.TrimPrefix(b.URL, "https://"), "/")
	if rest, found := strings.CutPrefix(b.URL, "http://"); found {
		_, path, _ = strings.Cut(rest, "/")
	}
	return "/" + b.Name + "/" + path
}

// ByRelay returns the block for a relay at that address (host and port); the relay signs instead
// of Prometheus. The block has no field that can fail to load or that changes with a session. The
// relay itself has the proxy and the CA for AMP, and handles AMP's 429. The block has its own name,
// because both blocks of a destination can exist together for a while, and a block that changes its
// name loses its backlog. The name contains a dot, which no destination's name has.
func (b Block) ByRelay(address, passwordFile string) Block {
	b.URL, b.SigV4 = "http://"+address+b.RelayPath(), nil
	b.Name += ".relay"
	b.BasicAuth = &BlockBasicAuth{Username: RelayUser, PasswordFile: passwordFile}
	b.ProxyURL, b.ProxyFromEnvironment, b.TLS = "", false, nil
	b.QueueConfig.RetryOnRateLimit = false
	return b
}

// WithReplica adds the labels by which AMP elects one replica of an HA pair. Use it only for
// declared groups: if shards had the same cluster label and different __replica__ labels, AMP
// would keep the samples of one shard alone.
func (b Block) WithReplica(pod string) Block {
	operators := "prometheus_replica"
	b.WriteRelabelConfigs = append(slices.Clip(b.WriteRelabelConfigs),
		BlockRelabel{TargetLabel: "__replica__", Replacement: &pod},
		BlockRelabel{Regex: &operators, Action: "labeldrop"},
	)
	return b
}

// prometheus returns d as every Prometheus version parses it: a number and one unit. Versions
// before 2.21 do not parse 1m30s, and no version parses fractions. The smallest unit is ms.
func (d Duration) prometheus() string {
	milliseconds := time.Duration(d).Milliseconds()
	if milliseconds == 0 {
		return ""
	}
	for _, u := range []struct {
		unit int64
		name string
	}{{time.Hour.Milliseconds(), "h"}, {time.Minute.Milliseconds(), "m"}, {time.Second.Milliseconds(), "s"}} {
		if milliseconds%u.unit == 0 {
			return strconv.FormatInt(milliseconds/u.unit, 10) + u.name
		}
	}
	return strconv.FormatInt(milliseconds, 10) + "ms"
}

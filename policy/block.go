package policy

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Block is one entry of Prometheus's remote_write. Prometheus parses strictly,
// and a field that it does not know would keep it down: before a block is
// written, [Block.For] takes out what the running version does not know.
type Block struct {
	URL string `yaml:"url" json:"url"`
	// Name is empty for a Prometheus that does not know names: see [Block.For].
	Name string `yaml:"name,omitempty" json:"name,omitempty"`
	// ID is the name that was taken out; empty: it is the Name.
	ID string `yaml:"-" json:"-"`

	RemoteTimeout        string         `yaml:"remote_timeout,omitempty" json:"remote_timeout,omitempty"`
	SendExemplars        bool           `yaml:"send_exemplars,omitempty" json:"send_exemplars,omitempty"`
	SendNativeHistograms bool           `yaml:"send_native_histograms,omitempty" json:"send_native_histograms,omitempty"`
	WriteRelabelConfigs  []BlockRelabel `yaml:"write_relabel_configs,omitempty" json:"write_relabel_configs,omitempty"`
	// How Prometheus reaches AMP; nothing of it is in a block for the relay. TLS is set
	// where the policy has a CA bundle, by those who know the file's path.
	ProxyURL             string    `yaml:"proxy_url,omitempty" json:"proxy_url,omitempty"`
	ProxyFromEnvironment bool      `yaml:"proxy_from_environment,omitempty" json:"proxy_from_environment,omitempty"`
	TLS                  *BlockTLS `yaml:"tls_config,omitempty" json:"tls_config,omitempty"`
	// SigV4 makes Prometheus sign; BasicAuth is for the relay, which signs itself. One of
	// the two is set.
	SigV4       *BlockSigV4     `yaml:"sigv4,omitempty" json:"sigv4,omitempty"`
	BasicAuth   *BlockBasicAuth `yaml:"basic_auth,omitempty" json:"basicAuth,omitempty"`
	QueueConfig BlockQueue      `yaml:"queue_config" json:"queue_config"`
	// Metadata is nil for Prometheus's default, which is to send it.
	Metadata *BlockMetadata `yaml:"metadata_config,omitempty" json:"metadata_config,omitempty"`
}

// BlockTLS is tls_config.
type BlockTLS struct {
	// CAFile has all roots that Prometheus trusts for this block, the system's too.
	CAFile string `yaml:"ca_file" json:"ca_file"`
}

// BlockMetadata is metadata_config.
type BlockMetadata struct {
	Send bool `yaml:"send" json:"send"`
}

// BlockSigV4 never holds a role: with role_arn Prometheus would ask STS itself.
type BlockSigV4 struct {
	// Region is always set: older signers sign with an empty one otherwise.
	Region string `yaml:"region" json:"region"`
	// Profile is the section of the credentials file that the sidecar writes.
	// Empty: Prometheus takes the identity of its own container.
	Profile string `yaml:"profile,omitempty" json:"profile,omitempty"`
}

// BlockBasicAuth is how Prometheus shows the relay that it is the pod's own.
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
	// RetryOnRateLimit: AMP answers 429 above a workspace's rate; without it
	// those samples are dropped.
	RetryOnRateLimit bool   `yaml:"retry_on_http_429,omitempty" json:"retry_on_http_429,omitempty"`
	SampleAgeLimit   string `yaml:"sample_age_limit,omitempty" json:"sample_age_limit,omitempty"`
}

// BlockRelabel is one of write_relabel_configs. Pointers tell "empty" from
// "not given", which differ to Prometheus.
type BlockRelabel struct {
	SourceLabels []string `yaml:"source_labels,omitempty,flow" json:"source_labels,omitempty"`
	Separator    *string  `yaml:"separator,omitempty" json:"separator,omitempty"`
	Regex        *string  `yaml:"regex,omitempty" json:"regex,omitempty"`
	Modulus      int      `yaml:"modulus,omitempty" json:"modulus,omitempty"`
	TargetLabel  string   `yaml:"target_label,omitempty" json:"target_label,omitempty"`
	Replacement  *string  `yaml:"replacement,omitempty" json:"replacement,omitempty"`
	Action       string   `yaml:"action,omitempty" json:"action,omitempty"`
}

// What AWS recommends for AMP
// (https://docs.aws.amazon.com/prometheus/latest/userguide/AMP-onboard-ingest-metrics-remote-write-EKS.html).
const (
	recommendedCapacity          = 2500
	recommendedMaxShards         = 200
	recommendedMaxSamplesPerSend = 1000
)

// BlockName is the remote_write name, and the AWS profile, of a destination.
func BlockName(destination string) string { return "ampbridge-" + destination }

// URL is where Prometheus writes to.
func (d Destination) URL() string {
	base := strings.TrimSuffix(d.Endpoint, "/")
	if base == "" {
		base = "https://" + d.Workspace.Host()
	}
	return base + "/workspaces/" + d.Workspace.ID() + "/api/v1/remote_write"
}

// Block is the remote_write entry for d. cluster becomes the label of that name
// where a series has none: setting it always would merge series that differ
// only in it.
func (d Destination) Block(cluster string) Block {
	none := ""
	return d.block(BlockRelabel{SourceLabels: []string{"cluster"}, Regex: &none, TargetLabel: "cluster", Replacement: &cluster})
}

// GroupBlock is [Destination.Block] for a pod of a group of replicas. The group is the
// label cluster of every series, because AMP elects a replica for each value of it: of
// series with another value, AMP would elect a replica of another group.
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
	// Ours come last, so that no labelkeep of the admin's takes them away.
	b.WriteRelabelConfigs = append(b.WriteRelabelConfigs, cluster)
	return b
}

// RelayUser is the user name of the relay's basic authentication.
const RelayUser = "ampbridge"

// RelayPath is where Prometheus writes at the relay of its pod. It ends as the
// workspace's own URL does, so that people and [promconfig] see which workspace it is.
func (b Block) RelayPath() string {
	_, path, _ := strings.Cut(strings.TrimPrefix(b.URL, "https://"), "/")
	if rest, found := strings.CutPrefix(b.URL, "http://"); found {
		_, path, _ = strings.Cut(rest, "/")
	}
	return "/" + b.Name + "/" + path
}

// ByRelay returns the block for a relay at that address (host and port), which signs in
// Prometheus's stead. Nothing in it can fail to load, or changes with a session. The
// relay itself knows the proxy and the CA to AMP, and what to do with AMP's 429. Its name
// is its own: for a while both blocks of a destination may stand side by side, and a
// block whose name changes loses its backlog. No destination's name holds a dot.
func (b Block) ByRelay(address, passwordFile string) Block {
	b.URL, b.SigV4 = "http://"+address+b.RelayPath(), nil
	b.Name += ".relay"
	b.BasicAuth = &BlockBasicAuth{Username: RelayUser, PasswordFile: passwordFile}
	b.ProxyURL, b.ProxyFromEnvironment, b.TLS = "", false, nil
	b.QueueConfig.RetryOnRateLimit = false
	return b
}

// WithReplica adds the labels by which AMP elects one of an HA pair. Only for
// declared groups: shards that shared a cluster and differed in __replica__
// would lose all but one's samples.
func (b Block) WithReplica(pod string) Block {
	operators := "prometheus_replica"
	b.WriteRelabelConfigs = append(slices.Clip(b.WriteRelabelConfigs),
		BlockRelabel{TargetLabel: "__replica__", Replacement: &pod},
		BlockRelabel{Regex: &operators, Action: "labeldrop"},
	)
	return b
}

// prometheus writes d as every Prometheus parses durations: a number and one unit. Before
// 2.21 it knows no 1m30s, and no version knows fractions. Milliseconds are its finest unit.
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

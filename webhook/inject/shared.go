package inject

import (
	"sync"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// shared is the part of an injection that depends only on the policy and the entitlement. It must
// not be changed.
type shared struct {
	// config is the sidecar config without the members that depend on the pod.
	config  sidecarconfig.Config
	encoder *sidecarconfig.Shared
	// mark is the text of the destinations and their delivery in the pod's mark.
	mark []byte
	// identity are the variables of [identityEnv].
	identity []EnvVar
	// volumes are the volumes of [volumes], encoded.
	volumes []any
	// resources are the sidecar's resources if the namespace and the pod set no rules.
	resources        Resources
	encodedResources []byte
}

// newShared returns the shared part for an entitlement with decided deliveries.
func newShared(p *policy.Policy, e policy.Entitlement) *shared {
	s := &shared{config: sidecarconfig.New(p, e), identity: identityEnv(e, p)}
	s.config.Source, s.config.Target = sidecarconfig.SourceDir, sidecarconfig.TargetDir
	s.config.Credentials, s.config.Token = credentialsFile, tokenFile(p)
	s.encoder = sidecarconfig.NewShared(s.config)
	s.mark = appendDestinations(nil, s.config)
	for _, v := range volumes(p) {
		s.volumes = append(s.volumes, raw(v.appendJSON(nil)))
	}
	// For an empty pod nothing can be refused.
	s.resources, _ = fitResources(p.Sidecar.Resources, &Pod{}, Limits{})
	s.encodedResources = s.resources.appendJSON(nil)
	return s
}

// maxCached limits the size of a [Cache], in bytes.
const maxCached = 1 << 20

// Cache stores the parts of injections that depend only on policy and entitlement, so they are
// computed only once for all pods with the same ones. The zero value is empty. A policy must not
// change while it is in use. If another policy is used, the cache is emptied.
type Cache struct {
	mu     sync.Mutex
	policy *policy.Policy
	items  map[string]*shared
	size   int
}

// of returns the shared part for an entitlement with decided deliveries. A nil cache computes it
// each time.
func (c *Cache) of(p *policy.Policy, e policy.Entitlement) *shared {
	if c == nil {
		return newShared(p, e)
	}
	var buffer [512]byte
	key := appendKey(buffer[:0], e)
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.items[string(key)]; s != nil && c.policy == p {
		return s
	}
	s := newShared(p, e)
	// The config, its text, and the rest, which is small.
	size := 2*s.encoder.Size() + len(key) + 4<<10
	if c.policy != p || c.size+size > maxCached {
		c.policy, c.items, c.size = p, map[string]*shared{}, 0
	}
	c.items[string(key)] = s
	c.size += size
	return s
}

// appendKey appends a key that differs for different entitlements of the same policy. The parts
// contain no zero bytes.
func appendKey(b []byte, e policy.Entitlement) []byte {
	for _, part := range []string{e.Subject.Namespace, e.Subject.ServiceAccount, e.HA} {
		b = append(append(b, part...), 0)
	}
	for i := range e.Destinations {
		d := &e.Destinations[i]
		b = append(append(b, d.Name...), 0)
		b = append(append(b, d.Delivery...), 0)
	}
	return b
}

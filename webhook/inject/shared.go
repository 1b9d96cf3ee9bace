package inject

import (
	"sync"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// shared is what injection adds because of the policy and the entitlement, whatever the
// pod is. It is for reading only.
type shared struct {
	// config is without what belongs to the pod.
	config  sidecarconfig.Config
	encoder *sidecarconfig.Shared
	// mark is the text of the destinations and their delivery in the pod's mark.
	mark []byte
	// identity are the variables of [identityEnv].
	identity []EnvVar
	// volumes are those of [volumes], encoded.
	volumes []any
	// resources are the sidecar's where the namespace and the pod demand nothing.
	resources        Resources
	encodedResources []byte
}

// newShared returns what follows from an entitlement of which every delivery is decided.
func newShared(p *policy.Policy, e policy.Entitlement) *shared {
	s := &shared{config: sidecarconfig.New(p, e), identity: identityEnv(e, p)}
	s.config.Source, s.config.Target = sidecarconfig.SourceDir, sidecarconfig.TargetDir
	s.config.Credentials, s.config.Token = credentialsFile, tokenFile(p)
	s.encoder = sidecarconfig.NewShared(s.config)
	s.mark = appendDestinations(nil, s.config)
	for _, v := range volumes(p) {
		s.volumes = append(s.volumes, raw(v.appendJSON(nil)))
	}
	// An empty pod demands nothing, so nothing is refused.
	s.resources, _ = fitResources(p.Sidecar.Resources, &Pod{}, Limits{})
	s.encodedResources = s.resources.appendJSON(nil)
	return s
}

// maxCached bounds what a [Cache] holds, in bytes.
const maxCached = 1 << 20

// Cache keeps what injection adds by policy and entitlement alone, so that it is made once
// for all pods that have both in common. The zero value is empty. It belongs to
// policies that do not change: another one has it begin again.
type Cache struct {
	mu     sync.Mutex
	policy *policy.Policy
	items  map[string]*shared
	size   int
}

// of returns what follows from an entitlement of which every delivery is decided. A nil
// cache makes it each time.
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
	// The config and its text, and the rest, which is small.
	size := 2*s.encoder.Size() + len(key) + 4<<10
	if c.policy != p || c.size+size > maxCached {
		c.policy, c.items, c.size = p, map[string]*shared{}, 0
	}
	c.items[string(key)] = s
	c.size += size
	return s
}

// appendKey appends what tells entitlements by the same policy from each other. The parts
// hold no zero bytes.
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

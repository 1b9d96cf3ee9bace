package publish

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// Where, below the issuer's URL, things are published: the first is OpenID
// Connect's, the second what Kubernetes uses, the third is for ourselves.
const (
	DiscoveryPath = ".well-known/openid-configuration"
	KeysPath      = "openid/v1/jwks"
	MemoryPath    = "openid/v1/jwks-memory.json"
)

// Discovery is a discovery document, as far as verifiers of tokens read it
// (https://openid.net/specs/openid-connect-discovery-1_0.html).
type Discovery struct {
	Issuer        policy.Issuer `json:"issuer"`
	KeysURI       string        `json:"jwks_uri"`
	ResponseTypes []string      `json:"response_types_supported"`
	SubjectTypes  []string      `json:"subject_types_supported"`
	Algorithms    []string      `json:"id_token_signing_alg_values_supported"`
}

// ParseDiscovery reads a discovery document. Its issuer must be one that AWS
// could register.
func ParseDiscovery(data []byte) (Discovery, error) {
	var d Discovery
	if err := json.Unmarshal(data, &d); err != nil {
		return Discovery{}, fmt.Errorf("not a discovery document: %w", err)
	}
	if d.Issuer == "" {
		return Discovery{}, fmt.Errorf("not a discovery document: it names no issuer")
	}
	return d, d.Issuer.Validate()
}

// NewDiscovery is the document that goes with published keys. Its jwks_uri is
// where those are, not the API server's own.
func NewDiscovery(issuer policy.Issuer, keys []Key) Discovery {
	var algorithms []string
	for _, k := range keys {
		algorithms = append(algorithms, k.algorithm())
	}
	slices.Sort(algorithms)
	return Discovery{
		Issuer: issuer, KeysURI: strings.TrimSuffix(string(issuer), "/") + "/" + KeysPath,
		ResponseTypes: []string{"id_token"}, SubjectTypes: []string{"public"}, Algorithms: slices.Compact(algorithms),
	}
}

// Encode writes the document.
func (d Discovery) Encode() []byte { return encode(d) }

// Memory is since when published keys are gone from the cluster: what decides
// when they may go. It lies beside the keys, so that whoever publishes next, from
// whichever machine, knows it. It holds nothing that the keys do not say.
type Memory struct {
	Issuer policy.Issuer `json:"issuer"`
	// Gone is by key id.
	Gone map[string]time.Time `json:"gone"`
}

// ParseMemory reads what [Memory.Encode] wrote.
func ParseMemory(data []byte) (Memory, error) {
	var m Memory
	if err := json.Unmarshal(data, &m); err != nil {
		return Memory{}, fmt.Errorf("not a memory of keys: %w", err)
	}
	return m, nil
}

// Encode writes the memory.
func (m Memory) Encode() []byte { return encode(m) }

// Input is all that a publication depends on.
type Input struct {
	Issuer policy.Issuer
	// Current are the cluster's keys, Published those that stand there already.
	Current, Published []Key
	Memory             Memory
	// Keep is how long a key stays that is gone from the cluster. Prune takes away
	// those that have stayed that long.
	Keep  time.Duration
	Prune bool
	Now   time.Time
}

// Publication is what is to stand there.
type Publication struct {
	Keys      []Key
	Memory    Memory
	Discovery Discovery
	// Of the ids of keys: Added are new, Kept are gone from the cluster and stay,
	// Due are among those and would go with Prune, Pruned go.
	Added, Kept, Due, Pruned []string
}

// Publish merges. The cluster's keys come first, in its order; those that stay
// follow in theirs.
func Publish(in Input) (Publication, error) {
	p := Publication{Keys: slices.Clone(in.Current), Memory: Memory{Issuer: in.Issuer, Gone: map[string]time.Time{}}}
	if m := in.Memory.Issuer; m != "" && m != in.Issuer {
		return Publication{}, mismatch(m, in.Issuer)
	}
	current := map[string]Key{}
	for _, k := range in.Current {
		current[k.ID] = k
	}
	published := map[string]bool{}
	for _, k := range in.Published {
		published[k.ID] = true
		if now, found := current[k.ID]; found {
			if !k.same(now) {
				return Publication{}, fmt.Errorf("the kid %q names another key here than in the cluster: this is another cluster's place, or somebody changed it", k.ID)
			}
			continue
		}
		// Not known since when: from now on, which is the later.
		since, known := in.Memory.Gone[k.ID]
		if !known || since.After(in.Now) {
			since = in.Now
		}
		due := in.Now.Sub(since) >= in.Keep
		if due && in.Prune {
			p.Pruned = append(p.Pruned, k.ID)
			continue
		}
		if due {
			p.Due = append(p.Due, k.ID)
		}
		p.Kept = append(p.Kept, k.ID)
		p.Memory.Gone[k.ID] = since.UTC().Truncate(time.Second)
		p.Keys = append(p.Keys, k)
	}
	for _, k := range in.Current {
		if !published[k.ID] {
			p.Added = append(p.Added, k.ID)
		}
	}
	p.Discovery = NewDiscovery(in.Issuer, p.Keys)
	return p, nil
}

// CheckPlace refuses a place where another issuer's document stands.
func CheckPlace(found Discovery, issuer policy.Issuer) error {
	if found.Issuer != issuer {
		return mismatch(found.Issuer, issuer)
	}
	return nil
}

func mismatch(there, here policy.Issuer) error {
	return fmt.Errorf("issuer %s is published there, and the cluster's is %s, byte for byte: one place is for one issuer; choose another", there, here)
}

// Text tells people what is going to happen.
func (p Publication) Text(in Input) string {
	var b strings.Builder
	fmt.Fprintf(&b, "issuer %s\n", in.Issuer)
	for _, k := range p.Keys {
		switch since, gone := p.Memory.Gone[k.ID]; {
		case slices.Contains(p.Added, k.ID):
			fmt.Fprintf(&b, "+ key %s (%s) of the cluster\n", k.ID, k.algorithm())
		case slices.Contains(p.Due, k.ID):
			fmt.Fprintf(&b, "  key %s stays: gone from the cluster since %s, long enough for --prune\n", k.ID, since.Format(time.RFC3339))
		case gone:
			fmt.Fprintf(&b, "  key %s stays: gone from the cluster since %s, kept until %s\n", k.ID, since.Format(time.RFC3339), since.Add(in.Keep).Format(time.RFC3339))
		default:
			fmt.Fprintf(&b, "  key %s of the cluster\n", k.ID)
		}
	}
	for _, id := range p.Pruned {
		fmt.Fprintf(&b, "- key %s: gone from the cluster since %s\n", id, in.Memory.Gone[id].Format(time.RFC3339))
	}
	return b.String()
}

// Equal tells whether two memories say the same.
func (m Memory) Equal(other Memory) bool {
	return m.Issuer == other.Issuer && maps.EqualFunc(m.Gone, other.Gone, time.Time.Equal)
}

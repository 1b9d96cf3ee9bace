package publish

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy"
)

// The paths of the published files, below the issuer's URL. OpenID Connect defines the
// first, Kubernetes uses the second, and only ampbridge reads the third.
const (
	DiscoveryPath = ".well-known/openid-configuration"
	KeysPath      = "openid/v1/jwks"
	StatePath     = "openid/v1/jwks-state.json"
)

// Discovery holds the fields of a discovery document that verifiers of tokens read
// (https://openid.net/specs/openid-connect-discovery-1_0.html).
type Discovery struct {
	Issuer        policy.Issuer `json:"issuer"`
	KeysURI       string        `json:"jwks_uri"`
	ResponseTypes []string      `json:"response_types_supported"`
	SubjectTypes  []string      `json:"subject_types_supported"`
	Algorithms    []string      `json:"id_token_signing_alg_values_supported"`
}

// ParseDiscovery reads a discovery document. AWS must be able to register its issuer.
func ParseDiscovery(data []byte) (Discovery, error) {
	var d Discovery
	if err := json.Unmarshal(data, &d); err != nil {
		return Discovery{}, fmt.Errorf("not a discovery document: %w", err)
	}
	if d.Issuer == "" {
		return Discovery{}, fmt.Errorf("not a discovery document: the issuer is missing")
	}
	return d, d.Issuer.Validate()
}

// NewDiscovery returns the document for published keys. Its jwks_uri is the URL of these keys,
// not that of the API server.
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

// State records since when published keys have been missing in the cluster, which decides when
// they may be removed. It is stored beside the keys, so that the next run has it on
// any machine. It holds no secret.
type State struct {
	Issuer policy.Issuer `json:"issuer"`
	// Gone maps key ids to times.
	Gone map[string]time.Time `json:"gone"`
}

// ParseState reads a text that [State.Encode] returned.
func ParseState(data []byte) (State, error) {
	var s State
	if err := json.Unmarshal(data, &s); err != nil {
		return State{}, fmt.Errorf("not the state of published keys: %w", err)
	}
	return s, nil
}

// Encode writes the state.
func (s State) Encode() []byte { return encode(s) }

// Input holds everything that a publication depends on.
type Input struct {
	Issuer policy.Issuer
	// Current are the cluster's keys. Published are the keys that were published before.
	Current, Published []Key
	State              State
	// Retain is how long a key stays published after it is missing in the cluster. Prune
	// removes keys that have been missing for longer.
	Retain time.Duration
	Prune  bool
	Now    time.Time
}

// Publication is the new content of a place.
type Publication struct {
	Keys      []Key
	State     State
	Discovery Discovery
	// Ids of keys. Added are new. Retained are missing in the cluster and stay.
	// Expired are those of the retained ones that Prune would remove. Pruned are removed.
	Added, Retained, Expired, Pruned []string
}

// Publish merges the cluster's keys with the published ones. The cluster's keys come
// first, then the retained ones, each group in its own order.
func Publish(in Input) (Publication, error) {
	p := Publication{Keys: slices.Clone(in.Current), State: State{Issuer: in.Issuer, Gone: map[string]time.Time{}}}
	if s := in.State.Issuer; s != "" && s != in.Issuer {
		return Publication{}, mismatch(s, in.Issuer)
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
				return Publication{}, fmt.Errorf(
					"the kid %q names another key here than in the cluster: the place belongs to another cluster, or somebody "+
						"changed it",
					k.ID,
				)
			}
			continue
		}
		// If the state has no time for the key, the grace period starts now.
		since, known := in.State.Gone[k.ID]
		if !known || since.After(in.Now) {
			since = in.Now
		}
		expired := in.Now.Sub(since) >= in.Retain
		if expired && in.Prune {
			p.Pruned = append(p.Pruned, k.ID)
			continue
		}
		if expired {
			p.Expired = append(p.Expired, k.ID)
		}
		p.Retained = append(p.Retained, k.ID)
		p.State.Gone[k.ID] = since.UTC().Truncate(time.Second)
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

// CheckPlace returns an error if the document of another issuer is published there.
func CheckPlace(found Discovery, issuer policy.Issuer) error {
	if found.Issuer != issuer {
		return mismatch(found.Issuer, issuer)
	}
	return nil
}

func mismatch(there, here policy.Issuer) error {
	return fmt.Errorf(
		"issuer %s is published there, and the cluster's is %s, byte for byte: one place is for one issuer; choose another",
		there,
		here,
	)
}

// Text describes the publication for people.
func (p Publication) Text(in Input) string {
	var b strings.Builder
	fmt.Fprintf(&b, "issuer %s\n", in.Issuer)
	for _, k := range p.Keys {
		switch since, gone := p.State.Gone[k.ID]; {
		case slices.Contains(p.Added, k.ID):
			fmt.Fprintf(&b, "+ key %s (%s) of the cluster\n", k.ID, k.algorithm())
		case slices.Contains(p.Expired, k.ID):
			fmt.Fprintf(&b, "  key %s stays: gone from the cluster since %s, long enough for "+
				"--prune\n", k.ID, since.Format(time.RFC3339))
		case gone:
			fmt.Fprintf(
				&b,
				"  key %s stays: gone from the cluster since %s, kept until %s\n",
				k.ID,
				since.Format(time.RFC3339),
				since.Add(in.Retain).Format(time.RFC3339),
			)
		default:
			fmt.Fprintf(&b, "  key %s of the cluster\n", k.ID)
		}
	}
	for _, id := range p.Pruned {
		fmt.Fprintf(&b, "- key %s: gone from the cluster since %s\n", id, in.State.Gone[id].Format(time.RFC3339))
	}
	return b.String()
}

// Report describes a run for other programs.
type Report struct {
	Issuer policy.Issuer `json:"issuer"`
	// Place is a bucket or a directory.
	Place  string      `json:"place"`
	DryRun bool        `json:"dryRun"`
	Keys   []KeyReport `json:"keys"`
	// Written are the paths of the files that changed.
	Written []string `json:"written"`
}

// KeyReport describes a key.
type KeyReport struct {
	ID    string   `json:"id"`
	State KeyState `json:"state"`
	// Gone is since when the cluster does not use the key; missing: the cluster uses it.
	Gone time.Time `json:"gone,omitzero"`
}

// KeyState is what a run does with a key.
type KeyState string

// The states of keys.
const (
	KeyAdded  KeyState = "added"
	KeyKept   KeyState = "kept"
	KeyPruned KeyState = "pruned"
	// KeyExpired: the key is kept, and --prune would remove it.
	KeyExpired KeyState = "expired"
)

func (p Publication) report(in Input, place string, dryRun bool) Report {
	r := Report{Issuer: in.Issuer, Place: place, DryRun: dryRun, Keys: []KeyReport{}, Written: []string{}}
	for _, k := range p.Keys {
		state := KeyKept
		switch {
		case slices.Contains(p.Added, k.ID):
			state = KeyAdded
		case slices.Contains(p.Expired, k.ID):
			state = KeyExpired
		}
		r.Keys = append(r.Keys, KeyReport{k.ID, state, p.State.Gone[k.ID]})
	}
	for _, id := range p.Pruned {
		r.Keys = append(r.Keys, KeyReport{id, KeyPruned, in.State.Gone[id]})
	}
	return r
}

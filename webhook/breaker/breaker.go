// Package breaker holds the state of the circuit breaker: workloads with pods that
// hung on the config sidecar, or were refused because of it. Injection pauses for them. The
// auditor writes the state to the ConfigMap ampbridge-breaker in ampbridge's own namespace, and
// the webhook reads it, so that the webhook has no side effects.
//
// An entry is for one revision: what would be injected into the workload with
// one policy and one image. After a change of the policy or the image there is another revision,
// for which the breaker is closed, so injection tries again by itself. To try
// earlier, delete the entry or the whole ConfigMap.
package breaker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// ConfigMap is the name of the object with the state.
const ConfigMap = "ampbridge-breaker"

// podTemplateHash is the label that a Deployment gives its pods
// (https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#pod-template-hash-label).
const podTemplateHash = "pod-template-hash"

// CircuitOpen is the reason to skip a pod of a workload with hanging or refused pods.
const CircuitOpen policy.Reason = "CircuitOpen"

// Workload is what people deploy: the controller of a pod. If the controller is a ReplicaSet of a
// Deployment, the workload is the Deployment, so that a new revision belongs to the same workload.
type Workload struct {
	Namespace string `json:"namespace"`
	Kind      string `json:"kind"`
	Name      string `json:"name"`
}

func (w Workload) String() string { return w.Kind + "/" + w.Name }

// Of returns the workload of a pod with these labels and a controller of this kind and name.
// Without a controller, kind is empty, and the pod is its own workload. Nothing else checks what a
// pod says about its controller, so Of replaces what cannot be a name.
func Of(namespace, pod, kind, name string, labels map[string]string) Workload {
	if kind == "" {
		return Workload{namespace, "Pod", bounded(pod, maxName)}
	}
	// The name of a Deployment's ReplicaSet is the Deployment's name and this hash.
	hash := labels[podTemplateHash]
	if deployment, cut := strings.CutSuffix(name, "-"+hash); kind == "ReplicaSet" && hash != "" && cut {
		return Workload{namespace, "Deployment", bounded(deployment, maxName)}
	}
	return Workload{namespace, bounded(kind, maxKind), bounded(name, maxName)}
}

// The limits of Kubernetes for the names of kinds and objects.
const (
	maxKind = 63
	maxName = 253
)

// bounded returns s if it can be a kind or name, or else its beginning and a digest.
func bounded(s string, most int) string {
	if len(s) <= most && plain(s, "-._:") {
		return s
	}
	const begin = 20
	sum := sha256.Sum256([]byte(s))
	letters := strings.Map(func(r rune) rune {
		if !plain(string(r), "-.") {
			return '-'
		}
		return r
	}, s[:min(len(s), begin)])
	return letters[:min(len(letters), begin)] + "_" + hex.EncodeToString(sum[:16])
}

// plain reports whether s contains only ASCII letters, digits, and characters of more.
func plain(s, more string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune(more, rune(c)) {
			return false
		}
	}
	return true
}

// Revision identifies what would be injected into a pod with this entitlement. It has 12 hex
// digits, which change with the image and with everything in the policy that could make a
// sidecar hang. image is the webhook's image, for policies without one.
func Revision(p *policy.Policy, e policy.Entitlement, image string) string {
	text, err := json.Marshal(struct {
		Config  string
		Sidecar policy.Sidecar
		Token   policy.Token
		Image   string
	}{sidecarconfig.New(p, e).Encode(), p.Sidecar, p.Token, image})
	if err != nil {
		panic(err) // cannot happen: strings and numbers always encode
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:6])
}

// Entry is a workload for which injection pauses.
type Entry struct {
	Workload
	// Revision is the [Revision] that failed.
	Revision string `json:"revision"`
	// Cause is how the sidecar hung, for example ImagePullBackOff, or [Refused] or [OverQuota].
	Cause string `json:"cause"`
	// By names the component that refused the pods, and Message is its message. Both are empty if
	// the pods hung.
	By      string `json:"by,omitempty"`
	Message string `json:"message,omitempty"`
	// Since is when the breaker opened.
	Since time.Time `json:"since"`
}

// Causes of entries for pods that the API server refused.
const (
	Refused = "Refused"
	// OverQuota: a ResourceQuota refused them. Nothing reports that a quota has space again, so
	// such an entry ends after [QuotaRetry].
	OverQuota = "OverQuota"
)

// QuotaRetry is the time after which injection is tried again if a quota refused a pod.
const QuotaRetry = time.Hour

// WasRefused reports whether the entry is for pods that were refused.
func (e Entry) WasRefused() bool { return e.Cause == Refused || e.Cause == OverQuota }

// Decision returns the decision to skip, with a warning for the person who creates the pod.
func (e Entry) Decision() policy.Decision {
	// The API server cuts warnings after 256 bytes, including the prefix. Names may be
	// long, so the fix comes first.
	workload := e.String()
	if e.Workload == All(e.Namespace) {
		workload = "every one of namespace " + e.Namespace
	}
	why := fmt.Sprintf("pods hung on the config sidecar (%.40s)", e.Cause)
	if e.WasRefused() {
		why = fmt.Sprintf("pods with the sidecar were refused by %.70s", e.By)
	}
	warning := fmt.Sprintf(
		"injection pauses until the policy or the sidecar's image changes: %s; the cluster admin fixes that; workload "+
			"%s", why, workload,
	)
	const most = 230
	return policy.Decision{Reason: CircuitOpen, Warning: shorten(warning, most)}
}

// Limits of the state. The workloads of one namespace must not fill the ConfigMap, which holds
// 1 MiB, and must not slow down the webhook, which reads it for each pod.
const (
	// PerNamespace is the number of entries per namespace. If more of its workloads
	// hang, one entry replaces all of those with the same revision.
	PerNamespace = 16
	// MaxBytes is the size of all keys and values.
	MaxBytes = 768 << 10
	// maxValue is the size of one value. A longer one was not written by this package.
	maxValue    = 4 << 10
	maxRevision = 64
	maxCause    = 64
	maxBy       = 96
	maxMessage  = 256
)

// everything is the kind and name of an entry for all workloads of a namespace. [Of]
// never returns a kind or name with a star.
const everything = "*"

// All returns the workload that means all workloads of a namespace.
func All(namespace string) Workload { return Workload{namespace, everything, everything} }

// State holds all entries. It is the data of the ConfigMap. The zero value is empty.
type State map[string]string

// Open returns the entry of the workload, or of its whole namespace, if the
// breaker is open for this revision.
func (s State) Open(w Workload, revision string) (Entry, bool) {
	for _, k := range []string{key(w), keyOfAll(w.Namespace, revision)} {
		if e, found := s.read(k); found && e.Revision == revision && (e.Workload == w || e.Workload == All(w.Namespace)) {
			return e, true
		}
	}
	return Entry{}, false
}

// Entry returns the entry of the workload, whatever its revision.
func (s State) Entry(w Workload) (Entry, bool) {
	e, found := s.read(key(w))
	return e, found && e.Workload == w
}

// read returns the entry with a key. An entry that somebody wrote by hand and that cannot be
// read has no effect.
func (s State) read(k string) (e Entry, ok bool) {
	text, found := s[k]
	if !found || len(text) > maxValue || json.Unmarshal([]byte(text), &e) != nil || e.Key() != k || !e.bounded() {
		return Entry{}, false
	}
	return e, true
}

// bounded reports whether the entry is within the limits of this package. Without a namespace, the
// key would begin with a dot. If a key begins with two dots, the API server refuses the whole
// ConfigMap. Without a kind, the key would be a key of [All].
func (e Entry) bounded() bool {
	w := e.Workload
	// Years after 9999 and time zones of a day or more can be read but not written.
	_, err := e.Since.MarshalJSON()
	ofWorkload := w.Kind != "" && bounded(w.Kind, maxKind) == w.Kind && bounded(w.Name, maxName) == w.Name
	return w.Namespace != "" && len(w.Namespace) <= maxKind && plain(w.Namespace, "-") && (ofWorkload || w == All(w.Namespace)) &&
		len(e.Revision) <= maxRevision && plain(e.Revision, "-") && len(e.Cause) <= maxCause && len(e.By) <= maxBy &&
		len(e.Message) <= maxMessage && err == nil
}

// With returns the state with additional or replaced entries. It respects [PerNamespace] and
// [MaxBytes]: above these limits, it merges entries of one namespace and revision into one for all
// workloads of the namespace. If there is still no space, it leaves the entry out, and [State.Open]
// does not find it.
func (s State) With(entries ...Entry) State {
	next := maps.Clone(s)
	if next == nil {
		next = State{}
	}
	bytes := next.size()
	for _, e := range entries {
		e.Cause, e.By, e.Message = shorten(e.Cause, maxCause), shorten(e.By, maxBy), shorten(e.Message, maxMessage)
		if _, open := next.read(keyOfAll(e.Namespace, e.Revision)); !open && e.bounded() {
			bytes = next.add(e, bytes)
		}
	}
	return next
}

// add adds an entry to a state of that many bytes, and returns the new number of bytes.
func (s State) add(e Entry, bytes int) int {
	k := e.Key()
	before, replaced := s[k]
	s[k] = e.encode()
	bytes += len(s[k]) - len(before)
	if !replaced {
		bytes += len(k)
	}
	fits := true
	for fits && len(s.of(e.Namespace)) > PerNamespace {
		fits = s.merge(e.Namespace)
		bytes = s.size()
	}
	if bytes > MaxBytes {
		s.tidy()
		bytes = s.size()
	}
	for fits && bytes > MaxBytes {
		fits = s.merge(s.largest())
		bytes = s.size()
	}
	if fits {
		return bytes
	}
	if delete(s, k); replaced {
		s[k] = before
	}
	return s.size()
}

func shorten(s string, most int) string {
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most], "")
	}
	return s
}

func (e Entry) encode() string {
	text, err := json.Marshal(e)
	if err != nil {
		panic(err) // cannot happen: strings and times until the year 9999 always encode
	}
	return string(text)
}

// size returns the size as the API server counts it.
func (s State) size() (bytes int) {
	for k, v := range s {
		bytes += len(k) + len(v)
	}
	return bytes
}

// of returns the entries of a namespace.
func (s State) of(namespace string) (list []Entry) {
	for k := range s {
		if strings.HasPrefix(k, namespace+".") {
			if e, ok := s.read(k); ok {
				list = append(list, e)
			}
		}
	}
	return list
}

// merge replaces the entries of the namespace's most frequent revision by one for all
// its workloads. It reports whether there were two or more.
func (s State) merge(namespace string) bool {
	revisions := map[string][]Entry{}
	var most []Entry
	for _, e := range s.of(namespace) {
		if e.Workload == All(namespace) {
			continue
		}
		revisions[e.Revision] = append(revisions[e.Revision], e)
		list := revisions[e.Revision]
		if len(list) > len(most) || (len(list) == len(most) && e.Revision < most[0].Revision) {
			most = list
		}
	}
	if len(most) < 2 {
		return false
	}
	one := most[0]
	for _, e := range most {
		delete(s, e.Key())
		if e.Since.Before(one.Since) || (e.Since.Equal(one.Since) && e.Name < one.Name) {
			one = e
		}
	}
	one.Workload = All(namespace)
	s[one.Key()] = one.encode()
	return true
}

// largest returns the namespace with the most entries for single workloads.
func (s State) largest() (namespace string) {
	count := map[string]int{}
	for k := range s {
		if n, rest, _ := strings.Cut(k, "."); !strings.HasPrefix(rest, ".") {
			count[n]++
		}
	}
	for n, c := range count {
		if c > count[namespace] || (c == count[namespace] && n < namespace) {
			namespace = n
		}
	}
	return namespace
}

// tidy removes entries that cannot be read, because they only use space.
func (s State) tidy() {
	for k := range s {
		if _, ok := s.read(k); !ok {
			delete(s, k)
		}
	}
}

// Without returns the state without the entry of a workload.
func (s State) Without(w Workload) State {
	next := maps.Clone(s)
	delete(next, key(w))
	return next
}

// Remove returns the state without an entry.
func (s State) Remove(e Entry) State {
	next := maps.Clone(s)
	delete(next, e.Key())
	return next
}

// Entries returns all readable entries in the order of their keys.
func (s State) Entries() []Entry {
	var all []Entry
	for _, k := range slices.Sorted(maps.Keys(s)) {
		if e, ok := s.read(k); ok {
			all = append(all, e)
		}
	}
	return all
}

// Key returns the entry's key in the ConfigMap.
func (e Entry) Key() string {
	if e.Workload == All(e.Namespace) {
		return keyOfAll(e.Namespace, e.Revision)
	}
	return key(e.Workload)
}

// keyOfAll returns a key with nothing between two dots. Other keys have the kind there.
func keyOfAll(namespace, revision string) string { return namespace + ".." + revision }

// key returns the workload as a ConfigMap's key: at most 253 letters, digits, "-", "_"
// and "." (https://kubernetes.io/docs/concepts/configuration/configmap/). A namespace
// contains no dot, so different namespaces never share a key. The key of a workload with
// an unusual name contains a digest.
func key(w Workload) string {
	const most = 253
	text := w.Namespace + "." + w.Kind + "." + w.Name
	if len(text) <= most && plain(text, "-._") {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	return w.Namespace + "._" + hex.EncodeToString(sum[:16])
}

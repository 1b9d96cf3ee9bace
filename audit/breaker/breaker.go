// Package breaker is the memory that the auditor and the webhook share: the
// workloads whose pods hung on the config sidecar, for which injection pauses.
// The auditor writes it, to the ConfigMap ampbridge-breaker in ampbridge's own
// namespace; the webhook reads it, so that it keeps having no side effects.
//
// An entry is about one trial: what would be injected into the workload, under
// one policy and one image. A changed policy or image is another trial, for
// which the breaker is closed: injection tries again by itself. Who wants that
// sooner deletes the entry, or the whole ConfigMap.
package breaker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/assignment"
)

// ConfigMap is the name of the object that holds the state.
const ConfigMap = "ampbridge-breaker"

// CircuitOpen is the reason to skip a pod of a workload whose pods hung.
const CircuitOpen policy.Reason = "CircuitOpen"

// Workload is what people deploy: the controller of a pod, and for the
// ReplicaSet of a Deployment the Deployment, so that a new revision is the same
// workload.
type Workload struct {
	Namespace string `json:"namespace"`
	Kind      string `json:"kind"`
	Name      string `json:"name"`
}

func (w Workload) String() string { return w.Kind + "/" + w.Name }

// Of is the workload of a pod with these labels and a controller of this kind
// and name. Without one, the kind being empty, a pod is its own workload.
func Of(namespace, pod, kind, name string, labels map[string]string) Workload {
	if kind == "" {
		return Workload{namespace, "Pod", pod}
	}
	// A Deployment calls its ReplicaSets by its own name and this hash.
	hash := labels[appsv1.DefaultDeploymentUniqueLabelKey]
	if deployment, cut := strings.CutSuffix(name, "-"+hash); kind == "ReplicaSet" && hash != "" && cut {
		return Workload{namespace, "Deployment", deployment}
	}
	return Workload{namespace, kind, name}
}

// Trial names what would be injected into a pod with this entitlement: 12 hex
// digits that change with everything in the policy that could make its sidecar
// hang, and with the image. image is the webhook's, for policies that name none.
func Trial(p *policy.Policy, e policy.Entitlement, image string) string {
	text, err := json.Marshal(struct {
		Assignment string
		Sidecar    policy.Sidecar
		Token      policy.Token
		Image      string
	}{assignment.New(p, e).Encode(), p.Sidecar, p.Token, image})
	if err != nil {
		panic(err) // strings and numbers always encode
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:6])
}

// Entry is one workload for which injection pauses.
type Entry struct {
	Workload
	// Trial is the [Trial] that failed.
	Trial string `json:"trial"`
	// Why is how the sidecar hung, as in ImagePullBackOff.
	Why string `json:"why"`
	// Since is when the breaker opened.
	Since time.Time `json:"since"`
}

// Decision is to skip, with a warning for whoever creates the pod.
func (e Entry) Decision() policy.Decision {
	// The API server cuts warnings at 256 bytes, prefix included; names may be
	// long, and the mend stands first.
	warning := fmt.Sprintf("injection pauses until the policy or the sidecar's image changes: pods hung on the config sidecar (%.40s); the cluster admin mends that; workload %s", e.Why, e.Workload)
	const most = 230
	if len(warning) > most {
		warning = strings.ToValidUTF8(warning[:most], "")
	}
	return policy.Decision{Reason: CircuitOpen, Warning: warning}
}

// State is all entries: the data of the ConfigMap. The zero value is empty.
type State map[string]string

// Open returns the entry of the workload, if the breaker is open for this trial.
func (s State) Open(w Workload, trial string) (Entry, bool) {
	e, found := s.Entry(w)
	return e, found && e.Trial == trial
}

// Entry returns the entry of the workload, whatever its trial.
func (s State) Entry(w Workload) (Entry, bool) {
	var e Entry
	// What somebody wrote by hand and cannot be read opens nothing.
	if text, found := s[key(w)]; !found || json.Unmarshal([]byte(text), &e) != nil {
		return Entry{}, false
	}
	return e, e.Workload == w
}

// With is the state with one more entry, or another one for its workload.
func (s State) With(e Entry) State {
	text, err := json.Marshal(e)
	if err != nil {
		panic(err) // strings always encode, and times until the year 9999
	}
	next := maps.Clone(s)
	if next == nil {
		next = State{}
	}
	next[key(e.Workload)] = string(text)
	return next
}

// Without is the state without the entry of a workload.
func (s State) Without(w Workload) State {
	next := maps.Clone(s)
	delete(next, key(w))
	return next
}

// Entries are all that can be read, in the order of their keys.
func (s State) Entries() []Entry {
	var all []Entry
	for _, k := range slices.Sorted(maps.Keys(s)) {
		var e Entry
		if json.Unmarshal([]byte(s[k]), &e) == nil && key(e.Workload) == k {
			all = append(all, e)
		}
	}
	return all
}

// key is the workload as a ConfigMap's key, of at most 253 characters
// (https://kubernetes.io/docs/concepts/configuration/configmap/). Neither a
// namespace nor a kind has a dot in it, so keys are as distinct as workloads.
func key(w Workload) string {
	const most = 253
	text := w.Namespace + "." + w.Kind + "." + w.Name
	if len(text) <= most {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	digest := "." + hex.EncodeToString(sum[:16])
	return text[:most-len(digest)] + digest
}

// Read gets the state. No ConfigMap is no entry. It needs get on the ConfigMap.
func Read(ctx context.Context, client corev1client.ConfigMapInterface) (State, error) {
	object, err := read(ctx, client)
	if object == nil {
		return nil, err
	}
	return object.Data, nil
}

// read returns nil where there is none.
func read(ctx context.Context, client corev1client.ConfigMapInterface) (*corev1.ConfigMap, error) {
	object, err := client.Get(ctx, ConfigMap, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	} else if err != nil {
		return nil, fmt.Errorf("read ConfigMap %s: %w", ConfigMap, err)
	}
	return object, nil
}

// Change reads the state, and writes what edit makes of it, if that differs. A
// write that came between is an error, the API server's Conflict: the caller
// tries again with what is true then. It needs get, create and update.
func Change(ctx context.Context, client corev1client.ConfigMapInterface, edit func(State) State) (State, error) {
	object, err := read(ctx, client)
	if err != nil {
		return nil, err
	}
	var state State
	if object != nil {
		state = object.Data
	}
	next := edit(state)
	switch {
	case maps.Equal(next, state):
		return state, nil
	case object == nil:
		object = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: ConfigMap}, Data: next}
		_, err = client.Create(ctx, object, metav1.CreateOptions{})
	default:
		object.Data = next
		_, err = client.Update(ctx, object, metav1.UpdateOptions{})
	}
	if err != nil {
		return nil, fmt.Errorf("write ConfigMap %s: %w", ConfigMap, err)
	}
	return next, nil
}

package reconcile

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/plan"
)

// stateName is the name of the ConfigMap and of the Lease, in ampbridge's own namespace.
const stateName = "ampbridge-sync"

// The ConfigMap's keys.
const (
	stateOwner  = "owner"
	stateMissed = "missed" // JSON: subject → RFC 3339
)

// stateStore keeps a [plan.AbsenceState] in a ConfigMap, so that it survives the process.
type stateStore struct {
	client    kubernetes.Interface
	namespace string
}

// storedState is the state as it was read. stored is the ConfigMap to update; nil if
// there is none yet.
type storedState struct {
	plan.AbsenceState
	stored *corev1.ConfigMap
}

func (s stateStore) String() string { return "ConfigMap " + s.namespace + "/" + stateName }

func (s stateStore) read(ctx context.Context) (storedState, error) {
	stored, err := s.client.CoreV1().ConfigMaps(s.namespace).Get(ctx, stateName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return storedState{}, nil
	}
	if err != nil {
		return storedState{}, err
	}
	missed := map[string]time.Time{}
	if text := stored.Data[stateMissed]; text != "" {
		if err := json.Unmarshal([]byte(text), &missed); err != nil {
			return storedState{}, fmt.Errorf("%s: %w: delete the ConfigMap, and the grace periods start again", stateMissed, err)
		}
	}
	r := storedState{
		stored:       stored,
		AbsenceState: plan.AbsenceState{Owner: stored.Data[stateOwner], Missed: map[policy.Subject]time.Time{}},
	}
	for name, since := range missed {
		subject, err := policy.ParseSubject(name)
		if err != nil {
			return storedState{}, fmt.Errorf("%s: %w: delete the ConfigMap, and the grace periods start again", stateMissed, err)
		}
		r.Missed[subject] = since
	}
	return r, nil
}

// write stores changes. It fails if another process has written since the read. That is safe:
// that process saw the same cluster, and the next pass reads again.
func (s stateStore) write(ctx context.Context, old storedState, now plan.AbsenceState) error {
	if old.Equal(now) {
		return nil
	}
	missed := map[string]time.Time{}
	for subject, since := range now.Missed {
		missed[subject.String()] = since
	}
	text, err := json.Marshal(missed)
	if err != nil {
		return err
	}
	data := map[string]string{stateOwner: now.Owner, stateMissed: string(text)}
	maps := s.client.CoreV1().ConfigMaps(s.namespace)
	if old.stored == nil {
		_, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: stateName}, Data: data}, metav1.CreateOptions{})
		return err
	}
	updated := old.stored.DeepCopy()
	updated.Data = data
	_, err = maps.Update(ctx, updated, metav1.UpdateOptions{})
	return err
}

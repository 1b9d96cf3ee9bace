package audit

import (
	"context"
	"fmt"

	"github.com/go-json-experiment/json"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// controlled holds what a controller creates its pods from.
type controlled struct {
	reference metav1.OwnerReference
	uid       types.UID
	template  corev1.PodTemplateSpec
	claims    []corev1.PersistentVolumeClaim
	// service is a StatefulSet's service, and revision the revision of its newest pods.
	service, revision string
	// complete is true if the controller has as many pods as it wants.
	complete bool
}

// unknownKindError is for controllers of a kind that the auditor has no right to read.
type unknownKindError struct{ kind string }

func (e unknownKindError) Error() string {
	return fmt.Sprintf("the auditor cannot read the pod template of a %s", shorten(e.kind, 60))
}

// controlled reads a controller of the namespace.
func (c cluster) controlled(ctx context.Context, namespace string, owner metav1.OwnerReference) (found controlled, err error) {
	found.reference = owner
	group := owner.APIVersion
	switch {
	case group == "apps/v1" && owner.Kind == "ReplicaSet":
		o, err := c.apps.ReplicaSets(namespace).Get(ctx, owner.Name, metav1.GetOptions{})
		if err != nil {
			return found, err
		}
		found.uid, found.template = o.UID, o.Spec.Template
		found.complete = o.Spec.Replicas == nil || o.Status.Replicas >= *o.Spec.Replicas
	case group == "apps/v1" && owner.Kind == "StatefulSet":
		o, err := c.apps.StatefulSets(namespace).Get(ctx, owner.Name, metav1.GetOptions{})
		if err != nil {
			return found, err
		}
		found.uid, found.template, found.claims = o.UID, o.Spec.Template, o.Spec.VolumeClaimTemplates
		found.service, found.revision = o.Spec.ServiceName, o.Status.UpdateRevision
		found.complete = o.Spec.Replicas == nil || o.Status.Replicas >= *o.Spec.Replicas
	case group == "apps/v1" && owner.Kind == "DaemonSet":
		o, err := c.apps.DaemonSets(namespace).Get(ctx, owner.Name, metav1.GetOptions{})
		if err != nil {
			return found, err
		}
		found.uid, found.template = o.UID, o.Spec.Template
		found.complete = o.Status.CurrentNumberScheduled >= o.Status.DesiredNumberScheduled
	default:
		return found, unknownKindError{owner.Kind}
	}
	return found, nil
}

// pod returns the pod that the controller would create, without fields that differ between
// its pods. name is the name of a StatefulSet's pod; empty means its first.
func (o controlled) pod(namespace, name string) *corev1.Pod {
	t := o.template.DeepCopy()
	pod := &corev1.Pod{ObjectMeta: t.ObjectMeta, Spec: t.Spec}
	pod.Namespace, pod.GenerateName = namespace, o.reference.Name+"-"
	// Without blockOwnerDeletion no right for the controller is needed.
	pod.OwnerReferences = []metav1.OwnerReference{{
		APIVersion: o.reference.APIVersion, Kind: o.reference.Kind, Name: o.reference.Name, UID: o.uid, Controller: new(true),
	}}
	if o.reference.Kind != "StatefulSet" {
		return pod
	}
	if name == "" {
		name = o.reference.Name + "-0"
	}
	// An existing name would cause an error before the successor's admission.
	pod.GenerateName, pod.Spec.Hostname, pod.Spec.Subdomain = name+"-", name, o.service
	metav1.SetMetaDataLabel(&pod.ObjectMeta, "statefulset.kubernetes.io/pod-name", name)
	metav1.SetMetaDataLabel(&pod.ObjectMeta, "controller-revision-hash", o.revision)
	for _, claim := range o.claims {
		pod.Spec.Volumes = append(pod.Spec.Volumes, corev1.Volume{Name: claim.Name, VolumeSource: corev1.VolumeSource{
			PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.Name + "-" + name},
		}})
	}
	return pod
}

// seen converts a pod to the form that an audit reads.
func seen(pod *corev1.Pod) (*Pod, error) {
	text, err := json.Marshal(pod)
	if err != nil {
		return nil, err
	}
	return Decode(text)
}

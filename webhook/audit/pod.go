package audit

import (
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/webhook/breaker"
	"github.com/ampbridge/ampbridge/webhook/inject"
)

// Pod is the part of a stored pod that an audit needs: the fields that injection reads, and
// the pod's state. [Decode] returns one.
type Pod struct {
	inject.Pod
	Record Record
}

// Record holds the fields that only a stored pod has.
type Record struct {
	Metadata struct {
		UID               types.UID               `json:"uid"`
		ResourceVersion   string                  `json:"resourceVersion"`
		CreationTimestamp time.Time               `json:"creationTimestamp"`
		DeletionTimestamp time.Time               `json:"deletionTimestamp,omitzero"`
		OwnerReferences   []metav1.OwnerReference `json:"ownerReferences"`
	} `json:"metadata"`
	Status struct {
		Phase      corev1.PodPhase `json:"phase"`
		PodIP      string          `json:"podIP"`
		Conditions []struct {
			Type   corev1.PodConditionType `json:"type"`
			Status corev1.ConditionStatus  `json:"status"`
		} `json:"conditions"`
		// In the order of the pod's init containers.
		InitContainerStatuses []containerStatus `json:"initContainerStatuses"`
	} `json:"status"`
}

type containerStatus struct {
	Name         string                `json:"name"`
	Started      bool                  `json:"started"`
	RestartCount int                   `json:"restartCount"`
	State        corev1.ContainerState `json:"state"`
}

// decodeOptions skip checks, because the API server has made them.
var decodeOptions = json.JoinOptions(jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))

// Decode reads a v1.Pod.
func Decode(data []byte) (*Pod, error) {
	var p Pod
	if err := json.Unmarshal(data, &p.Pod, decodeOptions); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(data, &p.Record, decodeOptions); err != nil {
		return nil, err
	}
	return &p, nil
}

func (p *Pod) serviceAccount() string {
	if p.Spec.ServiceAccountName == "" {
		return "default"
	}
	return p.Spec.ServiceAccountName
}

// concerned reports whether a decision about the pod can have a result other than silence.
func (p *Pod) concerned() bool {
	_, prometheus := inject.Prometheus(&p.Pod)
	_, asks := p.Metadata.Annotations[policy.AnnotationInject]
	return prometheus || asks || inject.Resembles(&p.Pod) != ""
}

func (p *Pod) terminating() bool { return !p.Record.Metadata.DeletionTimestamp.IsZero() }

// ended reports whether the auditor can do nothing about the pod: it has ended, or it is a
// static pod, which the kubelet creates itself.
func (p *Pod) ended() bool {
	phase := p.Record.Status.Phase
	_, static := p.Metadata.Annotations[corev1.MirrorPodAnnotationKey]
	return p.terminating() || static || phase == corev1.PodSucceeded || phase == corev1.PodFailed
}

func (p *Pod) ready() bool {
	for _, c := range p.Record.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// controller returns the owner that creates the pod again; nil if there is none.
func (p *Pod) controller() *metav1.OwnerReference {
	for i := range p.Record.Metadata.OwnerReferences {
		if o := &p.Record.Metadata.OwnerReferences[i]; o.Controller != nil && *o.Controller {
			return o
		}
	}
	return nil
}

func (p *Pod) workload() breaker.Workload {
	var kind, name string
	if c := p.controller(); c != nil {
		kind, name = c.Kind, c.Name
	}
	return breaker.Of(p.Metadata.Namespace, p.Metadata.Name, kind, name, p.Metadata.Labels)
}

func (p *Pod) sidecarImage() string {
	for _, c := range p.Spec.InitContainers {
		if c.Name == sidecarconfig.ContainerName {
			return c.Image
		}
	}
	return ""
}

// Pulling is the cause if a sidecar hangs because its image is still being downloaded. It is
// ampbridge's own word: the kubelet reports PodInitializing for everything that waits. It also does
// so for minutes if a registry does not answer; containerd gives up after five.
const Pulling policy.Reason = "Pulling"

// waitsForNothing are reasons of the kubelet for a waiting container. With one of them, the
// container does not start without a change. While the pod's volumes are prepared, or earlier init
// containers run, the reason is PodInitializing, which can be normal for minutes.
var waitsForNothing = map[string]bool{
	"ErrImagePull": true, "ImagePullBackOff": true, "InvalidImageName": true, "ErrImageNeverPull": true,
	"ImageInspectError": true, "RegistryUnavailable": true, "SignatureValidationFailed": true,
	"CreateContainerConfigError": true, "CreateContainerError": true, "RunContainerError": true, "CrashLoopBackOff": true,
}

// readyToStart reports whether the pod has its volumes and its network, so that its
// first init container can start. Kubelets report it since Kubernetes 1.29.
func (p *Pod) readyToStart() bool {
	for _, c := range p.Record.Status.Conditions {
		if c.Type == corev1.PodReadyToStartContainers {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// Hangs reports whether the config sidecar prevents the pod from starting, with the cause in one
// word and the kubelet's message. For a moment that is normal, so the
// caller measures how long it lasts.
func (p *Pod) Hangs() (cause, message string, hangs bool) {
	if p.Record.Status.Phase != corev1.PodPending {
		return "", "", false // Prometheus has started
	}
	turn := p.readyToStart()
	for _, s := range p.Record.Status.InitContainerStatuses {
		if s.Name != sidecarconfig.ContainerName || s.Started {
			turn = turn && (s.Started || s.State.Terminated != nil && s.State.Terminated.ExitCode == 0)
			continue
		}
		switch w, t := s.State.Waiting, s.State.Terminated; {
		case w != nil && w.Reason == "PodInitializing" && turn:
			return string(
					Pulling,
				), "the pod waits for nothing else, but the image " + p.sidecarImage() + " has not arrived yet; the registry " +
					"may not answer", true
		case w != nil && waitsForNothing[w.Reason]:
			return w.Reason, w.Message, true
		case t != nil:
			return "Ended", t.Message, true
		case s.State.Running != nil && s.RestartCount > 0:
			return "Restarting", "", true
		case s.State.Running != nil:
			return "NotStarted", "", true
		}
	}
	return "", "", false
}

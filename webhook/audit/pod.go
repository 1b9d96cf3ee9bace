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

// Pod is a stored pod, as far as an audit looks at it: what injection sees, and
// what became of it since. [Decode] makes one.
type Pod struct {
	inject.Pod
	Record Record
}

// Record is what only a stored pod has.
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

// decodeOptions: what the API server sends has been checked by it.
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

// concerned reports whether a decision about the pod can be anything but silence.
func (p *Pod) concerned() bool {
	_, prometheus := inject.Prometheus(&p.Pod)
	_, asks := p.Metadata.Annotations[policy.AnnotationInject]
	return prometheus || asks || inject.Resembles(&p.Pod) != ""
}

func (p *Pod) terminating() bool { return !p.Record.Metadata.DeletionTimestamp.IsZero() }

// ended reports whether nothing that is done to the pod matters any more, or ever
// did: the kubelet makes static pods by itself.
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

// controller is the owner that creates the pod anew; nil: nobody does.
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

// Pulling is why a sidecar hangs whose image is on its way: a word of our own, as
// the kubelet says PodInitializing of all that waits. A registry that does not
// answer is no error to it for minutes: containerd gives up after five.
const Pulling policy.Reason = "Pulling"

// waitsForNothing are the kubelet's reasons for a container to wait that time
// alone does not cure. While volumes are on their way, or init containers before
// it run, the reason is PodInitializing, and may rightly be so for minutes.
var waitsForNothing = map[string]bool{
	"ErrImagePull": true, "ImagePullBackOff": true, "InvalidImageName": true, "ErrImageNeverPull": true,
	"ImageInspectError": true, "RegistryUnavailable": true, "SignatureValidationFailed": true,
	"CreateContainerConfigError": true, "CreateContainerError": true, "RunContainerError": true, "CrashLoopBackOff": true,
}

// readyToStart reports whether the pod has its volumes and its network, so that its
// first init container's turn has come. Kubelets say so from Kubernetes 1.29 on.
func (p *Pod) readyToStart() bool {
	for _, c := range p.Record.Status.Conditions {
		if c.Type == corev1.PodReadyToStartContainers {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// Hangs reports whether the pod is kept from starting by the config sidecar, and
// how, in one word and in the kubelet's words. A moment of it is normal: the
// caller measures for how long it holds.
func (p *Pod) Hangs() (cause, message string, hangs bool) {
	if p.Record.Status.Phase != corev1.PodPending {
		return "", "", false // Prometheus was started
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
			), "nothing else is left to wait for, but its image " + p.sidecarImage() + " is not there yet; the registry may not answer", true
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

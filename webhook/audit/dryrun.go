package audit

import (
	"context"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/webhook/inject"
)

// trySuccessor asks the API server, in a dry run, what it would say to the pod that
// comes in the place of an evicted one. Nothing is stored, and nothing starts. An empty
// answer means that the successor would be admitted and injected; every other one is why
// the pod must stay: eviction would take a running Prometheus down, or change nothing.
func (c cluster) trySuccessor(ctx context.Context, o *observed) (why string, err error) {
	namespace := o.workload.Namespace
	owner, err := c.controlled(ctx, namespace, *o.controller)
	var unknown unknownKindError
	switch {
	case errors.As(err, &unknown):
		return "what would come in its place is not known: " + unknown.Error(), nil
	case apierrors.IsNotFound(err):
		return "its controller is gone, and so nothing would come in its place", nil
	case err != nil:
		return "", fmt.Errorf("read %s %s of namespace %s: %w", o.controller.Kind, o.controller.Name, namespace, err)
	case owner.uid != o.controller.UID:
		return "its controller is gone, and so nothing would come in its place", nil
	case owner.revision != "" && owner.revision != o.template:
		return "its StatefulSet is being rolled out, or waits for that: the pod is replaced then", nil
	}
	pod, err := c.Pods(namespace).Create(ctx, owner.pod(namespace, o.name), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	switch {
	case err == nil:
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "cannot create resource"):
		return "the auditor lacks the right to try its successor in a dry run (create pods): the chart gives it with " +
			"policy.audit.repair: evict", nil
	case apierrors.IsBadRequest(err) && strings.Contains(err.Error(), "dry run"):
		return "its successor cannot be tried, because a webhook takes no dry runs: " + shorten(err.Error(), 300), nil
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		by, text, plausible := Blame(err.Error())
		if !plausible {
			by, text = "the API server", shorten(err.Error(), 300)
		}
		return fmt.Sprintf("its successor would be refused by %s: %s", by, text), nil
	default:
		// A webhook that does not answer, a timeout: the next round asks again.
		return "its successor cannot be tried: " + shorten(err.Error(), 300), nil
	}
	if _, injected := pod.Annotations[inject.AnnotationInjected]; !injected {
		return "its successor would not be injected either: the webhook does not answer, or skips it", nil
	}
	return "", nil
}

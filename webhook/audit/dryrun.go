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

// trySuccessor creates the successor of a pod in a dry run, in which the API server stores nothing
// and starts nothing. If why is empty, the successor would be admitted and injected. Otherwise why
// is the reason to keep the pod: an eviction would stop a running Prometheus, or change nothing.
func (c cluster) trySuccessor(ctx context.Context, o *observed) (why string, err error) {
	namespace := o.workload.Namespace
	owner, err := c.controlled(ctx, namespace, *o.controller)
	var unknown unknownKindError
	switch {
	case errors.As(err, &unknown):
		return "its successor is not known: " + unknown.Error(), nil
	case apierrors.IsNotFound(err):
		return "its controller was deleted, so it would have no successor", nil
	case err != nil:
		return "", fmt.Errorf("read %s %s of namespace %s: %w", o.controller.Kind, o.controller.Name, namespace, err)
	case owner.uid != o.controller.UID:
		return "its controller was deleted, so it would have no successor", nil
	case owner.revision != "" && owner.revision != o.template:
		return "its StatefulSet is being rolled out, or waits for a rollout, which replaces the pod", nil
	}
	pod, err := c.Pods(namespace).Create(ctx, owner.pod(namespace, o.name), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	switch {
	case err == nil:
	case apierrors.IsForbidden(err) && strings.Contains(err.Error(), "cannot create resource"):
		return "the auditor lacks the right to create its successor in a dry run (create pods): the chart grants it with " +
			"policy.audit.repair: evict", nil
	case apierrors.IsBadRequest(err) && strings.Contains(err.Error(), "dry run"):
		return "its successor cannot be tried, because a webhook does not support dry runs: " + shorten(err.Error(), 300), nil
	case apierrors.IsForbidden(err), apierrors.IsInvalid(err), apierrors.IsBadRequest(err):
		by, text, plausible := Blame(err.Error())
		if !plausible {
			by, text = "the API server", shorten(err.Error(), 300)
		}
		return fmt.Sprintf("its successor would be refused by %s: %s", by, text), nil
	default:
		// A webhook does not answer, or a timeout: the next round tries again.
		return "its successor cannot be tried: " + shorten(err.Error(), 300), nil
	}
	if _, injected := pod.Annotations[inject.AnnotationInjected]; !injected {
		return "its successor would not be injected either: the webhook does not answer, or skips it", nil
	}
	return "", nil
}

package chart

import (
	"context"
	"maps"
	"slices"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applycoordinationv1 "k8s.io/client-go/applyconfigurations/coordination/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
)

// call is something that an account tries.
type call func(context.Context) error

// allowed makes the calls, and none fails.
func allowed(t *testing.T, calls map[string]call) {
	t.Helper()
	for what, try := range calls {
		if err := try(t.Context()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func tryGet[T any](api func(context.Context, string, metav1.GetOptions) (T, error), name string) call {
	return func(ctx context.Context) error {
		_, err := api(ctx, name, metav1.GetOptions{})
		return err
	}
}

func tryList[T any](api func(context.Context, metav1.ListOptions) (T, error)) call {
	return func(ctx context.Context) error {
		_, err := api(ctx, metav1.ListOptions{})
		return err
	}
}

func tryCreate[T any](api func(context.Context, T, metav1.CreateOptions) (T, error), object T) call {
	return func(ctx context.Context) error {
		_, err := api(ctx, object, metav1.CreateOptions{})
		return err
	}
}

func tryUpdate[T any](api func(context.Context, T, metav1.UpdateOptions) (T, error), object T) call {
	return func(ctx context.Context) error {
		_, err := api(ctx, object, metav1.UpdateOptions{})
		return err
	}
}

func tryApply[C, T any](api func(context.Context, C, metav1.ApplyOptions) (T, error), object C) call {
	return func(ctx context.Context) error {
		_, err := api(ctx, object, metav1.ApplyOptions{FieldManager: "test", DryRun: []string{metav1.DryRunAll}})
		return err
	}
}

func tryPatch[T any](
	api func(context.Context, string, types.PatchType, []byte, metav1.PatchOptions, ...string) (T, error), name, patch string,
) call {
	return func(ctx context.Context) error {
		_, err := api(ctx, name, types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		return err
	}
}

// tryRewrite reads an object and writes it as it is.
func tryRewrite[T any](
	get func(context.Context, string, metav1.GetOptions) (T, error), update func(context.Context, T, metav1.UpdateOptions) (T, error),
	name string,
) call {
	return func(ctx context.Context) error {
		object, err := get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return tryUpdate(update, object)(ctx)
	}
}

func tryDelete(api func(context.Context, string, metav1.DeleteOptions) error, name string) call {
	return func(ctx context.Context) error { return api(ctx, name, metav1.DeleteOptions{}) }
}

// forbidden makes the calls, and the API server forbids each of them to the account.
func (f *fixture) forbidden(t *testing.T, account string, calls map[string]call) {
	t.Helper()
	for _, what := range slices.Sorted(maps.Keys(calls)) {
		if err := calls[what](t.Context()); !apierrors.IsForbidden(err) {
			t.Errorf("%s is not forbidden to %s: %v", account, what, err)
		}
	}
}

func applySecret(c kubernetes.Interface, name string) call {
	return tryApply(c.CoreV1().Secrets(namespace).Apply, applycorev1.Secret(name, namespace))
}

func applyLease(c kubernetes.Interface, name string) call {
	return tryApply(c.CoordinationV1().Leases(namespace).Apply, applycoordinationv1.Lease(name, namespace))
}

func evict(c kubernetes.Interface, namespace string) call {
	return func(ctx context.Context) error {
		return c.CoreV1().Pods(namespace).EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "any"}})
	}
}

func token(c kubernetes.Interface, namespace, account string) call {
	return func(ctx context.Context) error {
		_, err := c.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
		return err
	}
}

func patchRegistration(c kubernetes.Interface, name string) call {
	return tryPatch(c.AdmissionregistrationV1().MutatingWebhookConfigurations().Patch, name, `{"webhooks":[]}`)
}

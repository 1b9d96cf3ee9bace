package kinds_test

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
	"sigs.k8s.io/yaml"

	"github.com/go-logr/logr"

	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/kubelet"
	"github.com/ampbridge/ampbridge/test/tools"
)

// scene is a stage whose trust is in place, with a node's worth of images and a
// client for objects of every kind.
type scene struct {
	*env.Stage
	client client.Client
}

// serviceAccounts are those that the rows' pods run as: the chart brings its own.
var serviceAccounts = []string{env.ServiceAccount, "prometheus-server"}

func newScene(t *testing.T) *scene {
	t.Helper()
	log.SetLogger(logr.Discard()) // the client's, which says much otherwise
	ctx := t.Context()
	s := env.Start(t, env.Options{})
	for tool, tag := range map[string]string{"prometheus-3.1": sdkV1, "prometheus-2.42": "v2.42.0"} {
		if err := s.AddPrometheus(ctx, tool, tag); err != nil {
			t.Fatal(err)
		}
	}
	s.AddImage(kubelet.Image{Match: "busybox/prometheus", Binaries: map[string]string{
		"/bin/prometheus": tools.Path(t, "prometheus"), "/bin/sh": tools.Path(t, "gosh"),
	}, Entrypoint: []string{"/bin/prometheus"}, WorkingDir: "/prometheus", User: 65534})
	s.AddImage(kubelet.Image{Match: "jimmidyson/configmap-reload", Binaries: map[string]string{"/configmap-reload": buildReloader(t)},
		Entrypoint: []string{"/configmap-reload"}, User: 65534})
	if err := s.CreateServiceAccount(ctx, env.Namespace, "prometheus-server"); err != nil {
		t.Fatal(err)
	}
	if err := s.SetPolicy(policy(s)); err != nil {
		t.Fatal(err)
	}
	if out, err := s.Sync(ctx); err != nil {
		t.Fatal(out, err)
	}
	c, err := client.New(s.Cluster.Config(), client.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &scene{s, c}
}

// policy grants all the service accounts.
func policy(s *env.Stage) string {
	return strings.Replace(s.Policy(), "serviceAccounts: ["+env.ServiceAccount+"]", "serviceAccounts: ["+strings.Join(serviceAccounts, ", ")+"]", 1)
}

func buildReloader(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "configmap-reload")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./reloader")
	build.Env = append(build.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// objects reads the documents of a YAML file.
func objects(file []byte) ([]*unstructured.Unstructured, error) {
	var all []*unstructured.Unstructured
	for _, document := range strings.Split("\n"+string(file), "\n---") {
		object := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(document), &object.Object); err != nil {
			return nil, err
		}
		if len(object.Object) > 0 {
			all = append(all, object)
		}
	}
	return all, nil
}

// create makes an object that goes with the test.
func (s *scene) create(t testing.TB, object client.Object) error {
	if err := s.client.Create(t.Context(), object); err != nil {
		return fmt.Errorf("%s %s: %w", object.GetObjectKind().GroupVersionKind().Kind, object.GetName(), err)
	}
	t.Cleanup(func() {
		background := client.PropagationPolicy(metav1.DeletePropagationBackground)
		if err := s.client.Delete(context.WithoutCancel(t.Context()), object, background); err != nil {
			t.Error(err)
		}
	})
	return nil
}

// setSecret changes a key of a Secret, and setConfigMap one of a ConfigMap.
func (s *scene) setSecret(ctx context.Context, name, key string, value []byte) error {
	secret := &corev1.Secret{}
	if err := s.client.Get(ctx, client.ObjectKey{Namespace: env.Namespace, Name: name}, secret); err != nil {
		return err
	}
	secret.Data[key] = value
	return s.client.Update(ctx, secret)
}

func (s *scene) setConfigMap(ctx context.Context, name, key, value string) error {
	config := &corev1.ConfigMap{}
	if err := s.client.Get(ctx, client.ObjectKey{Namespace: env.Namespace, Name: name}, config); err != nil {
		return err
	}
	config.Data[key] = value
	return s.client.Update(ctx, config)
}

// awaitPod waits for the pod that a controller makes. Nobody schedules it, and
// nobody needs to.
func (s *scene) awaitPod(ctx context.Context, prefix string) (*corev1.Pod, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		pods := &corev1.PodList{}
		if err := s.client.List(ctx, pods, client.InNamespace(env.Namespace)); err != nil {
			return nil, err
		}
		for i := range pods.Items {
			if p := &pods.Items[i]; strings.HasPrefix(p.Name, prefix) && p.DeletionTimestamp == nil {
				return p, nil
			}
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("no pod %s…: %w", prefix, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// node makes a node that DaemonSets put a pod on. It is ready as long as its
// tests take.
func (s *scene) node(t testing.TB, name string) error {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"kubernetes.io/os": "linux"}}}
	if err := s.create(t, node); err != nil {
		return err
	}
	ready := []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now()}}
	if err := retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if err := s.client.Get(t.Context(), client.ObjectKeyFromObject(node), node); err != nil {
			return err
		}
		node.Status.Conditions = ready
		return s.client.Status().Update(t.Context(), node)
	}); err != nil {
		return err
	}
	// Admission taints new nodes as not ready, until a kubelet reports; Kubernetes's
	// controllers write to them too.
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		if err := s.client.Get(t.Context(), client.ObjectKeyFromObject(node), node); err != nil {
			return err
		}
		node.Spec.Taints = nil
		return s.client.Update(t.Context(), node)
	})
}

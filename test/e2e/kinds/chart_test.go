package kinds_test

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/ampbridge/ampbridge/test/env"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// variant changes the chart's objects as a user's values would.
type variant func(objects map[string]*unstructured.Unstructured) error

// chart returns a function that lets Kubernetes's own controllers create the pod from the chart's manifests.
func chart(file string, change variant) func(*fixture, asked) (made, error) {
	return func(f *fixture, a asked) (made, error) {
		kinds := map[string]*unstructured.Unstructured{}
		for _, object := range objects(a, testkit.ReadFile(a, "testdata/"+file)) {
			object.SetNamespace(env.Namespace)
			kinds[object.GetKind()] = object
		}
		config, err := chartConfig(kinds["ConfigMap"])
		if err != nil {
			return made{}, err
		}
		if err := unstructured.SetNestedField(kinds["ConfigMap"].Object, config(a.config), "data", "prometheus.yml"); err != nil {
			return made{}, err
		}
		// The pod needs none of these here. The service account belongs to the fixture.
		for _, kind := range []string{"ServiceAccount", "Service", "PersistentVolumeClaim", "ClusterRole", "ClusterRoleBinding"} {
			delete(kinds, kind)
		}
		owner := kinds["Deployment"]
		if owner == nil {
			owner = kinds["DaemonSet"]
			if err := f.node(a, a.name); err != nil {
				return made{}, err
			}
		}
		// Every row has its own name and selects its own pods.
		owner.SetName(a.name)
		kinds["ConfigMap"].SetName(a.name)
		for _, at := range [][]string{{"spec", "selector", "matchLabels"}, {"spec", "template", "metadata", "labels"}} {
			if err := unstructured.SetNestedField(owner.Object, a.name, append(at, "app.kubernetes.io/instance")...); err != nil {
				return made{}, err
			}
		}
		// The label has the version of the row's image, as the chart has the version of its default image.
		version := []string{"spec", "template", "metadata", "labels", "app.kubernetes.io/version"}
		if err := unstructured.SetNestedField(owner.Object, a.tag, version...); err != nil {
			return made{}, err
		}
		if err := editTemplate(owner, func(spec map[string]any) {
			volume(spec, "config-volume")["configMap"] = map[string]any{"name": a.name}
			container(spec, "prometheus-server")["image"] = "quay.io/prometheus/prometheus:" + a.tag
		}); err != nil {
			return made{}, err
		}
		if err := change(kinds); err != nil {
			return made{}, err
		}
		secret := kinds["Secret"] != nil
		for _, object := range kinds {
			if err := f.create(a, object); err != nil {
				return made{}, err
			}
		}
		pod, err := f.podOf(a.Context(), a.name+"-", a.name)
		if err != nil {
			return made{}, err
		}
		return made{pod: pod, set: func(ctx context.Context, text string) error {
			if secret {
				return f.setSecret(ctx, a.name, "prometheus.yml", []byte(config(text)))
			}
			return f.setConfigMap(ctx, a.name, "prometheus.yml", config(text))
		}}, nil
	}
}

// chartConfig returns a function that creates the chart's own configuration with all its jobs. The job with
// which the row scrapes itself replaces the chart's.
func chartConfig(configMap *unstructured.Unstructured) (func(config string) string, error) {
	text, found, err := unstructured.NestedString(configMap.Object, "data", "prometheus.yml")
	own := "- job_name: prometheus\n  static_configs:\n  - targets:\n    - localhost:9090\n"
	if err != nil || !found || !strings.Contains(text, own) {
		return nil, fmt.Errorf("the chart's configuration has no job that scrapes itself: %w", err)
	}
	text = strings.Replace(text, "scrape_interval: 1m", "scrape_interval: 1s", 1)
	text = strings.Replace(text, "scrape_timeout: 10s", "scrape_timeout: 1s", 1)
	return func(config string) string { return strings.Replace(text, own, jobs(config), 1) }, nil
}

func asIs(map[string]*unstructured.Unstructured) error { return nil }

// asStatefulSet changes what the chart's server.statefulSet.enabled changes.
func asStatefulSet(kinds map[string]*unstructured.Unstructured) error {
	owner := kinds["Deployment"]
	owner.SetKind("StatefulSet")
	unstructured.RemoveNestedField(owner.Object, "spec", "strategy")
	return unstructured.SetNestedField(owner.Object, owner.GetName(), "spec", "serviceName")
}

// fromSecret moves the configuration to a Secret, which the chart's volumes can use instead of the ConfigMap.
func fromSecret(kinds map[string]*unstructured.Unstructured) error {
	secret := kinds["ConfigMap"]
	delete(kinds, "ConfigMap")
	kinds["Secret"] = secret
	secret.SetKind("Secret")
	secret.Object["stringData"] = secret.Object["data"]
	delete(secret.Object, "data")
	return editTemplate(kinds["Deployment"], func(spec map[string]any) {
		config := volume(spec, "config-volume")
		delete(config, "configMap")
		config["secret"] = map[string]any{"secretName": secret.GetName()}
	})
}

// withConfigmapReload uses the reloader of the chart's older releases.
func withConfigmapReload(kinds map[string]*unstructured.Unstructured) error {
	return editTemplate(kinds["Deployment"], func(spec map[string]any) {
		reloader := container(spec, "prometheus-server-configmap-reload")
		reloader["image"] = "jimmidyson/configmap-reload:v0.8.0"
		reloader["args"] = []any{"--volume-dir=/etc/config", "--webhook-url=http://127.0.0.1:9090/-/reload"}
		delete(reloader, "ports")
		delete(reloader, "livenessProbe")
		delete(reloader, "readinessProbe")
	})
}

// withOldLabel changes what the chart's server.image.tag changes: the label stays unchanged.
func withOldLabel(kinds map[string]*unstructured.Unstructured) error {
	return unstructured.SetNestedField(
		kinds["Deployment"].Object, "v3.14.0", "spec", "template", "metadata", "labels", "app.kubernetes.io/version",
	)
}

// editTemplate changes the spec of the pods that an object creates.
func editTemplate(owner *unstructured.Unstructured, edit func(spec map[string]any)) error {
	spec, found, err := unstructured.NestedMap(owner.Object, "spec", "template", "spec")
	if err != nil || !found {
		return fmt.Errorf("%s has no template: %w", owner.GetKind(), err)
	}
	edit(spec)
	return unstructured.SetNestedMap(owner.Object, spec, "spec", "template", "spec")
}

func container(spec map[string]any, name string) map[string]any {
	return named(spec, "containers", name)
}
func volume(spec map[string]any, name string) map[string]any { return named(spec, "volumes", name) }

func named(spec map[string]any, list, name string) map[string]any {
	for _, item := range spec[list].([]any) {
		if item := item.(map[string]any); item["name"] == name {
			return item
		}
	}
	panic(fmt.Sprintf("no %s among the %s", name, list))
}

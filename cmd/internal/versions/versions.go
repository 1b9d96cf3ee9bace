// Package versions reads which versions of ampbridge and of Kubernetes a cluster runs, and
// warns of those that do not go together.
//
// It must be allowed to list deployments and cronjobs in ampbridge's own namespace,
// namespaces, and pods in the namespaces with the label for injection. It reports what it
// cannot read as unavailable.
package versions

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/version"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
)

// OldestKubernetes is the oldest version of Kubernetes that ampbridge supports.
const OldestKubernetes = "1.30"

// Report has the versions of this program and of a cluster.
type Report struct {
	Client Client `json:"client"`
	// Cluster is missing if it was not asked, or cannot be reached.
	Cluster *Cluster `json:"cluster,omitempty"`
	// Unavailable lists what could not be read, and why.
	Unavailable []string `json:"unavailable"`
	Warnings    []string `json:"warnings"`
}

// Client is this program.
type Client struct {
	// Version is that of the release, or what Go knows of an unreleased build.
	Version  string `json:"version"`
	Commit   string `json:"commit,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// String returns all in one line.
func (c Client) String() string {
	text := c.Version + " (" + c.Go
	if c.Commit != "" {
		text += ", commit " + c.Commit
	}
	if c.Modified {
		text += ", modified"
	}
	return text + ")"
}

// Cluster is what runs in a cluster.
type Cluster struct {
	Kubernetes string `json:"kubernetes"`
	// Namespace is ampbridge's own.
	Namespace string `json:"namespace"`
	// Chart is the chart with its version, such as ampbridge-0.1.0; empty: none is installed.
	Chart string `json:"chart,omitempty"`
	// Version is the version of ampbridge that the chart installs.
	Version string `json:"version,omitempty"`
	// Webhook and Sync are their images; empty: not installed.
	Webhook string `json:"webhook,omitempty"`
	Sync    string `json:"sync,omitempty"`
	// Sidecar is the image that the webhook injects.
	Sidecar string `json:"sidecar,omitempty"`
	// Sidecars are the images of the sidecars that run.
	Sidecars []Sidecars `json:"sidecars"`
}

// Sidecars counts the pods whose sidecar has an image.
type Sidecars struct {
	Image string `json:"image"`
	Pods  int    `json:"pods"`
}

// Read returns what the cluster runs. The namespace is ampbridge's own. It fails if the API
// server does not answer.
func (r *Report) Read(ctx context.Context, cluster kube.Cluster, namespace string) error {
	server, err := cluster.Client.Discovery().ServerVersion()
	if err != nil {
		return err
	}
	r.Cluster = &Cluster{Kubernetes: server.GitVersion, Namespace: namespace, Sidecars: []Sidecars{}}
	for what, read := range map[string]func(context.Context, kube.Cluster) error{
		"the webhook": r.Cluster.readWebhook, "sync": r.Cluster.readSync, "the sidecars": r.Cluster.readSidecars,
	} {
		if err := read(ctx, cluster); err != nil {
			r.Unavailable = append(r.Unavailable, fmt.Sprintf("%s: %v", what, err))
		}
	}
	slices.Sort(r.Unavailable)
	r.warn()
	return nil
}

func (c *Cluster) readWebhook(ctx context.Context, cluster kube.Cluster) error {
	return c.readDeployments(ctx, cluster, kube.WebhookSelector, func(d *appsv1.Deployment) {
		c.Webhook = image(d.Spec.Template.Spec)
		c.Sidecar = kube.InjectedImage(d)
	})
}

func (c *Cluster) readSync(ctx context.Context, cluster kube.Cluster) error {
	if err := c.readDeployments(ctx, cluster, kube.SyncSelector, func(d *appsv1.Deployment) {
		c.Sync = image(d.Spec.Template.Spec)
	}); err != nil {
		return err
	}
	options := metav1.ListOptions{LabelSelector: kube.SyncSelector}
	jobs, err := cluster.Client.BatchV1().CronJobs(c.Namespace).List(ctx, options)
	if err != nil {
		return err
	}
	for i := range jobs.Items {
		c.chart(jobs.Items[i].Labels)
		c.Sync = image(jobs.Items[i].Spec.JobTemplate.Spec.Template.Spec)
	}
	return nil
}

// readDeployments reads the chart and calls read for each Deployment that the selector selects.
func (c *Cluster) readDeployments(
	ctx context.Context, cluster kube.Cluster, selector string, read func(*appsv1.Deployment),
) error {
	list, err := cluster.Client.AppsV1().Deployments(c.Namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return err
	}
	for i := range list.Items {
		c.chart(list.Items[i].Labels)
		read(&list.Items[i])
	}
	return nil
}

// readSidecars counts the images of the sidecars that run.
func (c *Cluster) readSidecars(ctx context.Context, cluster kube.Cluster) error {
	options := metav1.ListOptions{LabelSelector: kube.InjectionSelector}
	namespaces, err := cluster.Client.CoreV1().Namespaces().List(ctx, options)
	if err != nil {
		return err
	}
	counts := map[string]int{}
	var failures []error
	for i := range namespaces.Items {
		failures = append(failures, cluster.EachPod(ctx, namespaces.Items[i].Name, func(pod *corev1.Pod) error {
			if image := kube.SidecarImage(pod); image != "" {
				counts[image]++
			}
			return nil
		}))
	}
	for image, pods := range counts {
		c.Sidecars = append(c.Sidecars, Sidecars{image, pods})
	}
	slices.SortFunc(c.Sidecars, func(a, b Sidecars) int {
		return cmp.Or(b.Pods-a.Pods, strings.Compare(a.Image, b.Image))
	})
	return errors.Join(failures...)
}

// chart takes the versions from the labels of an object of the chart.
func (c *Cluster) chart(labels map[string]string) {
	c.Chart = cmp.Or(c.Chart, labels["helm.sh/chart"])
	c.Version = cmp.Or(c.Version, labels["app.kubernetes.io/version"])
}

// image returns the image of the first container.
func image(spec corev1.PodSpec) string {
	if len(spec.Containers) == 0 {
		return ""
	}
	return spec.Containers[0].Image
}

// warn adds a warning for each pair of versions that do not go together.
func (r *Report) warn() {
	c := r.Cluster
	add := func(format string, args ...any) { r.Warnings = append(r.Warnings, fmt.Sprintf(format, args...)) }
	if minor, ok := minorOf(c.Kubernetes); ok && minor.LessThan(version.MustParseGeneric(OldestKubernetes)) {
		add("Kubernetes %s is older than %s, the oldest version that ampbridge supports", c.Kubernetes, OldestKubernetes)
	}
	here, released := minorOf(r.Client.Version)
	there, installed := minorOf(c.Version)
	if released && installed && !here.EqualTo(there) {
		older, newer := "this program", "the installation"
		if there.LessThan(here) {
			older, newer = newer, older
		}
		add("this program is %s and the installation is %s: %s may not know what %s does; "+
			"use the program of the installation's version", r.Client.Version, c.Version, older, newer)
	}
	if c.Webhook != "" && c.Sync != "" && c.Webhook != c.Sync {
		add("webhook and sync have different images: finish the upgrade with helm upgrade")
	}
	for _, s := range c.Sidecars {
		if c.Sidecar != "" && s.Image != c.Sidecar {
			add("%d pods run the sidecar %s, and the webhook injects %s now: restart their workloads "+
				"(this is expected if the policy sets sidecar.image)", s.Pods, s.Image, c.Sidecar)
		}
	}
}

// minorOf returns major and minor version of a text such as v1.34.1-eks; false: it has none.
func minorOf(text string) (*version.Version, bool) {
	v, err := version.ParseGeneric(text)
	if err != nil || v.Major() == 0 && v.Minor() == 0 {
		return nil, false // such as v0.0.0 with the time of a commit
	}
	return version.MajorMinor(v.Major(), v.Minor()), true
}

// Write writes the report as text.
func (r *Report) Write(w io.Writer) error {
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "%-11s %s\n", name, value) }
	line("ampbridge", r.Client.String())
	if c := r.Cluster; c != nil {
		none := "none in namespace " + c.Namespace
		line("kubernetes", c.Kubernetes)
		line("chart", cmp.Or(c.Chart, none))
		line("webhook", cmp.Or(c.Webhook, none))
		line("sync", cmp.Or(c.Sync, none))
		if c.Sidecar != "" {
			line("sidecar", c.Sidecar)
		}
		for _, s := range c.Sidecars {
			line("running", fmt.Sprintf("%s in %d pods", s.Image, s.Pods))
		}
	}
	for _, text := range r.Unavailable {
		line("unavailable", text)
	}
	for _, text := range r.Warnings {
		line("warning", text)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

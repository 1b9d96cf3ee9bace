//go:build linux && e2e

package install

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/node"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

const (
	release         = "ampbridge"
	systemNamespace = "ampbridge-system"
	// monitoring is the tenants' namespace: it has the label and the grant, and enforces the restricted pod
	// security standard.
	monitoring = "monitoring"
)

// restricted are the labels with which a namespace enforces the restricted standard.
var restricted = map[string]string{
	"pod-security.kubernetes.io/enforce": "restricted", "pod-security.kubernetes.io/enforce-version": "latest",
}

// An environment is one of several clusters that write to one workspace, with ampbridge in it.
type environment struct {
	*testing.T
	*node.Node
	name      string
	issuer    policy.Issuer
	cloud     *awstest.Cloud
	workspace policy.Workspace
	objects   client.Client
	values    string          // the file with the values
	found     map[string]bool // the inventory before the chart is installed
	started   time.Time
	links     atomic.Int32
}

// bare starts a cluster without anything of ampbridge. Its issuer is public. change, if set, changes the
// options of the node.
func bare(t *testing.T, cloud *awstest.Cloud, name, issuer string, images []string, change ...func(*node.Options)) *environment {
	t.Helper()
	e := &environment{T: t, name: name, issuer: policy.Issuer(issuer), cloud: cloud, started: time.Now()}
	issuerHost, _, _ := strings.Cut(e.issuer.Host(), "/")
	hosts := map[string]string{issuerHost: node.SecondAddress}
	for _, name := range awsHosts {
		hosts[name] = node.Address
	}
	options := node.Options{Cluster: cluster.Options{Issuer: issuer}, Images: images, Hosts: hosts}
	for _, c := range change {
		c(&options)
	}
	e.Node = node.Start(t, options)
	e.proved("a real cluster: API server, kubelet, containerd, kube-proxy, DNS; %s is at %s", awsHosts[0], node.Address)
	t.Cleanup(func() {
		if t.Failed() {
			e.report()
		}
	})
	e.check(cloud.RegisterIssuer(issuer, e.OIDC(), awstest.PublicCA))
	publish(t, cloud, issuerHost)
	e.proved("the issuer %s publishes its keys", issuer)
	var err error
	if e.objects, err = client.New(e.Config(), client.Options{}); err != nil {
		t.Fatal(err)
	}
	return e
}

// start does what precedes the chart: the step of the central account's administrator, and the namespaces.
func start(t *testing.T, cloud *awstest.Cloud, workspace policy.Workspace, name, issuer string, images []string) *environment {
	t.Helper()
	e := bare(t, cloud, name, issuer, images)
	e.workspace = workspace
	e.must(e.Namespace(t.Context(), systemNamespace, restricted))
	labels := map[string]string{policy.LabelInjection: string(policy.InjectionEnabled)}
	maps.Copy(labels, restricted)
	e.must(e.Namespace(t.Context(), monitoring, labels))

	e.writeValues()
	e.bootstrap()
	e.writeValues()
	e.check(e.Client().CoreV1().ConfigMaps(systemNamespace).Create(t.Context(), &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "aws-ca"}, Data: map[string]string{"ca.pem": string(cloud.CA)},
	}, metav1.CreateOptions{}))
	e.found = e.inventory()
	e.refusesOthers()
	e.proved(
		"ampbridge bootstrap: account %s knows the issuer, has workspace %s and a boundary, and lets sync assume %s",
		central,
		e.workspace.ID(),
		e.syncRole(),
	)
	return e
}

// refusesOthers checks that the namespaces enforce their pod security standard.
func (e *environment) refusesOthers() {
	e.Helper()
	pod := e.pod(monitoring, "unrestricted", nil)
	pod.Spec.SecurityContext, pod.Spec.Containers[0].SecurityContext = nil, nil
	_, err := e.Client().CoreV1().Pods(monitoring).Create(e.Context(), pod, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if !apierrors.IsForbidden(err) {
		e.Fatalf("an unrestricted pod in %s: %v, want it forbidden", monitoring, err)
	}
}

// writeValues writes the values that the platform engineer knows so far.
func (e *environment) writeValues() {
	e.Helper()
	workspace := newWorkspace
	if !e.workspace.IsZero() {
		workspace = e.workspace.String()
	}
	filled := strings.NewReplacer(
		"REPOSITORY",
		repository,
		"CLUSTER",
		e.name,
		"WORKSPACE",
		workspace,
		"BOUNDARY",
		"arn:aws:iam::"+central+":policy/ampbridge-boundary-"+e.name,
		"SYNC_ROLE",
		"arn:aws:iam::"+central+":role/"+e.syncRole(),
		"      CA\n",
		"      "+strings.ReplaceAll(strings.TrimSpace(string(e.cloud.CA)), "\n", "\n      ")+"\n",
	).Replace(testkit.ReadFile(e, "testdata/values.yaml"))
	if e.values == "" {
		e.values = filepath.Join(e.TempDir(), "values.yaml")
	}
	testkit.WriteFile(e, e.values, filled)
}

// helm runs the real program without any of the user's settings.
func (e *environment) helm(args ...string) {
	e.Helper()
	tools.Helm(e, append(args, "--kubeconfig", e.Kubeconfig())...)
}

// install runs the command of the quick start with the release's own chart.
func (e *environment) install(version string) {
	e.Helper()
	e.helm("upgrade", "--install", release, chartPackage(version), "--namespace", systemNamespace, "--values", e.values,
		"--wait", "--timeout", "4m")
}

// apply creates every object of the text, or updates it to match the text.
func (e *environment) apply(text []byte) {
	e.Helper()
	decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(text), 4096)
	for {
		object := &unstructured.Unstructured{}
		err := decoder.Decode(object)
		if errors.Is(err, io.EOF) {
			return
		}
		e.must(err)
		// The API server may not serve a new kind immediately.
		e.Eventually(e.T, "the API server takes "+object.GetKind()+" "+object.GetName(), func(ctx context.Context) error {
			err := e.objects.Apply(ctx, client.ApplyConfigurationFromUnstructured(object), client.FieldOwner("e2e"), client.ForceOwnership)
			if err != nil && !meta.IsNoMatchError(err) && !apierrors.IsNotFound(err) {
				e.Fatal(err)
			}
			return err
		})
	}
}

func (e *environment) applyFile(name string) {
	e.Helper()
	e.apply([]byte(testkit.ReadFile(e, name)))
}

// proved prints one proven step of the chain.
func (e *environment) proved(format string, args ...any) {
	_, _ = fmt.Printf("%-5s %2d  %4.0f s  %s\n", e.name, e.links.Add(1), time.Since(e.started).Seconds(), fmt.Sprintf(format, args...))
}

func (e *environment) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

func (e *environment) check(_ any, err error) {
	e.Helper()
	e.must(err)
}

// report prints what helps to find the reason of a failure.
func (e *environment) report() {
	ctx := context.Background()
	for _, line := range refused(e.cloud) {
		e.Log("AWS refused: ", line)
	}
	pods, err := e.Client().CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		e.Log(err)
		return
	}
	for _, pod := range pods.Items {
		e.Logf("pod %s/%s %s", pod.Namespace, pod.Name, pod.Status.Phase)
		for _, s := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
			log := e.Logs(ctx, pod.Namespace, pod.Name, s.Name)
			e.Logf(
				"  container %s ready %t restarts %d state %v\n%s",
				s.Name,
				s.Ready,
				s.RestartCount,
				s.State,
				log[max(0, len(log)-2000):],
			)
		}
	}
	events, err := e.Client().CoreV1().Events("").List(ctx, metav1.ListOptions{})
	if err != nil {
		e.Log(err)
		return
	}
	for _, event := range events.Items {
		if event.Type == corev1.EventTypeWarning {
			e.Logf(
				"event %s %s/%s %s: %s",
				event.InvolvedObject.Kind,
				event.InvolvedObject.Namespace,
				event.InvolvedObject.Name,
				event.Reason,
				event.Message,
			)
		}
	}
}

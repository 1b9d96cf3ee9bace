// Package env creates the complete environment of tests and of the demo: a real control plane, AWS's double,
// the webhook as its own process that is registered in the API server, and pods that run as processes. Each
// step is a method, so the demo can show it and a test can break it.
//
//	e := env.Start(t, env.Options{})
//	err := e.Sync(ctx)
//	pod, err := e.Create(ctx, env.Chart{Namespace: "monitoring", ...})
//	run, err := e.Run(ctx, pod)
//
// The package makes no decisions. Each object that it creates is one that a user would write, and ampbridge
// does everything else.
package env

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/kubelet"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

// Fixed names of the environment.
const (
	AccountID   = "111122223333"
	Region      = "eu-west-1"
	ClusterName = "demo"
	// Namespace has the label, and ServiceAccount is the account in it with the grant.
	Namespace      = "monitoring"
	ServiceAccount = "prometheus"
	// SystemNamespace is ampbridge's own namespace.
	SystemNamespace = "ampbridge-system"
	// SidecarImage is the image that the webhook injects.
	SidecarImage = "registry.example/ampbridge/ampbridge:dev"
)

// Options configure an environment.
type Options struct {
	// Issuer is the issuer of the cluster's tokens; [cluster.DefaultIssuer] if empty.
	Issuer string
	// Few skips the programs that one Prometheus pod does not need: kube-controller-manager and the config
	// reloader. See [NoReloader].
	Few bool
	// Progress gets a line for each slow step; nil for none.
	Progress io.Writer
	// Dir is the directory for all files. If empty, it is a temporary directory that Close removes.
	Dir string
}

// Env is a complete environment, see the package. Close ends it.
type Env struct {
	Cloud     *awstest.Cloud
	Account   *awstest.Account
	Workspace *awstest.Workspace
	Issuer    *awstest.Issuer
	Cluster   *cluster.Cluster
	// PolicyFile is the file that the webhook watches, see [Env.SetPolicy].
	PolicyFile string
	// MetricsURL is the URL of the webhook's metrics.
	MetricsURL string

	options  Options
	dir      string
	tools    map[string]string
	images   []kubelet.Image
	closers  []func() error
	closing  sync.Once
	closeErr error
}

// Start creates an environment for a test, including webhook and policy. It ends with the test.
func Start(tb testing.TB, options Options) *Env {
	tb.Helper()
	e, err := Prepare(tb.Context(), options)
	testkit.CloseAfter(tb, e, err)
	for _, step := range []func(context.Context) error{e.StartCloud, e.StartCluster, e.StartWebhook} {
		if err := step(tb.Context()); err != nil {
			tb.Fatal(err)
		}
	}
	return e
}

// StartSynced creates an environment for a test, in which sync has already created the policy's roles.
func StartSynced(tb testing.TB, options Options) *Env {
	tb.Helper()
	e := Start(tb, options)
	if out, err := e.Sync(tb.Context()); err != nil {
		tb.Fatal(out, err)
	}
	return e
}

// Prepare finds or builds the programs. Call StartCloud, StartCluster and StartWebhook afterwards, in this
// order.
func Prepare(ctx context.Context, options Options) (*Env, error) {
	e := &Env{options: options, dir: options.Dir, tools: map[string]string{}}
	if options.Progress == nil {
		e.options.Progress = io.Discard
	}
	if e.dir == "" {
		dir, err := os.MkdirTemp("", "ampbridge-env-")
		if err != nil {
			return nil, err
		}
		e.dir = dir
		e.onClose(func() error { return os.RemoveAll(dir) })
	}
	programs := []string{"prometheus"}
	if !options.Few {
		programs = append(programs, "prometheus-config-reloader")
	}
	for _, name := range programs {
		path, err := tools.Find(ctx, name, e.options.Progress)
		if err != nil {
			return nil, errors.Join(err, e.Close())
		}
		e.tools[name] = path
	}
	if err := tools.GoBuild(ctx, e.dir,
		"github.com/ampbridge/ampbridge/cmd/ampbridge", "github.com/ampbridge/ampbridge/cmd/config-sidecar"); err != nil {
		return nil, errors.Join(err, e.Close())
	}
	for _, name := range []string{"ampbridge", "config-sidecar"} {
		e.tools[name] = filepath.Join(e.dir, name)
	}
	return e, nil
}

// StartCloud starts AWS's double with one account, a workspace and the policy's permissions boundary.
func (e *Env) StartCloud(ctx context.Context) error {
	cloud, err := awstest.New(ctx, awstest.Options{Prometheus: e.tools["prometheus"]})
	if err != nil {
		return err
	}
	e.onClose(cloud.Close)
	e.Cloud = cloud
	e.Account = cloud.Account(AccountID)
	e.Workspace = e.Account.CreateWorkspace(Region, "central")
	_, err = e.Account.PutManagedPolicy("ampbridge-boundary",
		`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["aps:RemoteWrite","sts:AssumeRole"],"Resource":"*"}]}`)
	return err
}

// StartCluster starts the control plane, publishes its issuer to AWS's double, and creates the labelled
// namespace with its service account.
func (e *Env) StartCluster(ctx context.Context) error {
	c, err := cluster.New(ctx, cluster.Options{
		Issuer: e.options.Issuer, NoControllers: e.options.Few, Progress: e.options.Progress,
	})
	if err != nil {
		return err
	}
	e.onClose(c.Close)
	e.Cluster = c
	if e.Issuer, err = e.Cloud.RegisterIssuer(c.Issuer, c.OIDC(), awstest.PublicCA); err != nil {
		return err
	}
	if err := c.Namespace(ctx, Namespace, map[string]string{"ampbridge.io/injection": "enabled"}); err != nil {
		return err
	}
	return e.CreateServiceAccount(ctx, Namespace, ServiceAccount)
}

// CreateServiceAccount creates a service account and returns after the API server's answer.
func (e *Env) CreateServiceAccount(ctx context.Context, namespace, name string) error {
	return e.Cluster.ServiceAccount(ctx, namespace, name)
}

// Policy returns the environment's policy, with one destination and one grant. All calls go to the double on
// loopback.
func (e *Env) Policy() string {
	return fmt.Sprintf(`apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster:
  name: %s
destinations:
- name: central
  workspace: %s
  endpoint: %s
  remoteWrite:
    queueConfig: {batchSendDeadline: 1s, minBackoff: 100ms, maxBackoff: 1s, maxShards: 10}
grants:
- namespaces: [%s]
  serviceAccounts: [%s]
  destinations: [central]
sts:
  endpoint: %s
  caBundle: |
    %s
trust:
  permissionsBoundary: arn:aws:iam::%s:policy/ampbridge-boundary
`, ClusterName, e.Workspace.ARN, e.Cloud.URL, Namespace, ServiceAccount, e.Cloud.TLSURL,
		strings.ReplaceAll(strings.TrimSpace(string(e.Cloud.CA)), "\n", "\n    "), AccountID)
}

// SetPolicy replaces the file that the webhook watches in one step.
func (e *Env) SetPolicy(text string) error {
	e.PolicyFile = filepath.Join(e.dir, "policy.yaml")
	next := e.PolicyFile + ".next"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(next, e.PolicyFile)
}

// Sync runs `ampbridge sync --once` with the account's administrator keys, and returns the output.
func (e *Env) Sync(ctx context.Context) (string, error) {
	return e.Ampbridge(ctx, "sync", "--once", "--policy", e.PolicyFile, "--kubeconfig", e.Cluster.Kubeconfig())
}

// Ampbridge runs a command of the product and returns the output. The command has the environment of an
// administrator and uses AWS's double.
func (e *Env) Ampbridge(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, e.tools["ampbridge"], args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + e.dir}, e.administrator()...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("ampbridge %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// administrator returns the variables with which a program uses the AWS double as the account's administrator.
func (e *Env) administrator() []string {
	return slices.Concat([]string{"AWS_REGION=" + Region}, e.Cloud.Environ(), e.Account.AdminCredentials().Environ())
}

// WriteShell writes a file for a person's shell, and returns its path. The file sets the variables for the
// cluster and for the AWS double.
func (e *Env) WriteShell() (string, error) {
	var text bytes.Buffer
	for _, v := range append(e.administrator(), "KUBECONFIG="+e.Cluster.Kubeconfig()) {
		name, value, _ := strings.Cut(v, "=")
		fmt.Fprintf(&text, "export %s='%s'\n", name, value)
	}
	path := filepath.Join(e.dir, "shell")
	return path, os.WriteFile(path, text.Bytes(), 0o600)
}

// Run runs the pod as the kubelet would. pod is the API server's answer.
func (e *Env) Run(ctx context.Context, pod *corev1.Pod, log io.Writer) (*kubelet.Pod, error) {
	images := append(
		slices.Clone(e.images),
		prometheus("prometheus/prometheus", e.tools["prometheus"]),
		kubelet.Image{
			Match:      "prometheus-operator/prometheus-config-reloader",
			Binaries:   map[string]string{"/bin/prometheus-config-reloader": e.tools["prometheus-config-reloader"]},
			Entrypoint: []string{"/bin/prometheus-config-reloader"},
			User:       nobody,
		},
		kubelet.Image{
			Match:      strings.TrimSuffix(SidecarImage, ":dev"),
			Binaries:   map[string]string{"/config-sidecar": e.tools["config-sidecar"]},
			Entrypoint: []string{"/config-sidecar"},
			User:       nobody,
		},
	)
	return kubelet.Run(ctx, e.Cluster.Client(), pod, kubelet.Options{Dir: e.dir, Log: log, Images: images})
}

// AddImage adds an image to the node. It takes precedence over the environment's own images.
func (e *Env) AddImage(image kubelet.Image) { e.images = append(e.images, image) }

// AddPrometheus adds another version of Prometheus to the node, with its tag of the usual image:
// ("prometheus-3.1", "v3.1.0").
func (e *Env) AddPrometheus(ctx context.Context, tool, tag string) error {
	path, err := tools.Find(ctx, tool, e.options.Progress)
	if err == nil {
		e.AddImage(prometheus("prometheus/prometheus:"+tag, path))
	}
	return err
}

// nobody is the user of the images.
const nobody = 65534

// imageCmd is what Prometheus's image runs if a pod sets no arguments.
var imageCmd = []string{"--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"}

func prometheus(match, path string) kubelet.Image {
	return kubelet.Image{Match: match, Binaries: map[string]string{"/bin/prometheus": path},
		Entrypoint: []string{"/bin/prometheus"}, Cmd: imageCmd, WorkingDir: "/prometheus", Volumes: []string{"/prometheus"}, User: nobody}
}

// Close ends what the environment started, in reverse order.
func (e *Env) Close() error {
	e.closing.Do(func() {
		for _, v := range slices.Backward(e.closers) {
			e.closeErr = errors.Join(e.closeErr, v())
		}
	})
	return e.closeErr
}

func (e *Env) onClose(f func() error) { e.closers = append(e.closers, f) }

// Package tools finds, or builds from source, the foreign programs that the
// tests and the demo run: a Kubernetes control plane, Prometheus and its
// operator, Helm, and the linter.
//
// Each family is pinned by a Go module of its own in a directory beside this
// file (kubernetes/go.mod, prometheus/go.mod, ...), so that a clean machine
// needs nothing but Go and a module proxy, and the product's go.mod stays the
// product's. What is built is kept in a cache outside the work tree; see
// [CacheDir].
//
// Tests call [Path]; programs call [Find]; people run
//
//	go run ./test/tools/cmd kube-apiserver prometheus
package tools

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A Tool is a program that is built from a module beside this package.
type Tool struct {
	// Name is what callers ask for and what is looked up on PATH.
	Name string
	// Dir is the directory, beside this file, of the module that pins the tool.
	Dir string
	// Source is the "module@version" which that go.mod requires.
	Source string
	// Package is the import path of the main package.
	Package string
	// Version is the version that the cached file's name carries.
	Version string
	// LDFlags is passed to the linker as it is.
	LDFlags string
	// Tags are build tags, separated by commas; empty means none.
	Tags string
	// Asset tells whether $KUBEBUILDER_ASSETS may hold the tool.
	Asset bool
	// Envtest reports whether setup-envtest downloads the tool.
	Envtest bool
	// MinVersion is the oldest major.minor that is taken from PATH, as the
	// program's own --version reports it; empty takes any.
	MinVersion string
	// Pinned tools are never taken from PATH: they are here for the sake of
	// their very version.
	Pinned bool
	// ColdBuild is about how long the first build takes on two cores.
	ColdBuild time.Duration
}

const (
	kubernetesVersion = "v1.36.3"
	operatorVersion   = "v0.85.0"
	strip             = "-s -w"
	stripKubernetes   = strip + " -X k8s.io/component-base/version.gitVersion=" + kubernetesVersion
	// helmVersions are helm's own, and that of the Kubernetes for which it renders
	// where nobody says: as in its releases, that of the client-go it is built with.
	helmVersions = " -X helm.sh/helm/v3/internal/version.version=v3.22.0" +
		" -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=37" +
		" -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=37"
	// ownModules is the import path of the directory of these modules: where a
	// tool's main package is here too, with a choice of its source's packages.
	ownModules    = "github.com/ampbridge/ampbridge/test/tools/"
	envtestModule = "sigs.k8s.io/controller-runtime/tools/setup-envtest"
)

// Tools lists every tool, in the order in which a control plane needs them.
func Tools() []Tool {
	return []Tool{
		{Name: "etcd", Dir: "kubernetes", Source: "go.etcd.io/etcd/server/v3@v3.6.8", Package: "go.etcd.io/etcd/server/v3",
			Version: "v3.6.8", LDFlags: strip, Asset: true, Envtest: true, ColdBuild: time.Minute},
		downloaded(kubernetes("kube-apiserver", 5*time.Minute)),
		kubernetes("kube-controller-manager", 2*time.Minute),
		kubernetes("kube-scheduler", time.Minute),
		kubernetes("kubelet", time.Minute),
		kubernetes("kube-proxy", time.Minute),
		fewDiscoveries(prometheus("prometheus", "3.15.0", "v0.315.0")),
		fewDiscoveries(promtool("3.15.0", "v0.315.0")),
		older(prometheus("prometheus-3.1", "3.1.0", "v0.301.0")),
		older(prometheus("prometheus-2.42", "2.42.0", "v0.42.0")),
		older(prometheus("prometheus-2.22", "2.22.0", "v1.8.2-0.20201015110737-0a7fdd3b7696")),
		operator("prometheus-config-reloader", "prometheus-config-reloader", 4*time.Minute),
		operator("prometheus-operator", "operator", 4*time.Minute),
		{Name: "kubectl", Dir: "kubectl", Source: "k8s.io/kubectl@v0.36.3", Package: ownModules + "kubectl",
			Version: kubernetesVersion, LDFlags: stripKubernetes, Pinned: true, ColdBuild: 2 * time.Minute},
		{Name: "coredns", Dir: "coredns", Source: "github.com/coredns/coredns@v1.15.0", Package: ownModules + "coredns",
			Version: "v1.15.0", LDFlags: strip, Pinned: true, ColdBuild: 2 * time.Minute},
		{Name: "release", Dir: "release", Source: "github.com/google/go-containerregistry@v0.22.1", Package: ownModules + "release",
			Version: "v0.22.1", LDFlags: strip, Pinned: true, ColdBuild: time.Minute},
		{Name: "registry", Dir: "registry", Source: "github.com/google/go-containerregistry@v0.22.1", Package: ownModules + "registry",
			Version: "v0.22.1", LDFlags: strip, Pinned: true, ColdBuild: time.Minute},
		{Name: "golangci-lint", Dir: "golangci-lint", Source: "github.com/golangci/golangci-lint/v2@v2.15.0",
			Package: "github.com/golangci/golangci-lint/v2/cmd/golangci-lint", Version: "v2.15.0",
			LDFlags: strip + " -X main.version=2.15.0", MinVersion: "2.15", ColdBuild: 2 * time.Minute},
		{Name: "tofu", Dir: "opentofu", Source: "github.com/opentofu/opentofu@v1.12.6", Package: "github.com/opentofu/opentofu/cmd/tofu",
			Version: "v1.12.6", LDFlags: strip, ColdBuild: 5 * time.Minute},
		{Name: "tfprovider", Dir: "tfprovider", Source: "github.com/hashicorp/terraform-plugin-framework@v1.19.0",
			Package: ownModules + "tfprovider", Version: "v1.19.0", LDFlags: strip, Pinned: true, ColdBuild: 2 * time.Minute},
		{Name: "gosh", Dir: "gosh", Source: "mvdan.cc/sh/v3@v3.14.1", Package: "mvdan.cc/sh/v3/cmd/gosh",
			Version: "v3.14.1", LDFlags: strip, ColdBuild: time.Minute},
		{Name: "helm", Dir: "helm", Source: "helm.sh/helm/v3@v3.22.0", Package: "helm.sh/helm/v3/cmd/helm", Version: "v3.22.0",
			LDFlags: strip + helmVersions, Pinned: true, ColdBuild: time.Minute},
		{Name: "helm4", Dir: "helm4", Source: "helm.sh/helm/v4@v4.3.1", Package: "helm.sh/helm/v4/cmd/helm", Version: "v4.3.1",
			LDFlags: strip + " -X helm.sh/helm/v4/internal/version.version=v4.3.1", Pinned: true, ColdBuild: 2 * time.Minute},
		collector("otelcol", "github.com/open-telemetry/opentelemetry-collector-contrib/receiver/prometheusreceiver@v0.165.0",
			ownModules+"otelcol", 6*time.Minute),
		collector("vmagent", "github.com/VictoriaMetrics/VictoriaMetrics@v1.151.0",
			"github.com/VictoriaMetrics/VictoriaMetrics/app/vmagent", 2*time.Minute),
		collector("thanos", "github.com/thanos-io/thanos@v0.42.4", "github.com/thanos-io/thanos/cmd/thanos", 6*time.Minute),
		{Name: "gotestsum", Dir: "gotestsum", Source: "gotest.tools/gotestsum@v1.13.0", Package: "gotest.tools/gotestsum",
			Version: "v1.13.0", LDFlags: strip, ColdBuild: time.Minute},
		{Name: "actionlint", Dir: "actionlint", Source: "github.com/rhysd/actionlint@v1.7.12", Package: "github.com/rhysd/actionlint/" +
			"cmd/actionlint",
			Version: "v1.7.12", LDFlags: strip, ColdBuild: time.Minute},
		{Name: "setup-envtest", Dir: "setup-envtest", Source: envtestModule + "@v0.25.1", Package: envtestModule,
			Version: "v0.25.1", LDFlags: strip, Pinned: true, ColdBuild: time.Minute},
	}
}

func kubernetes(name string, cold time.Duration) Tool {
	return Tool{Name: name, Dir: "kubernetes", Source: "k8s.io/kubernetes@" + kubernetesVersion,
		Package: "k8s.io/kubernetes/cmd/" + name, Version: kubernetesVersion, Asset: true, ColdBuild: cold,
		LDFlags: stripKubernetes}
}

// prometheus is a Prometheus server whose module lives in a directory of the
// tool's name, so another version is one more line in [Tools] and one more
// module. Servers before 3.5 sign remote_write with another generation of the
// AWS SDK, and some distributions build theirs without any, hence MinVersion.
func prometheus(name, version, module string) Tool {
	return Tool{Name: name, Dir: name, Source: "github.com/prometheus/prometheus@" + module,
		Package: "github.com/prometheus/prometheus/cmd/prometheus", Version: version, MinVersion: "3.5",
		LDFlags: strip + " -X github.com/prometheus/common/version.Version=" + version, ColdBuild: 5 * time.Minute}
}

// fewDiscoveries leaves out every service discovery but those that need no client of a cloud, and Kubernetes's: the
// clients of the others are half of the build.
func fewDiscoveries(t Tool) Tool {
	t.Tags, t.ColdBuild = "remove_all_sd,enable_kubernetes_sd", min(t.ColdBuild, 2*time.Minute)
	return t
}

// downloaded is a tool that setup-envtest has.
func downloaded(t Tool) Tool {
	t.Envtest = true
	return t
}

// promtool runs alerts in Prometheus's rule engine, by a clock of its own.
func promtool(version, module string) Tool {
	return Tool{Name: "promtool", Dir: "promtool", Source: "github.com/prometheus/prometheus@" + module,
		Package: "github.com/prometheus/prometheus/cmd/promtool", Version: version, Pinned: true,
		LDFlags: strip + " -X github.com/prometheus/common/version.Version=" + version, ColdBuild: time.Minute}
}

// collector is a program that writes to AMP and is no Prometheus. It needs none of
// Prometheus's service discoveries.
func collector(name, source, main string, cold time.Duration) Tool {
	_, version, _ := strings.Cut(source, "@")
	return Tool{Name: name, Dir: name, Source: source, Package: main, Version: version, LDFlags: strip, Tags: "remove_all_sd",
		Pinned: true, ColdBuild: cold}
}

// older is a version that is tested because it is old.
func older(t Tool) Tool {
	t.Pinned, t.MinVersion = true, ""
	return t
}

func operator(name, command string, cold time.Duration) Tool {
	return Tool{Name: name, Dir: "prometheus-operator", Source: "github.com/prometheus-operator/prometheus-operator@" + operatorVersion,
		Package: "github.com/prometheus-operator/prometheus-operator/cmd/" + command, Version: operatorVersion,
		LDFlags: strip + " -X github.com/prometheus/common/version.Version=" + strings.TrimPrefix(operatorVersion, "v"), ColdBuild: cold}
}

// Path returns the path of the named tool's program, building it when it has
// to, and ends the test when that fails. Progress of a build goes to standard
// error. A cold build can outlast go test's default timeout of ten minutes:
// run the command in test/tools/cmd first, as make test does.
func Path(tb testing.TB, name string) string {
	tb.Helper()
	path, err := Find(tb.Context(), name, os.Stderr)
	if err != nil {
		tb.Fatal(err)
	}
	return path
}

// RootFor is [Root] for a test, which ends if that fails.
func RootFor(tb testing.TB) string {
	tb.Helper()
	root, err := Root(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	return root
}

// Build builds a Go program for a test, without cgo, and returns its path. The package
// is as the go command takes it in the test's folder; flags are those of go build.
func Build(tb testing.TB, pkg string, flags ...string) string {
	tb.Helper()
	program := filepath.Join(tb.TempDir(), path.Base(pkg))
	if err := GoBuild(tb.Context(), program, append(flags, pkg)...); err != nil {
		tb.Fatal(err)
	}
	return program
}

// GoBuild builds Go programs without cgo: static ones, because containers have no
// libraries. The output is a file, or a folder for several programs. The arguments are
// flags of go build, and packages as it takes them in the current folder.
func GoBuild(ctx context.Context, output string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-trimpath", "-o", output}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// Find returns the path of the named tool's program: from $KUBEBUILDER_ASSETS
// for the control plane's, from PATH where the version there will do, from the
// cache, or else downloaded by setup-envtest, or freshly built, with progress
// lines while that takes its time.
func Find(ctx context.Context, name string, progress io.Writer) (string, error) {
	tool, err := lookup(name)
	if err != nil {
		return "", err
	}
	if path, ok := tool.installed(ctx); ok {
		return path, nil
	}
	root, err := Root(ctx)
	if err != nil {
		return "", err
	}
	path, err := tool.cached(root)
	if err != nil {
		return "", err
	}
	if executable(path) {
		return path, nil
	}
	if err := tool.build(ctx, root, path, progress); err != nil {
		return "", err
	}
	return path, nil
}

func lookup(name string) (Tool, error) {
	var names []string
	for _, tool := range Tools() {
		if tool.Name == name {
			return tool, nil
		}
		names = append(names, tool.Name)
	}
	return Tool{}, fmt.Errorf("tools: no tool %q: want one of %s", name, strings.Join(names, ", "))
}

// installed looks for a program that the user already has.
func (t Tool) installed(ctx context.Context) (string, bool) {
	if assets := os.Getenv("KUBEBUILDER_ASSETS"); t.Asset && assets != "" {
		if path := filepath.Join(assets, t.Name); executable(path) {
			return path, true
		}
	}
	if t.Pinned {
		return "", false
	}
	path, err := exec.LookPath(t.Name)
	if err != nil || !t.recentEnough(ctx, path) {
		return "", false
	}
	return path, true
}

// reported matches the major and minor version in a program's --version.
var reported = regexp.MustCompile(`version v?(\d+)\.(\d+)`)

func (t Tool) recentEnough(ctx context.Context, path string) bool {
	if t.MinVersion == "" {
		return true
	}
	// Some programs write their version to standard error.
	out, err := exec.CommandContext(ctx, path, "--version").CombinedOutput()
	if err != nil {
		return false
	}
	got, want := reported.FindSubmatch(out), reported.FindStringSubmatch("version "+t.MinVersion)
	if got == nil || want == nil {
		return false
	}
	for i := 1; i <= 2; i++ {
		// The pattern matches digits only; a number too big to parse is not a version.
		g, gotErr := strconv.Atoi(string(got[i]))
		w, wantErr := strconv.Atoi(want[i])
		if gotErr != nil || wantErr != nil {
			return false
		}
		if g != w {
			return g > w
		}
	}
	return true
}

// CacheDir is where built tools are kept: $AMPBRIDGE_TOOLS, or else
// ampbridge/tools in the user's cache directory.
func CacheDir() (string, error) {
	if dir := os.Getenv("AMPBRIDGE_TOOLS"); dir != "" {
		// Builds run in another directory, so a relative path would mean another place there.
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("tools: no cache directory, set AMPBRIDGE_TOOLS: %w", err)
	}
	return filepath.Join(dir, "ampbridge", "tools"), nil
}

// cached is where the tool's program belongs in the cache. Whatever goes into
// the build is hashed into the name, so a change of it builds anew and two work
// trees that differ can share one cache.
func (t Tool) cached(root string) (string, error) {
	dir, err := CacheDir()
	if err != nil {
		return "", err
	}
	parts := append(t.buildArgs(), runtime.GOOS, runtime.GOARCH)
	files := []string{"go.mod", "go.sum"}
	if strings.HasPrefix(t.Package, ownModules) {
		own, err := filepath.Glob(filepath.Join(t.moduleDir(root), "*.go"))
		if err != nil {
			return "", fmt.Errorf("tools: %s: %w", t.Name, err)
		}
		for _, file := range own {
			if !strings.HasSuffix(file, "_test.go") {
				files = append(files, filepath.Base(file))
			}
		}
	}
	for _, file := range files {
		content, err := os.ReadFile(filepath.Join(t.moduleDir(root), file))
		if err != nil {
			return "", fmt.Errorf("tools: %s: %w", t.Name, err)
		}
		parts = append(parts, string(content))
	}
	// Quoted, so that what moves from one part to the next changes the sum.
	sum := sha256.Sum256(fmt.Appendf(nil, "%q", parts))
	return filepath.Join(dir, fmt.Sprintf("%s-%s-%s", t.Name, t.Version, hex.EncodeToString(sum[:6]))), nil
}

func (t Tool) moduleDir(root string) string { return filepath.Join(root, "test", "tools", t.Dir) }

// Root returns the directory of this repository's go.mod, from wherever in the
// repository a test or a program runs.
func Root(ctx context.Context) (string, error) {
	var candidates []string
	// With -trimpath the source's location is an import path, not a file.
	if _, source, _, ok := runtime.Caller(0); ok && filepath.IsAbs(source) {
		candidates = append(candidates, filepath.Join(filepath.Dir(source), "..", ".."))
	}
	if out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output(); err == nil {
		candidates = append(candidates, filepath.Dir(strings.TrimSpace(string(out))))
	}
	for _, root := range candidates {
		if _, err := os.Stat(filepath.Join(root, "test", "tools", "kubernetes", "go.mod")); err == nil {
			return root, nil
		}
	}
	return "", errors.New("tools: the repository is not found: run inside its work tree, with go on PATH")
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

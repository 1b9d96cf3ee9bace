//go:build linux && e2e

package install

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/log"

	"github.com/ampbridge/ampbridge/test/node"
	"github.com/ampbridge/ampbridge/test/node/preflight"
	productrelease "github.com/ampbridge/ampbridge/test/release"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

const (
	repository = "ghcr.io/ampbridge/ampbridge"
	// The versions that an upgrade goes between.
	version, nextVersion = "v0.1.0-e2e", "v0.2.0-e2e"

	prometheusImage = "quay.io/prometheus/prometheus:v3.15.0"
	operatorImage   = "quay.io/prometheus-operator/prometheus-operator:v0.85.0"
	reloaderImage   = "quay.io/prometheus-operator/prometheus-config-reloader:v0.85.0"
)

func TestMain(m *testing.M) {
	// The webhook's advice to each of hundreds of pods is for people.
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	log.SetLogger(logr.Discard())
	os.Exit(node.Main(m, node.Setup{
		Needs:   preflight.Install,
		Tools:   []string{"prometheus", "prometheus-operator", "prometheus-config-reloader", "helm", "kubectl", "registry"},
		Prepare: prepare,
	}))
}

// prepare makes two releases of the product, verifies them as people do, and fetches the operator's manifests.
func prepare(ctx context.Context, dir string) error {
	root, err := tools.Root(ctx)
	if err != nil {
		return err
	}
	key := filepath.Join(dir, "key")
	trusted, err := productrelease.NewKey(ctx, key)
	if err != nil {
		return err
	}
	for _, v := range []string{version, nextVersion} {
		if err := productrelease.Make(ctx, root, "VERSION="+v, "DIST="+dist(dir, v), "SIGNING_KEY="+key,
			"PLATFORMS=linux/"+runtime.GOARCH); err != nil {
			return err
		}
		if err := productrelease.Verify(ctx, root, dist(dir, v), trusted); err != nil {
			return err
		}
	}
	return copyBundle(ctx, filepath.Join(root, "test", "tools", "prometheus-operator"), dir)
}

// imageStore returns the variable by which buildah leaves the machine's own store
// alone.
func imageStore(dir string) (string, error) {
	file := filepath.Join(dir, "storage.conf")
	config := fmt.Sprintf(
		"[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n",
		filepath.Join(dir, "buildah"),
		filepath.Join(dir, "buildah-run"),
	)
	return "CONTAINERS_STORAGE_CONF=" + file, os.WriteFile(file, []byte(config), 0o600)
}

// dist has the release of that version.
func dist(dir, version string) string { return filepath.Join(dir, "release-"+version) }

// released returns a file of that release, whose names end in "-image.tar" and the like.
func released(dir, version, end string) string {
	return filepath.Join(dist(dir, version), "ampbridge-"+strings.TrimPrefix(version, "v")+end)
}

// ampbridgeProgram is the release's, for the administrator's own machine.
func ampbridgeProgram(dir string) string { return released(dir, version, "-linux-"+runtime.GOARCH) }

// chartPackage is the release's.
func chartPackage(version string) string { return released(node.Dir(), version, ".tgz") }

// caFile has the double's CA.
func caFile() string { return filepath.Join(node.Dir(), "ca.pem") }

func archive(dir, version string) string { return released(dir, version, "-image.tar") }

// bundle is prometheus-operator's own manifest: definitions, rights, deployment.
func bundle(dir string) string { return filepath.Join(dir, "prometheus-operator.yaml") }

// copyBundle takes the manifest out of the module that the operator is built from.
func copyBundle(ctx context.Context, module, dir string) error {
	download := exec.CommandContext(ctx, "go", "mod", "download", "-json", "github.com/prometheus-operator/prometheus-operator")
	download.Dir = module
	out, err := download.Output()
	if err != nil {
		return fmt.Errorf("go mod download: %w", err)
	}
	var answer struct{ Dir string }
	if err := json.Unmarshal(out, &answer); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(answer.Dir, "bundle.yaml"))
	if err != nil {
		return err
	}
	return os.WriteFile(bundle(dir), text, 0o600)
}

// foreignImages are made of the tools' programs. Prometheus's trusts the double's
// CA as its own image trusts the world's.
func foreignImages(t *testing.T, ca []byte) (archives []string) {
	t.Helper()
	testkit.Must(t, os.WriteFile(caFile(), ca, 0o644))
	for tool, image := range map[string]node.Image{
		"prometheus": {Name: prometheusImage, Files: map[string]string{
			"/bin/prometheus": tools.Path(t, "prometheus"), "/etc/ssl/certs/ca-certificates.crt": caFile(),
		}, Dirs: []string{"/prometheus", "/tmp"}, WorkingDir: "/prometheus"},
		"prometheus-operator": {Name: operatorImage,
			Files: map[string]string{"/bin/prometheus-operator": tools.Path(t, "prometheus-operator")}},
		"prometheus-config-reloader": {Name: reloaderImage,
			Files: map[string]string{"/bin/prometheus-config-reloader": tools.Path(t, "prometheus-config-reloader")}},
	} {
		image.Entrypoint, image.User = []string{"/bin/" + tool}, "65534:65534"
		path := filepath.Join(node.Dir(), tool+".tar")
		testkit.Must(t, image.Write(path))
		archives = append(archives, path)
	}
	return archives
}

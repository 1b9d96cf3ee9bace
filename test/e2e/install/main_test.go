//go:build linux && e2e

package install

import (
	"context"
	"os"
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
	// The versions before and after an upgrade.
	version, nextVersion = "v0.1.0-e2e", "v0.2.0-e2e"

	prometheusImage = "quay.io/prometheus/prometheus:v3.15.0"
	operatorImage   = "quay.io/prometheus-operator/prometheus-operator:v0.85.0"
	reloaderImage   = "quay.io/prometheus-operator/prometheus-config-reloader:v0.85.0"
)

func TestMain(m *testing.M) {
	// The test does not need the webhook's warnings for hundreds of pods.
	rest.SetDefaultWarningHandler(rest.NoWarnings{})
	log.SetLogger(logr.Discard())
	os.Exit(node.Main(m, node.Setup{
		Needs:   preflight.Install,
		Tools:   []string{"prometheus", "prometheus-operator", "prometheus-config-reloader", "helm", "kubectl", "registry"},
		Prepare: prepare,
	}))
}

// prepare creates two releases of the product, verifies them as users do, and downloads the operator's
// manifests.
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
	return copyBundle(ctx, dir)
}

// dist returns the directory with the release of that version.
func dist(dir, version string) string { return filepath.Join(dir, "release-"+version) }

// released returns a file of that release. end is the end of its name, such as "-image.tar".
func released(dir, version, end string) string {
	return filepath.Join(dist(dir, version), "ampbridge-"+strings.TrimPrefix(version, "v")+end)
}

// ampbridgeProgram returns the release's program for the administrator's machine.
func ampbridgeProgram(dir string) string { return released(dir, version, "-linux-"+runtime.GOARCH) }

// chartPackage returns the release's chart package.
func chartPackage(version string) string { return released(node.Dir(), version, ".tgz") }

// caFile returns the file with the double's CA.
func caFile() string { return filepath.Join(node.Dir(), "ca.pem") }

func archive(dir, version string) string { return released(dir, version, "-image.tar") }

// bundle returns prometheus-operator's own manifest, with definitions, permissions and deployment.
func bundle(dir string) string { return filepath.Join(dir, "prometheus-operator.yaml") }

// copyBundle copies the manifest from the module from which the operator is built.
func copyBundle(ctx context.Context, dir string) error {
	source, err := tools.Source(ctx, "prometheus-operator", "github.com/prometheus-operator/prometheus-operator")
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(source, "bundle.yaml"))
	if err != nil {
		return err
	}
	return os.WriteFile(bundle(dir), text, 0o600)
}

// foreignImages builds images from the tools' programs. The image of Prometheus trusts the double's CA, as
// its real image trusts public CAs.
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

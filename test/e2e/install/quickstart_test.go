//go:build linux && e2e

package install

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/node"
	"github.com/ampbridge/ampbridge/test/tools"
)

const quickStart = "../../../docs/quickstart.md"

// TestQuickStart runs the commands of docs/quickstart.md as they stand there,
// beside a Prometheus that has been running without ampbridge, in an account that
// has nothing yet.
func TestQuickStart(t *testing.T) {
	for _, test := range []struct{ platform, name, issuer string }{
		{"eks", "dev", "https://oidc.eks." + region + ".amazonaws.com/id/0D0E0D0E0D0E0D0E0D0E0D0E0D0E0D0E"},
		{"aks", "aks", "https://eastus.oic.prod-aks.azure.com/72f988bf-86f1-41af-91ab-2d7cd011db47/0a1b2c3d-1111-2222-3333-444455556666/"},
	} {
		t.Run(test.platform, func(t *testing.T) {
			cloud := startAWS(t)
			e := bare(t, cloud, test.name, test.issuer, append(foreignImages(t, cloud.CA), archive(node.Dir(), version)))
			e.must(e.Namespace(t.Context(), monitoring, restricted))
			e.applyFile(byChart.file)
			e.podReady(e.current(byChart))
			e.proved("Prometheus runs, as ever")

			sh := e.terminal()
			blocks := e.commands(test.platform)
			for i, block := range blocks {
				e.proved("commands %d of %d\n%s\n%s", i+1, len(blocks), block, sh.run(e, block))
			}

			written, err := os.ReadFile(filepath.Join(sh.dir, "policy.yaml"))
			e.must(err)
			p, err := policy.Parse(written)
			e.must(err)
			e.workspace = p.Destinations[0].Workspace
			e.samples(e.injected(byChart), byChart)
		})
	}
}

// commands are the blocks of the quick start that are marked for the platform.
func (e *environment) commands(platform string) (blocks []string) {
	e.Helper()
	text, err := os.ReadFile(quickStart)
	e.must(err)
	marked := regexp.MustCompile("(?s)<!-- e2e: " + platform + " -->\n```sh\n(.*?)\n```\n")
	for _, match := range marked.FindAllStringSubmatch(string(text), -1) {
		blocks = append(blocks, match[1])
	}
	if len(blocks) == 0 {
		e.Fatalf("%s has no commands for %s", quickStart, platform)
	}
	return blocks
}

// A terminal is where somebody types: credentials of the central account, the
// cluster's kubeconfig, and a clone of the repository.
type terminal struct {
	dir string
	env []string
}

func (e *environment) terminal() *terminal {
	e.Helper()
	dir, bin := e.TempDir(), e.TempDir()
	charts, err := filepath.Abs(filepath.Dir(chart))
	e.must(err)
	e.must(os.Symlink(charts, filepath.Join(dir, "charts")))
	e.must(os.Symlink(ampbridgeProgram(node.Dir()), filepath.Join(bin, "ampbridge")))
	e.must(os.Symlink(tools.Path(e.T, "kubectl"), filepath.Join(bin, "kubectl")))

	// What the commands do not say, because no reader needs it: the image as it
	// was built here, and the CA of the double of AWS.
	ca := strings.ReplaceAll(strings.TrimSpace(string(e.cloud.CA)), "\n", "\n    ")
	here := fmt.Sprintf(`image: {repository: %s, tag: %s}
policy:
  sts:
    caBundle: |
      %s
sync:
  extraEnv: [{name: AWS_CA_BUNDLE, value: /etc/aws-ca/ca.pem}]
  extraVolumes: [{name: aws-ca, configMap: {name: aws-ca}}]
  extraVolumeMounts: [{name: aws-ca, mountPath: /etc/aws-ca, readOnly: true}]
`, repository, version, strings.ReplaceAll(ca, "\n", "\n  "))
	configMap := fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: aws-ca, namespace: %s}\ndata:\n  ca.pem: |\n    %s\n", systemNamespace, ca)
	helm := fmt.Sprintf(`#!/bin/sh
[ "$1" = install ] || exec %[1]s "$@"
kubectl apply -f %[2]s/aws-ca.yaml && exec %[1]s "$@" --values %[2]s/here.yaml
`, tools.Path(e.T, "helm"), bin)
	for name, text := range map[string]string{"here.yaml": here, "aws-ca.yaml": configMap, "helm": helm} {
		e.must(os.WriteFile(filepath.Join(bin, name), []byte(text), 0o700))
	}
	return &terminal{dir: dir, env: append([]string{
		"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + e.TempDir(), "KUBECONFIG=" + e.Kubeconfig(),
		"AWS_REGION=" + region, "AWS_CA_BUNDLE=" + caFile(), "SSL_CERT_FILE=" + caFile(),
	}, e.cloud.Account(central).AdminCredentials().Environ()...)}
}

// run types a block, and yes where somebody asks.
func (t *terminal) run(e *environment, block string) string {
	e.Helper()
	command := exec.CommandContext(e.Context(), "bash", "-euo", "pipefail", "-c", block)
	command.Dir, command.Env, command.Stdin = t.dir, t.env, strings.NewReader("yes\n")
	out, err := command.CombinedOutput()
	if err != nil {
		e.Fatalf("%s\n%v\n%s", block, err, out)
	}
	return strings.TrimSpace(string(out))
}

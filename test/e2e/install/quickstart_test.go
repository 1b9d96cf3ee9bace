//go:build linux && e2e

package install

import (
	"net"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/node"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/servingcert"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

const (
	quickStart = "../../../docs/start/quickstart.md"
	// registryHost is the registry of the quick start page.
	registryHost = "registry.example.com"
)

// TestQuickStart runs exactly the commands of docs/start/quickstart.md. Before that, a Prometheus runs
// without ampbridge, and the account is empty.
//
// The test provides the surroundings: AWS and the page's registry have their own names, and all programs
// trust their CA, as they trust AWS's in production.
func TestQuickStart(t *testing.T) {
	for _, test := range []struct{ platform, name, issuer string }{
		{"eks", "dev", "https://oidc.eks." + region + ".amazonaws.com/id/0D0E0D0E0D0E0D0E0D0E0D0E0D0E0D0E"},
		{"aks", "aks", "https://eastus.oic.prod-aks.azure.com/72f988bf-86f1-41af-91ab-2d7cd011db47/0a1b2c3d-1111-2222-3333-444455556666/"},
	} {
		t.Run(test.platform, func(t *testing.T) {
			cloud := startAWS(t)
			authorities := slices.Concat(cloud.CA, startRegistry(t))
			e := bare(t, cloud, test.name, test.issuer, foreignImages(t, cloud.CA), func(o *node.Options) {
				o.CA, o.Hosts[registryHost] = authorities, node.ThirdAddress
			})
			e.must(e.Namespace(t.Context(), monitoring, restricted))
			e.applyFile(byChart.file)
			e.podReady(e.current(byChart))
			e.proved("Prometheus runs as before")

			sh := e.terminal()
			blocks := e.commands(test.platform)
			for i, block := range blocks {
				e.proved("commands %d of %d\n%s\n%s", i+1, len(blocks), block, sh.run(e, block))
			}

			written := testkit.ReadFile(e, sh.dir+"/policy.yaml")
			e.workspace = policytest.Parse(e, written).Destinations[0].Workspace
			e.samples(e.injected(byChart), byChart)
		})
	}
}

// startRegistry serves an empty registry with the page's name. It returns the registry's CA.
func startRegistry(t *testing.T) []byte {
	t.Helper()
	dir := t.TempDir()
	ca, err := servingcert.Write(dir, registryHost)
	testkit.Must(t, err)
	address := net.JoinHostPort(node.ThirdAddress, "443")
	testkit.StartProgram(t, exec.Command(tools.Path(t, "registry"),
		"-listen", address, "-cert", dir+"/tls.crt", "-key", dir+"/tls.key"))
	testkit.Eventually(t, "the registry listens", func() bool {
		conn, err := net.Dial("tcp", address)
		return err == nil && conn.Close() == nil
	})
	return ca
}

// commands returns the blocks of the quick start that are marked for the platform.
func (e *environment) commands(platform string) (blocks []string) {
	e.Helper()
	marked := regexp.MustCompile("(?s)<!-- e2e: ([a-z, ]+) -->\n```sh\n(.*?)\n```\n")
	for _, match := range marked.FindAllStringSubmatch(testkit.ReadFile(e, quickStart), -1) {
		if slices.Contains(strings.Split(match[1], ", "), platform) {
			blocks = append(blocks, match[2])
		}
	}
	if len(blocks) < 2 {
		e.Fatalf("%s has %d blocks of commands for %s", quickStart, len(blocks), platform)
	}
	return blocks
}

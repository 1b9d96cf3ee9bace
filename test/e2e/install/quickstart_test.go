//go:build linux && e2e

package install

import (
	"bytes"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/node"
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

			written, err := os.ReadFile(filepath.Join(sh.dir, "policy.yaml"))
			e.must(err)
			p, err := policy.Parse(written)
			e.must(err)
			e.workspace = p.Destinations[0].Workspace
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
	cmd := exec.Command(
		tools.Path(t, "registry"),
		"-listen",
		address,
		"-cert",
		filepath.Join(dir, "tls.crt"),
		"-key",
		filepath.Join(dir, "tls.key"),
	)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	testkit.Must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Logf("registry:\n%s", output.String())
		}
	})
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			_ = conn.Close()
			return ca
		}
		if time.Now().After(deadline) {
			t.Fatal("the registry does not listen: ", err)
		}
	}
}

// commands returns the blocks of the quick start that are marked for the platform.
func (e *environment) commands(platform string) (blocks []string) {
	e.Helper()
	text, err := os.ReadFile(quickStart)
	e.must(err)
	marked := regexp.MustCompile("(?s)<!-- e2e: ([a-z, ]+) -->\n```sh\n(.*?)\n```\n")
	for _, match := range marked.FindAllStringSubmatch(string(text), -1) {
		if slices.Contains(strings.Split(match[1], ", "), platform) {
			blocks = append(blocks, match[2])
		}
	}
	if len(blocks) < 2 {
		e.Fatalf("%s has %d blocks of commands for %s", quickStart, len(blocks), platform)
	}
	return blocks
}

// A terminal is one shell of a user with a clone of the repository, the programs that the page requires, the
// cluster's kubeconfig, and credentials of the central account.
type terminal struct {
	dir string
	env []string
	// exported is a file with all variables that the commands have exported so far.
	exported string
}

func (e *environment) terminal() *terminal {
	e.Helper()
	bin, home := e.TempDir(), e.TempDir()
	for _, name := range []string{"helm", "kubectl"} {
		e.must(os.Symlink(tools.Path(e.T, name), filepath.Join(bin, name)))
	}
	storage, err := imageStore(e.TempDir())
	e.must(err)
	env := append([]string{"PATH=" + bin + ":" + os.Getenv("PATH"), "HOME=" + home, "KUBECONFIG=" + e.Kubeconfig(), storage},
		e.cloud.Account(central).AdminCredentials().Environ()...)
	// Modules and build results come from the machine, because there is no network here.
	for _, name := range []string{"GOMODCACHE", "GOCACHE"} {
		value, err := exec.CommandContext(e.Context(), "go", "env", name).Output()
		e.must(err)
		env = append(env, name+"="+strings.TrimSpace(string(value)))
	}
	return &terminal{dir: e.clone(), env: env, exported: filepath.Join(home, "exported")}
}

// clone copies the repository's files, including changed and new ones.
func (e *environment) clone() string {
	e.Helper()
	root, err := tools.Root(e.Context())
	e.must(err)
	list := exec.CommandContext(e.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	files, err := list.Output()
	e.must(err)
	dir := e.TempDir()
	for file := range strings.SplitSeq(strings.Trim(string(files), "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join(root, file))
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, but not committed yet
		}
		e.must(err)
		target := filepath.Join(dir, file)
		e.must(os.MkdirAll(filepath.Dir(target), 0o755))
		e.must(os.WriteFile(target, content, 0o644))
	}
	return dir
}

// run runs a block and answers yes to every question.
func (t *terminal) run(e *environment, block string) string {
	e.Helper()
	script := "if [ -e " + t.exported + " ]; then . " + t.exported + "; fi\n" + block + "\nexport -p > " + t.exported + "\n"
	command := exec.CommandContext(e.Context(), "bash", "-euo", "pipefail", "-c", script)
	command.Dir, command.Env, command.Stdin = t.dir, t.env, strings.NewReader("yes\n")
	out, err := command.CombinedOutput()
	if err != nil {
		e.Fatalf("%s\n%v\n%s", block, err, out)
	}
	return strings.TrimSpace(string(out))
}

//go:build linux

package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/ampbridge/ampbridge/test/node/preflight"
)

// containerdSocket is in /run, which is the node's own.
const containerdSocket = "/run/containerd/containerd.sock"

const containerdConfig = `
version = 2
root = "%[1]s/containerd"
state = "/run/containerd"
[grpc]
  address = "` + containerdSocket + `"
[plugins."io.containerd.internal.v1.opt"]
  path = "%[1]s/containerd/opt"
[plugins."io.containerd.grpc.v1.cri"]
  # Lowering a process's score takes a capability that containers of CI lack.
  restrict_oom_score_adj = true
  sandbox_image = "` + pauseImage + `"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "%[2]s"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "%[3]s"
    conf_dir = "%[4]s/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    base_runtime_spec = "%[5]s"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
`

// startContainerd starts containerd. It keeps only the images of an earlier node.
func (n *Node) startContainerd(ctx context.Context) error {
	cniBin, err := preflight.CNIDir()
	if err != nil {
		return err
	}
	conflist, err := json.MarshalIndent(cniNetwork(n.dir), "", "  ")
	if err != nil {
		return err
	}
	if _, err := n.write("cni/10-bridge.conflist", string(conflist)); err != nil {
		return err
	}
	spec, err := n.trust(ctx)
	if err != nil {
		return err
	}
	config, err := n.write("containerd.toml", fmt.Sprintf(containerdConfig, Dir(), snapshotter(Dir()), cniBin, n.dir, spec))
	if err != nil {
		return err
	}
	program, err := exec.LookPath("containerd")
	if err != nil {
		return err
	}
	if err := n.Run(program, "containerd", "--config", config); err != nil {
		return err
	}
	return n.WaitUntil(ctx, "containerd answers", func(ctx context.Context) error {
		return ctr(ctx, "version")
	})
}

// caFile is where Go programs, and most other programs on Linux, look for certificate authorities.
const caFile = "/etc/ssl/certs/ca-certificates.crt"

// trust makes the node and its containers trust Options.CA. It returns the file with the base specification
// of every container; empty for containerd's own.
func (n *Node) trust(ctx context.Context) (spec string, err error) {
	if len(n.options.CA) == 0 {
		return "", nil
	}
	file, err := n.write("ca.pem", string(n.options.CA))
	if err != nil {
		return "", err
	}
	// This is the node's own /etc. It is for containerd and for all programs that the test runs.
	if err := os.MkdirAll(filepath.Dir(caFile), 0o755); err != nil {
		return "", err
	}
	if err := replaceFile(caFile, string(n.options.CA)); err != nil {
		return "", err
	}
	text, err := exec.CommandContext(ctx, "ctr", "oci", "spec").Output()
	if err != nil {
		return "", fmt.Errorf("ctr oci spec: %w", err)
	}
	var object map[string]any
	if err := json.Unmarshal(text, &object); err != nil {
		return "", fmt.Errorf("ctr oci spec: %w", err)
	}
	mounts, ok := object["mounts"].([]any)
	if !ok {
		return "", errors.New("ctr oci spec: no mounts")
	}
	object["mounts"] = append(
		mounts,
		map[string]any{"destination": caFile, "type": "bind", "source": file, "options": []string{"bind", "ro"}},
	)
	if text, err = json.Marshal(object); err != nil {
		return "", err
	}
	return n.write("container.json", string(text))
}

// snapshotter returns overlayfs. If the directory is itself on an overlay, as in a container, it returns
// native, because overlays cannot be nested.
func snapshotter(dir string) string {
	if onOverlay(dir) {
		return "native"
	}
	return "overlayfs"
}

func cniNetwork(dir string) any {
	return map[string]any{"cniVersion": "1.0.0", "name": "pods", "plugins": []any{
		map[string]any{
			"type": "bridge", "bridge": "pods0", "isGateway": true, "ipMasq": false,
			"ipam": map[string]any{
				"type": "host-local", "dataDir": filepath.Join(dir, "addresses"),
				"ranges": [][]any{{map[string]any{"subnet": podRange, "gateway": podGateway}}},
				"routes": []any{map[string]any{"dst": "0.0.0.0/0"}},
			},
		},
	}}
}

func ctr(ctx context.Context, args ...string) error {
	args = append([]string{"--address", containerdSocket, "--namespace", "k8s.io"}, args...)
	out, err := exec.CommandContext(ctx, "ctr", args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("ctr %s: %w: %s", strings.Join(args[4:], " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

// importImages imports the images, and the image of the pods' first containers.
func (n *Node) importImages(ctx context.Context) error {
	for _, archive := range append([]string{pauseArchive(Dir())}, n.options.Images...) {
		if err := ctr(ctx, "images", "import", "--snapshotter", snapshotter(Dir()), archive); err != nil {
			return err
		}
		n.say("imported %s", filepath.Base(archive))
	}
	return nil
}

const kubeletConfig = `
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://` + containerdSocket + `
imageServiceEndpoint: unix://` + containerdSocket + `
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
clusterDomain: ` + clusterDomain + `
clusterDNS: [` + Address + `]
resolvConf: %[1]s/resolv.conf
podLogsDir: %[1]s/pods-log
readOnlyPort: 0
# Changed ConfigMaps reach pods sooner than the minute that it takes elsewhere.
syncFrequency: 5s
# Cgroups of either version, without systemd.
cgroupDriver: cgroupfs
cgroupsPerQOS: false
enforceNodeAllocatable: []
failCgroupV1: false
failSwapOn: false
cgroupRoot: /%[2]s
# Images cannot be pulled again, and the machine's disk is not the node's.
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: "50Mi", nodefs.available: "100Mi", nodefs.inodesFree: "1000",
  imagefs.available: "100Mi", imagefs.inodesFree: "1000"}
`

func (n *Node) startKubelet(context.Context) error {
	// The file is empty, because the kubelet writes each pod's own with the cluster's DNS.
	if _, err := n.write("resolv.conf", ""); err != nil {
		return err
	}
	config, err := n.write("kubelet.yaml", fmt.Sprintf(kubeletConfig, n.dir, cgroupName()))
	if err != nil {
		return err
	}
	return n.Run(n.programs["kubelet"], "kubelet", "--config="+config, "--kubeconfig="+n.Kubeconfig(),
		"--root-dir="+filepath.Join(n.dir, "kubelet"), "--cert-dir="+filepath.Join(n.dir, "kubelet-pki"),
		"--hostname-override="+Name, "--node-ip="+Address)
}

const proxyConfig = `
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
clientConnection: {kubeconfig: %s}
hostnameOverride: ` + Name + `
mode: iptables
clusterCIDR: ` + podRange + `
# Replies between two pods would take the bridge's short cut, past the rules
# that have to translate them back.
iptables: {masqueradeAll: true, minSyncPeriod: 100ms}
# The machine's own limits, which no namespace has.
conntrack: {maxPerCore: 0, min: 0, tcpCloseWaitTimeout: 0s, tcpEstablishedTimeout: 0s}
nodePortAddresses: [` + Address + `/32]
healthzBindAddress: 127.0.0.1:10256
metricsBindAddress: 127.0.0.1:10249
`

func (n *Node) startProxy(context.Context) error {
	config, err := n.write("kube-proxy.yaml", fmt.Sprintf(proxyConfig, n.Kubeconfig()))
	if err != nil {
		return err
	}
	return n.Run(n.programs["kube-proxy"], "kube-proxy", "--config="+config)
}

// A name that is neither a host nor in the cluster does not exist.
const corefile = `
.:53 {
    bind ` + Address + `
    errors
    ready 127.0.0.1:8181
    hosts {
%s        fallthrough
    }
    kubernetes ` + clusterDomain + ` in-addr.arpa {
        kubeconfig %s
        fallthrough
    }
    template ANY ANY {
        rcode NXDOMAIN
    }
}
`

func (n *Node) startDNS(ctx context.Context) error {
	var hosts strings.Builder
	for name, address := range n.options.Hosts {
		fmt.Fprintf(&hosts, "        %s %s\n", address, name)
	}
	config, err := n.write("Corefile", fmt.Sprintf(corefile, hosts.String(), n.Kubeconfig()))
	if err != nil {
		return err
	}
	if err := n.Run(n.programs["coredns"], "coredns", "-conf", config); err != nil {
		return err
	}
	// This process resolves names as pods do.
	if err := errors.Join(
		replaceFile("/etc/resolv.conf", "nameserver "+Address+"\n"),
		replaceFile("/etc/hosts", "127.0.0.1 localhost\n"+Address+" "+Name+"\n"),
	); err != nil {
		return err
	}
	return n.WaitUntil(ctx, "DNS knows the API server", func(ctx context.Context) error {
		resolver := net.Resolver{PreferGo: true}
		addresses, err := resolver.LookupHost(ctx, "kubernetes.default.svc."+clusterDomain+".")
		if err == nil && len(addresses) == 0 {
			err = errors.New("no address")
		}
		return err
	})
}

// replaceFile replaces a file of the node's own /etc. Often it is a link to a file that a program of the
// machine updates.
func replaceFile(path, content string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// write writes a file of the node's configuration and returns its path.
func (n *Node) write(name, content string) (string, error) {
	path := filepath.Join(n.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", err
	}
	return path, os.WriteFile(path, []byte(strings.TrimLeft(content, "\n")), 0o644)
}

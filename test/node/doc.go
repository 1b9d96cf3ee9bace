// Package node adds a real node to a test cluster of package cluster, so that the cluster runs pods. The node
// has containerd, a kubelet, kube-proxy, CNI and DNS.
//
// Everything runs in separate namespaces (processes, mounts, network, host name), which [Main] creates before
// the tests of a package run. So a test can act as AWS on port 443, the machine's firewall rules stay
// unchanged, and any number of nodes can run at the same time. Nothing is left after the test process ends,
// even if it is killed: when the first process of a namespace ends, the kernel removes the namespace's
// processes, mounts and network.
//
//	func TestMain(m *testing.M) { os.Exit(node.Main(m, node.Setup{})) }
//
//	func TestPods(t *testing.T) {
//		n := node.Start(t, node.Options{Hosts: map[string]string{"sts.eu-west-1.amazonaws.com": node.Address}})
//		n.Client().CoreV1().Pods(...)
//	}
//
// It needs root, Linux, and a few Debian packages. Package preflight names what is missing and the command
// that installs it.
//
// This node differs from a node in the clouds. Images are imported and never pulled. The network plugin
// does not enforce NetworkPolicies. Every program of the node has the administrator's permissions in the API
// server. CoreDNS runs next to the kubelet and not in a pod, and knows only the names of the cluster and the
// Hosts of the Options.
package node

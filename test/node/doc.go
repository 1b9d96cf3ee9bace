// Package node makes a test cluster of package cluster into one that runs pods:
// it adds a real node, with containerd, a kubelet, kube-proxy, CNI and DNS.
//
// All of it lives in namespaces of its own (processes, mounts, network, host
// name), which [Main] makes before the tests of a package run. So port 443 is
// free to play AWS on, no rule of the machine's firewall is touched, any number
// of them run side by side, and nothing outlives the test process, however that
// ends: the kernel takes a namespace's processes, mounts and network down with
// its first process.
//
//	func TestMain(m *testing.M) { os.Exit(node.Main(m, node.Setup{})) }
//
//	func TestPods(t *testing.T) {
//		n := node.Start(t, node.Options{Hosts: map[string]string{"sts.eu-west-1.amazonaws.com": node.Address}})
//		n.Client().CoreV1().Pods(...)
//	}
//
// It needs root, Linux, and a few Debian packages: package preflight names what
// is missing and the command that installs it.
//
// What differs from a node in the clouds: images are imported, never pulled;
// the network plugin enforces no NetworkPolicy; every program of the node has
// the administrator's rights in the API server; CoreDNS runs beside the kubelet
// rather than in a pod, and knows the cluster and the Hosts of the Options alone.
package node

// Command coredns is CoreDNS with the few plugins that a test node's DNS needs:
// the cluster's names, a list of hosts, and a word on its health. The whole of
// CoreDNS takes ten times as long to build.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/hosts"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
)

func main() {
	// Their order in a server block, as CoreDNS's own plugin.cfg has it.
	dnsserver.Directives = []string{"bind", "errors", "health", "ready", "hosts", "kubernetes"}
	coremain.Run()
}

package inject

import (
	"net"
	"net/url"
	"strings"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// defaultListen is Prometheus's own default of --web.listen-address.
const defaultListen = "0.0.0.0:9090"

// listening returns where the sidecar finds Prometheus, or zero if the arguments do not show it.
func listening(c *Container) sidecarconfig.Prometheus {
	first := func(flag, standard string) string {
		if value, set := c.firstFlag(flag); set {
			return value
		}
		return standard
	}
	address, prefix, external := first("web.listen-address", defaultListen), first("web.route-prefix", ""), first("web.external-url", "")
	if strings.Contains(address+prefix+external, "$") || c.hasFlag("web.systemd-socket") {
		return sidecarconfig.Prometheus{}
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil || port == "" {
		return sidecarconfig.Prometheus{}
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	if prefix == "" && external != "" {
		u, err := url.Parse(external)
		if err != nil {
			return sidecarconfig.Prometheus{}
		}
		prefix = u.Path
	}
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix = "/" + prefix
	}
	return sidecarconfig.Prometheus{Address: net.JoinHostPort(host, port), Prefix: prefix, TLS: c.hasFlag("web.config.file")}
}

// listensEverywhere reports whether Prometheus listens on all addresses of the pod.
func listensEverywhere(c *Container) bool {
	address, set := c.firstFlag("web.listen-address")
	if !set {
		address = defaultListen
	}
	host, _, err := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return err == nil && (host == "" || ip != nil && ip.IsUnspecified())
}

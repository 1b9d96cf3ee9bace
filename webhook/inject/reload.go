package inject

import (
	"net"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// reloadTarget is what a container has reload.
type reloadTarget int

const (
	// reloadUnknown: the pod does not say; it may be Prometheus.
	reloadUnknown reloadTarget = iota
	// reloadOwn: Prometheus.
	reloadOwn
	// reloadOther: another program of the pod, such as Alertmanager.
	reloadOther
)

// defaultReload is the default of prometheus-config-reloader's --reload-url, and
// of Thanos's --prometheus.url.
const defaultReload = "http://127.0.0.1:9090"

// reloadTarget compares the addresses that a reloader calls with Prometheus's.
func (c *Container) reloadTarget(prometheus *Container) reloadTarget {
	calls := slices.Concat(c.flag("reload-url"), c.flag("webhook-url"), c.flag("prometheus.url"))
	if len(calls) == 0 {
		calls = slices.DeleteFunc(slices.Concat(c.Command, c.Args), func(text string) bool { return !strings.Contains(text, reloadPath) })
		for _, v := range c.Env {
			if strings.Contains(v.Value, reloadPath) {
				calls = append(calls, v.Value)
			}
		}
	}
	if len(calls) == 0 {
		calls = []string{defaultReload}
	}
	found := reloadOther
	for _, call := range calls {
		switch target(call, prometheus) {
		case reloadOwn:
			return reloadOwn
		case reloadUnknown:
			found = reloadUnknown
		}
	}
	return found
}

// target compares one address with the port at which Prometheus listens. On
// another host, another port may be that of its Service.
func target(call string, prometheus *Container) reloadTarget {
	listen := defaultListen
	if values := prometheus.flag("web.listen-address"); len(values) > 0 {
		listen = values[0]
	}
	own := listen[strings.LastIndexByte(listen, ':')+1:]
	u, err := url.Parse(call)
	if err != nil || u.Host == "" {
		return reloadUnknown
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	ip := net.ParseIP(u.Hostname())
	switch {
	case port == own || strings.Contains(own, "$"):
		return reloadOwn
	case u.Hostname() == "localhost" || ip != nil && (ip.IsLoopback() || ip.IsUnspecified()):
		return reloadOther
	}
	return reloadUnknown
}

// reloadPath is that of the address by which Prometheus, and other programs of
// its kind, are told to reload.
const reloadPath = "/-/reload"

// reloaderFlags are those of prometheus-config-reloader, configmap-reload and
// Thanos's sidecar. Other programs have a --config-file too.
var reloaderFlags = []string{
	"watched-dir", "volume-dir", "reload-url", "config-envsubst-file", "reload-method", "watch-interval",
	"reloader.config-file", "reloader.rule-dir", "reloader.watch-interval",
}

// isReloader reports whether the container's flags or names are a reloader's.
func (c *Container) isReloader() bool {
	program, _ := c.commandLine()
	return slices.ContainsFunc(reloaderFlags, c.hasFlag) ||
		c.hasFlag("config-file") && slices.ContainsFunc([]string{c.Name, imageName(c.Image), path.Base(program)}, func(name string) bool {
			return strings.Contains(name, "reload")
		})
}

// reloads returns the name of a container that may have Prometheus reload, for
// whatever cause: it is a reloader, or it knows an address for it, and that may
// be Prometheus's. Empty: there is none.
func reloads(pod *Pod, prometheus *Container) string {
	knows := func(text string) bool { return strings.Contains(text, reloadPath) }
	for c := range pod.running {
		if c == prometheus {
			continue
		}
		if (c.isReloader() || slices.ContainsFunc(c.Command, knows) || slices.ContainsFunc(c.Args, knows) ||
			slices.ContainsFunc(c.Env, func(v EnvVar) bool { return knows(v.Value) })) && c.reloadTarget(prometheus) != reloadOther {
			return c.Name
		}
	}
	return ""
}

// signals returns the name of a container that could have Prometheus reload by
// a signal; empty: there is none. The sidecar drops all capabilities.
func signals(pod *Pod, prometheus *Container) string {
	if !pod.Spec.ShareProcessNamespace && !pod.Spec.HostPID {
		return ""
	}
	for c := range pod.running {
		if c != prometheus && c.Name != sidecarconfig.ContainerName {
			return c.Name
		}
	}
	return ""
}

// autoReloads reports whether Prometheus itself watches its configuration: a
// feature since 3.0, which older versions ignore, and a flag since 3.12.
func autoReloads(pod *Pod, c *Container) bool {
	v := versionOf(pod, c)
	return c.hasFlag("config.auto-reload") || (v.IsZero() || !v.Before(policy.Version{Major: 3})) &&
		slices.ContainsFunc(c.flag("enable-feature"), func(features string) bool {
			return slices.Contains(strings.Split(features, ","), "auto-reload-config")
		})
}

// reloaded reports whether another container of the pod watches the
// configuration and has this Prometheus reload it: prometheus-config-reloader with
// --watched-dir or --config-file, configmap-reload with --volume-dir, or Thanos's
// sidecar with --reloader.config-file or --reloader.rule-dir.
func reloaded(pod *Pod, prometheus *Container, read configuration) bool {
	for c := range pod.running {
		if c == prometheus || !c.isReloader() || c.reloadTarget(prometheus) != reloadOwn {
			continue
		}
		for _, file := range slices.Concat(c.flag("config-file"), c.flag("reloader.config-file")) {
			if at, refused := place(pod, c, path.Clean(file)); refused == nil && at == read {
				return true
			}
		}
		for _, dir := range slices.Concat(c.flag("watched-dir"), c.flag("volume-dir"), c.flag("reloader.rule-dir")) {
			// The file as this container sees it, if dir is the configuration's.
			at, refused := place(pod, c, path.Join(dir, path.Base(read.file)))
			if refused == nil && at == read {
				return true
			}
		}
	}
	return false
}

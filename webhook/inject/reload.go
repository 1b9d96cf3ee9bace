package inject

import (
	"net"
	"net/url"
	"path"
	"slices"
	"strings"
)

// Reload is how a changed configuration reaches Prometheus, if that is proven.
type Reload string

// The values of Reload.
const (
	// ReloadByReloader means that a container of the pod makes Prometheus reload.
	ReloadByReloader Reload = "reloader"
	// ReloadBySelf means that Prometheus watches its configuration.
	ReloadBySelf Reload = "auto"
	// ReloadNone means that nothing is known to reload Prometheus.
	ReloadNone Reload = "none"
)

// String describes the way in words.
func (r Reload) String() string {
	switch r {
	case ReloadByReloader:
		return "a container of the pod reloads Prometheus"
	case ReloadBySelf:
		return "Prometheus watches its configuration"
	case ReloadNone:
		return "nothing is known to reload Prometheus"
	}
	return string(r)
}

// reloadOf returns how a change of the served file reaches Prometheus. Prometheus reads this file
// itself, or it reads the file read, into which another container expands it. For [ReloadNone], why
// is the reason why no other way is proven.
func reloadOf(pod *Pod, prometheus *Container, read, served configuration, pinned bool) (way Reload, why string) {
	if pinned {
		return ReloadNone, "the configuration file is mounted with subPath, so it never changes"
	}
	keptUp := read == served
	why = "nothing in the pod reloads Prometheus"
	for c := range pod.running {
		if c == prometheus || !c.isReloader() {
			continue
		}
		watches := c.watches(pod, served)
		if read != served {
			watches = c.expands(pod, served, read)
			keptUp = keptUp || watches && !c.looksOnce()
		}
		switch problem := c.doesNotReload(prometheus); {
		case problem != "":
			why = problem
		case !watches:
			why = c.called() + " does not watch the configuration that Prometheus reads"
		default:
			return ReloadByReloader, ""
		}
	}
	if !keptUp {
		return ReloadNone, "the file that Prometheus reads is written only once, when the pod starts"
	}
	switch auto, problem := autoReloads(pod, prometheus); {
	case auto:
		return ReloadBySelf, ""
	case problem != "":
		why = problem
	}
	return ReloadNone, why
}

// autoReloads reports whether Prometheus itself watches its configuration, with proof. If
// Prometheus was configured to do so but cannot, problem is the reason.
func autoReloads(pod *Pod, c *Container) (auto bool, problem string) {
	feature := c.anyFlag(func(features string) bool {
		return slices.Contains(strings.Split(features, ","), "auto-reload-config")
	}, "enable-feature")
	flag := c.hasFlag("config.auto-reload")
	if !feature && !flag {
		return false, ""
	}
	v, unknown := versionOf(pod, c)
	switch {
	case v.IsZero():
		return false, unknown
	case feature && !v.Before(firstAutoFeature), flag && !v.Before(firstAutoFlag):
		return true, ""
	}
	return false, "Prometheus " + v.String() + " has no auto-reload"
}

// reloadPath is the path of the URL that makes Prometheus, and similar programs, reload.
const reloadPath = "/-/reload"

// reloaderFlags are flags of prometheus-config-reloader, configmap-reload and Thanos's sidecar.
// --config-file is not among them, because other programs have it too.
var reloaderFlags = []string{
	"watched-dir", "volume-dir", "reload-url", "config-envsubst-file", "reload-method", "watch-interval",
	"reloader.config-file", "reloader.rule-dir", "reloader.watch-interval",
}

// isReloader reports whether the container's flags or names are those of a reloader.
func (c *Container) isReloader() bool {
	program, _ := c.commandLine()
	return c.hasFlag(reloaderFlags...) ||
		c.hasFlag("config-file") && slices.ContainsFunc(
			[]string{c.Name, imageName(c.Image), path.Base(program)},
			func(name string) bool { return strings.Contains(name, "reload") },
		)
}

// doesNotReload returns the reason why it is not proven that a reloader makes this Prometheus
// reload; empty if it is proven.
func (c *Container) doesNotReload(prometheus *Container) string {
	other := func(method string) bool { return method != "http" }
	switch {
	case c.anyFlag(other, "reload-method", "reloader.method"):
		return c.called() + " reloads Prometheus by a signal"
	case c.looksOnce():
		return c.called() + " reads the configuration only once (--watch-interval=0)"
	case !slices.ContainsFunc(c.reloadAddresses(), func(call string) bool { return isOwn(call, prometheus) }):
		return c.called() + " does not call Prometheus's own reload address"
	case !prometheus.hasFlag("web.enable-lifecycle"):
		return "Prometheus refuses reload requests, because --web.enable-lifecycle is missing"
	}
	return ""
}

// looksOnce reports whether prometheus-config-reloader ends after it has read the configuration
// once.
func (c *Container) looksOnce() bool {
	return c.anyFlag(func(every string) bool { return strings.TrimRight(every, "hms0") == "" }, "watch-interval")
}

// defaultReload is the default of prometheus-config-reloader's --reload-url. Without the path it is
// also the default of Thanos's --prometheus.url.
const defaultReload = "http://127.0.0.1:9090" + reloadPath

// reloadAddresses returns the URLs that a reloader calls.
func (c *Container) reloadAddresses() []string {
	calls := c.flag("reload-url", "webhook-url")
	for _, base := range c.flag("prometheus.url") {
		calls = append(calls, strings.TrimRight(base, "/")+reloadPath)
	}
	if len(calls) == 0 {
		return []string{defaultReload}
	}
	return calls
}

// isOwn reports whether a URL is Prometheus's own reload URL: host, port and prefix must match.
func isOwn(call string, prometheus *Container) bool {
	own := listening(prometheus)
	u, err := url.Parse(call)
	if err != nil || cleanPath(u.Path) != own.Prefix+reloadPath {
		return false
	}
	port := u.Port()
	switch {
	case u.Scheme == "http" && port == "":
		port = "80"
	case u.Scheme == "https" && own.TLS && port == "":
		port = "443"
	case u.Scheme != "http" && (u.Scheme != "https" || !own.TLS):
		return false
	}
	host, listens, err := net.SplitHostPort(own.Address)
	if err != nil || port != listens {
		return false
	}
	called, at := net.ParseIP(u.Hostname()), net.ParseIP(host)
	loopback := u.Hostname() == "localhost" || called != nil && (called.IsLoopback() || called.IsUnspecified())
	switch {
	case u.Hostname() == host:
		return true
	case !loopback: // it could belong to another pod, for example through a Service
		return false
	case u.Hostname() == "localhost":
		return at != nil && at.IsLoopback()
	}
	return listensEverywhere(prometheus)
}

// watches reports whether a reloader notices a change of the served file. It does with these flags:
// --watched-dir or --config-file for prometheus-config-reloader, --volume-dir for configmap-reload,
// --reloader.config-file or --reloader.rule-dir for Thanos's sidecar.
func (c *Container) watches(pod *Pod, served configuration) bool {
	file := func(file string) bool { return c.sees(pod, file, served) }
	// file returns true for the path of the file in this container, if dir is the configuration's
	// directory.
	dir := func(dir string) bool { return file(path.Join(dir, path.Base(served.file))) }
	return c.anyFlag(file, configFlags...) || c.anyFlag(dir, "watched-dir", "volume-dir", "reloader.rule-dir")
}

// expands reports whether a reloader expands the file from into the file to.
func (c *Container) expands(pod *Pod, from, to configuration) bool {
	return c.anyFlag(func(file string) bool { return c.sees(pod, file, from) }, configFlags...) &&
		c.anyFlag(func(file string) bool { return c.sees(pod, file, to) }, expandedFlags...)
}

// sees reports whether a path in the container is the wanted file.
func (c *Container) sees(pod *Pod, file string, want configuration) bool {
	at, refused := place(pod, c, cleanPath(file))
	return refused == nil && at == want
}

// Flags of reloaders. configFlags name the configurations that they watch, and expandedFlags name
// the files that they write.
var (
	configFlags   = []string{"config-file", "reloader.config-file"}
	expandedFlags = []string{"config-envsubst-file", "reloader.config-envsubst-file"}
)

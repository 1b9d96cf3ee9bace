package chart

import (
	"strings"
	"testing"
)

// The status page is off by default, and listens on loopback alone.
func TestStatusPage(t *testing.T) {
	for _, tc := range []struct{ set, want string }{
		{"sync.statusPage.port=8090", ""},
		{"sync.statusPage=null", ""}, // the values of an older chart
		{"sync.statusPage.enabled=true", "--status-addr=127.0.0.1:8082"},
		{"sync.statusPage.enabled=true,sync.statusPage.port=8090", "--status-addr=127.0.0.1:8090"},
	} {
		all := render(t, "-f", minimal, "--set", tc.set)
		container := podOf(t, all.get(t, "Deployment", "ampbridge-sync")).Containers[0]
		got := ""
		for _, arg := range container.Args {
			if strings.HasPrefix(arg, "--status-addr") {
				got = arg
			}
		}
		if got != tc.want {
			t.Errorf("%s: %q, want %q", tc.set, got, tc.want)
		}
		// No Service and no port of the container leads to it.
		for _, port := range container.Ports {
			if port.ContainerPort != 8080 && port.ContainerPort != 8081 {
				t.Errorf("%s: the container names port %d", tc.set, port.ContainerPort)
			}
		}
	}
	// It is a process's page: a CronJob's has none.
	all := render(t, "-f", minimal, "--set", "sync.mode=cronJob,sync.statusPage.enabled=true")
	for _, arg := range podOf(t, all.get(t, "CronJob", "ampbridge-sync")).Containers[0].Args {
		if strings.HasPrefix(arg, "--status-addr") {
			t.Errorf("a CronJob has %s", arg)
		}
	}
	for _, wrong := range []string{"sync.statusPage.port=80", "sync.statusPage.port=8081", "sync.statusPage.address=0.0.0.0"} {
		_, stderr, err := helm(t, "template", release, chartDir, "-f", minimal, "--set", wrong)
		if err == nil || !strings.Contains(stderr, "statusPage") {
			t.Errorf("%s: %v: %s", wrong, err, stderr)
		}
	}
}

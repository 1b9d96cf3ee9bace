package sidecar

import (
	"strconv"
	"testing"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

func TestMetricsAddress(t *testing.T) {
	for _, c := range []struct {
		name, config, want string
	}{
		{"of an older webhook", `{"version":1,"source":"a","target":"b","file":"c","credentials":"d","token":"e"}`, ":9095"},
		{"chosen", `{"version":1,"source":"a","target":"b","file":"c","credentials":"d","token":"e","metricsPort":19095}`, ":19095"},
		{"none", `{"version":1,"source":"a","target":"b","file":"c","credentials":"d","token":"e","metricsPort":-1}`, ""},
		{"a config that cannot be read: some container may have the port", "{", ""},
	} {
		s := newServer(Options{Config: c.config})
		if got := s.metricsAddress(DefaultMetricsAddress); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	s := newServer(Options{Config: `{"version":1,"source":"a","target":"b","file":"c","credentials":"d","token":"e","metricsPort":19095}`})
	if got := s.metricsAddress("127.0.0.1:1"); got != "127.0.0.1:19095" {
		t.Errorf("%q: the host is not the webhook's to choose", got)
	}
	if got := s.metricsAddress(""); got != "" {
		t.Errorf("%q without an address to serve at", got)
	}
	if want := ":" + strconv.Itoa(int(sidecarconfig.DefaultMetricsPort)); DefaultMetricsAddress != want {
		t.Errorf("the default is %s, and the one of sidecarconfig is %s", DefaultMetricsAddress, want)
	}
}

package testkit_test

import (
	"os"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

func TestProcessMemory(t *testing.T) {
	self := os.Getpid()
	now, peak := testkit.ProcessMemory(t, self, "RssAnon"), testkit.ProcessMemory(t, self, "VmHWM")
	if now < 100<<10 || peak < now {
		t.Errorf("now %d bytes, at the peak %d", now, peak)
	}
	r := record(t, func(tb testing.TB) { testkit.ProcessMemory(tb, self, "NoSuchSize") })
	if !strings.Contains(r.fatal, "no NoSuchSize") {
		t.Errorf("failed with %q", r.fatal)
	}
}

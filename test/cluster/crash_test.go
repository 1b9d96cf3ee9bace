package cluster

import (
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// If a program crashed during a test, only this error would explain the test's strange failures.
func TestCloseTellsOfACrash(t *testing.T) {
	c, err := New(t.Context(), Options{Progress: t.Output()})
	testkit.Must(t, err)
	t.Cleanup(func() { _ = c.Close() })
	controllers := c.processes[len(c.processes)-1]
	testkit.Must(t, controllers.cmd.Process.Kill())
	select {
	case <-controllers.done:
	case <-time.After(time.Minute):
		t.Fatal("the killed process does not end")
	}
	err = c.Close()
	if want := "kube-controller-manager ended: signal: killed"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want it to contain %q", err, want)
	}
}

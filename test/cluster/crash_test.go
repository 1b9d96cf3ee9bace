package cluster

import (
	"strings"
	"testing"
	"time"
)

// A program that dies under a test would leave no trace but odd failures.
func TestCloseTellsOfACrash(t *testing.T) {
	c, err := New(t.Context(), Options{Progress: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	controllers := c.processes[len(c.processes)-1]
	if err := controllers.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
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

package sidecar_test

import (
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// statusServed asks the sidecar for its status over HTTP; ok is false while it does not answer.
func (p *pod) statusServed(t *testing.T) (status sidecarconfig.Status, ok bool) {
	t.Helper()
	answer, err := http.Get("http://" + p.metrics + sidecarconfig.StatusPath)
	if err != nil {
		return status, false
	}
	text := testkit.ReadBody(t, answer)
	if got := answer.Header.Get("Content-Type"); answer.StatusCode != http.StatusOK || got != "application/json" {
		t.Fatalf("%s, %s: %s", answer.Status, got, text)
	}
	if status, err = sidecarconfig.DecodeStatus([]byte(text)); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	return status, true
}

func TestStatusIsServed(t *testing.T) {
	t.Parallel()
	p := newPod(t, 3600, "central", "backup")
	p.metrics = testkit.FreeAddr(t)
	began := time.Now()
	p.start(t)
	p.eventually(t, "both blocks are served", func() bool { return p.has("central") && p.has("backup") })
	var status sidecarconfig.Status
	p.eventually(t, "the status", func() (ok bool) {
		status, ok = p.statusServed(t)
		return ok && len(status.Destinations) == 2 && status.Destinations[0].Block && status.Destinations[1].Block
	})
	if status.Time.Before(began) || status.Started.Before(began) || status.Started.After(status.Time) {
		t.Errorf("made at %s by a sidecar that was started at %s; the test began at %s", status.Time, status.Started, began)
	}
	if status.Error != "" || status.Config.Result != "rendered" || status.Config.SourceHash == "" ||
		status.Config.SourceHash == status.Config.RenderedHash {
		t.Errorf("status %+v", status)
	}
	for i, name := range []string{"central", "backup"} {
		d := status.Destinations[i]
		if d.Name != name || !d.Served || !d.Valid || d.Error != "" || d.Skipped != "" || time.Until(d.Expires) < 50*time.Minute ||
			!d.GapSince.IsZero() {
			t.Errorf("destination %+v", d)
		}
	}
	if file := p.status(t); !file.Time.IsZero() || len(file.Destinations) != 2 {
		t.Errorf("the file %+v", file)
	}
	answer, err := http.Post("http://"+p.metrics+sidecarconfig.StatusPath, "text/plain", strings.NewReader("x"))
	testkit.Must(t, err)
	_ = answer.Body.Close()
	if answer.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a POST is answered with %s", answer.Status)
	}
}

// Without a session the status names the error, and why the relay is in use.
func TestStatusNamesTheError(t *testing.T) {
	t.Parallel()
	p := newPod(t, 3600, "central")
	p.metrics, p.wait = testkit.FreeAddr(t), 0
	p.Fail("sts:*", awstest.Deny)
	p.start(t)
	var first sidecarconfig.Status
	p.eventually(t, "the error of the session", func() (ok bool) {
		first, ok = p.statusServed(t)
		return ok && first.Destinations[0].Error != "" && first.Config.Result != "" && first.Destinations[0].GapSince.IsZero()
	})
	if d := first.Destinations[0]; d.Valid || !d.Served || !d.Block || !d.Expires.IsZero() ||
		d.Delivery != sidecarconfig.DeliveryRelay || !strings.Contains(d.Moved, "no session when the pod started") {
		t.Errorf("destination %+v", d)
	}
	testkit.Must(t, os.Rename(p.config.Source, p.config.Source+".hidden"))
	p.eventually(t, "the error of the source", func() bool {
		status, ok := p.statusServed(t)
		return ok && strings.Contains(status.Error, "cannot serve Prometheus's configuration")
	})
}

package sidecar_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/sidecar"
)

// A sidecar for a writer that is no Prometheus has no configuration to serve: it is ready
// with the password, listens at the port of its config, and forwards what is written
// there, signed. Without a session it answers 503, and the pod starts nevertheless.
func TestWriter(t *testing.T) {
	p := newPod(t, 3600, "a")
	var authorization, body string
	amp := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		authorization, body = r.Header.Get("Authorization"), string(text)
	}))
	t.Cleanup(amp.Close)
	port, err := testkit.UnusedPort()
	testkit.Must(t, err)
	p.config.Version, p.config.RelayPort = sidecarconfig.VersionWriter, int32(port)
	p.config.Source, p.config.Target, p.config.File = "", "", ""
	d := &p.config.Destinations[0]
	d.Delivery, d.Block.URL = policy.DeliveryRelay, amp.URL+"/workspaces/ws-a/api/v1/remote_write"
	p.metrics = testkit.FreeAddr(t)

	if err := sidecar.Ready(p.options()); err == nil || !strings.Contains(err.Error(), "relay-password") {
		t.Errorf("before the start: %v", err)
	}
	down := p.Fail("sts:*", awstest.Refuse)
	p.start(t)
	testkit.Must(t, sidecar.Ready(p.options()))
	write := func() int {
		password := testkit.ReadFile(t, filepath.Join(filepath.Dir(p.config.Credentials), sidecarconfig.RelayPasswordFile))
		url := d.Block.ByRelay(fmt.Sprintf("127.0.0.1:%d", port), "").URL
		request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader("samples"))
		testkit.Must(t, err)
		request.SetBasicAuth(policy.RelayUser, password)
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			return 0 // the port opens in a moment
		}
		testkit.Must(t, response.Body.Close())
		return response.StatusCode
	}
	p.eventually(t, "the relay answers 503", func() bool { return write() == http.StatusServiceUnavailable })
	p.eventually(t, "the status has no write", func() bool {
		status, ok := p.statusServed(t)
		return ok && status.Destinations[0].Taken != nil && status.Destinations[0].Taken.IsZero()
	})
	began := time.Now()
	down.Stop()
	p.eventually(t, "the write is forwarded", func() bool { return write() == http.StatusOK })
	if body != "samples" || !strings.HasPrefix(authorization, "AWS4-HMAC-SHA256 ") {
		t.Errorf("AMP got %q with %q", body, authorization)
	}
	p.eventually(t, "the status tells of it", func() bool {
		status, ok := p.statusServed(t)
		return ok && status.Error == "" && len(status.Destinations) == 1 && status.Destinations[0].Valid && status.Destinations[0].Served &&
			status.Destinations[0].Delivery == sidecarconfig.DeliveryRelay && status.Destinations[0].Taken.After(began)
	})
}

// A config of a version that this sidecar does not know is refused, and one for a writer
// without a port.
func TestWriterNeedsItsPort(t *testing.T) {
	c := newPod(t, 3600, "a").config
	for version, want := range map[int]string{sidecarconfig.VersionWriter: "relayPort", sidecarconfig.VersionWriter + 1: "versions 1 to 3"} {
		c.Version = version
		if _, err := sidecarconfig.Decode(c.Encode()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("version %d: %v", version, err)
		}
	}
}

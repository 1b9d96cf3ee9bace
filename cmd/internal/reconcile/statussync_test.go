package reconcile_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/cmd/internal/reconcile"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// The page of a real sync shows what its last pass saw. Loading it calls neither AWS nor,
// where there is no pass, changes anything.
func TestStatusPageOfASync(t *testing.T) {
	b := start(t)
	p := b.control(policyText, func(o *reconcile.Options) {
		o.StatusAddr = testkit.FreeAddr(b)
		o.Image = "registry.example.com/ampbridge:v1"
	})
	page := func() string { return get("http://" + p.options.StatusAddr + "/") }
	b.eventually("the page shows that AWS is in sync", func() bool {
		text := page()
		return strings.Contains(text, "AWS is in sync with the policy") && strings.Contains(text, "Last audit")
	})
	text := page()
	for _, want := range []string{"central", "changes were made", "arn:aws:iam::"} {
		if !strings.Contains(text, want) {
			_, main, _ := strings.Cut(text, "<main>")
			t.Errorf("the page lacks %q:\n%s", want, main)
		}
	}
	for _, secret := range []string{"AKIA", "ASIA", "eyJ", "aws_secret"} {
		if strings.Contains(text, secret) {
			t.Errorf("the page has %q", secret)
		}
	}
	before, passes := len(b.cloud.Calls()), p.metric("ampbridge_sync_last_success_timestamp_seconds")
	for range 200 {
		if !strings.Contains(page(), "ampbridge sync") {
			t.Fatal("the page is gone")
		}
	}
	if after := p.metric("ampbridge_sync_last_success_timestamp_seconds"); after == passes && len(b.cloud.Calls()) != before {
		t.Errorf("200 requests caused %d calls to AWS", len(b.cloud.Calls())-before)
	}

	// A name that another site has resolve to this address is refused.
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.options.StatusAddr+"/", nil)
	b.must(err)
	request.Host = "rebound.example.com"
	client := http.Client{Timeout: 10 * time.Second}
	response, err := client.Do(request)
	b.must(err)
	b.must(response.Body.Close())
	if response.StatusCode != http.StatusMisdirectedRequest {
		t.Errorf("a foreign name is answered with %s", response.Status)
	}
}

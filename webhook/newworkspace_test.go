package webhook_test

import (
	"log/slog"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook"
)

// Only bootstrap accepts a workspace that does not exist yet. The webhook would send metrics to a
// workspace that does not exist.
func TestNewWorkspaceIsRefused(t *testing.T) {
	good := testkit.ReadFile(t, "testdata/policy.yaml")
	draft := regexp.MustCompile(`workspace/ws-[0-9a-zA-Z-]+`).ReplaceAllString(good, "workspace/ws-new")
	file := testkit.TempFile(t, "policy.yaml", draft)
	source := webhook.WatchPolicy(file, nil, webhook.NewMetrics(prometheus.NewRegistry()), slog.New(slog.DiscardHandler))
	if err := source.Err(); source.Current() != nil || err == nil ||
		!strings.Contains(err.Error(), "destinations[0].workspace: is ws-new") {
		t.Errorf("got %v, %v", source.Current(), err)
	}
}

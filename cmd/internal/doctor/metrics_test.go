package doctor

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/test/testkit"
)

func TestParseMetricsReadsEveryValue(t *testing.T) {
	got, err := parseMetrics(`# HELP sent_total Samples.
# TYPE sent_total counter
sent_total{remote_name="central",url="https://x/?a=\"b\",c={d}"} 900
sent_total{remote_name="backup",url="https://y"} 1e3
# TYPE newest gauge
newest 1.7e+09

# TYPE seconds histogram
seconds_bucket{le="1"} 2
seconds_bucket{le="+Inf"} 3
seconds_sum 4
seconds_count 3
untyped -1 1700000000000
`)
	testkit.Must(t, err)
	want := check.Metrics{
		"sent_total": {
			{Labels: map[string]string{"remote_name": "central", "url": `https://x/?a="b",c={d}`}, Value: 900},
			{Labels: map[string]string{"remote_name": "backup", "url": "https://y"}, Value: 1000},
		},
		"newest":  {{Labels: map[string]string{}, Value: 1.7e9}},
		"untyped": {{Labels: map[string]string{}, Value: -1}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestParseMetricsRefusesAnotherFormat(t *testing.T) {
	for _, text := range []string{"<html>no</html>\n", "up one\n", "up{a=1} 1\n"} {
		if got, err := parseMetrics(text); err == nil {
			t.Errorf("%s: %v", strings.TrimSpace(text), got)
		}
	}
}

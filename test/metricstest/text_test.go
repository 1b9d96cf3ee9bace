package metricstest_test

import (
	"testing"

	"github.com/ampbridge/ampbridge/test/metricstest"
)

func TestValue(t *testing.T) {
	const text = "# TYPE up gauge\nup{job=\"a\"} 1\nup{job=\"ab\"} 0.5\nupper 7\nbroken x\n"
	for sample, want := range map[string]float64{`up{job="a"}`: 1, `up{job="ab"}`: 0.5, "upper": 7} {
		if got, ok := metricstest.Value(text, sample); !ok || got != want {
			t.Errorf("%s: got %v (there: %v), want %v", sample, got, ok, want)
		}
	}
	for _, sample := range []string{"up", `up{job="b"}`, "# TYPE", "broken"} {
		if got, ok := metricstest.Value(text, sample); ok {
			t.Errorf("%s: got %v, want none", sample, got)
		}
	}
}

package promconfig_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/policy/promconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// BenchmarkRender renders the chart's configuration with its scrape jobs
// repeated until it has that size.
func BenchmarkRender(b *testing.B) {
	head, rest, _ := strings.Cut(testkit.ReadFile(b, "testdata/chart.in.yaml"), "- job_name: kubernetes-pods\n")
	jobs, tail, _ := strings.Cut(rest, "- job_name: prometheus\n")
	for _, size := range []int{100 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			config := []byte(head)
			for len(config) < size {
				config = append(config, "- job_name: kubernetes-pods\n"...)
				config = append(config, jobs...)
			}
			config = append(append(config, "- job_name: prometheus\n"...), tail...)
			b.SetBytes(int64(len(config)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := promconfig.Render(config, blocks(b), "1"); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

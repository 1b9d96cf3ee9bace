package promconfig_test

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	"github.com/ampbridge/ampbridge/policy/promconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// BenchmarkRender renders the chart's configuration with its scrape jobs
// repeated until it has that size.
func BenchmarkRender(b *testing.B) {
	chart, err := os.ReadFile("testdata/chart.in.yaml")
	testkit.Must(b, err)
	head, rest, _ := bytes.Cut(chart, []byte("- job_name: kubernetes-pods\n"))
	jobs, tail, _ := bytes.Cut(rest, []byte("- job_name: prometheus\n"))
	for _, size := range []int{100 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			config := bytes.Clone(head)
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

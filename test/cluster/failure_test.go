package cluster_test

import (
	"bytes"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
)

func TestFailedStart(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	testkit.Must(t, err)
	t.Cleanup(func() { _ = taken.Close() })
	_, takenPort, err := net.SplitHostPort(taken.Addr().String())
	testkit.Must(t, err)

	for _, test := range []struct {
		name    string
		options cluster.Options
		want    string // in the error
		retries int
	}{
		{
			name:    "issuer without discovery",
			options: cluster.Options{Issuer: "kubernetes/serviceaccount"},
			want:    `Options.Issuer "kubernetes/serviceaccount": want an https URL`,
		},
		{
			name:    "a program that ends tells why",
			options: cluster.Options{ExtraAPIServerArgs: []string{"--no-such-flag"}},
			want:    "unknown flag: --no-such-flag",
		},
		{
			name:    "a taken port is tried again",
			options: cluster.Options{ExtraAPIServerArgs: []string{"--secure-port=" + takenPort}},
			want:    "address already in use",
			retries: 2,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			temp := t.TempDir()
			t.Setenv("TMPDIR", temp)
			var progress bytes.Buffer
			test.options.Progress = &progress
			c, err := cluster.New(t.Context(), test.options)
			if err == nil {
				_ = c.Close()
				t.Fatal("the cluster started")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("got error %q, want it to contain %q", err, test.want)
			}
			if got := strings.Count(progress.String(), "trying others"); got != test.retries {
				t.Errorf("got %d retries, want %d; progress:\n%s", got, test.retries, &progress)
			}
			left, err := os.ReadDir(temp)
			testkit.Must(t, err)
			if len(left) != 0 {
				t.Errorf("a failed start leaves %v", left)
			}
		})
	}
}

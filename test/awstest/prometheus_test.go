package awstest_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

// TestRealPrometheusWrites is the client that all of this is for: a Prometheus that signs with a session
// from a profile and writes its own samples.
func TestRealPrometheusWrites(t *testing.T) {
	binary := tools.Path(t, "prometheus")
	f := newFixtureWith(t, awstest.Options{Prometheus: binary})
	creds := f.session()
	profile := testkit.TempFile(t, "credentials", fmt.Sprintf(
		"[central]\naws_access_key_id = %s\naws_secret_access_key = %s\naws_session_token = %s\n",
		creds.AccessKeyID, creds.SecretAccessKey, creds.SessionToken))
	address := testkit.FreeAddr(t)
	configuration := testkit.TempFile(t, "prometheus.yml", fmt.Sprintf(`
global: {scrape_interval: 200ms, external_labels: {cluster: dev}}
scrape_configs:
- job_name: self
  static_configs: [{targets: [%q]}]
remote_write:
- url: %s
  sigv4: {region: %s, profile: central}
  queue_config: {batch_send_deadline: 200ms}
`, address, f.workspace.RemoteWriteURL(f.cloud.URL), region))

	var output testkit.Buffer
	command := exec.Command(
		binary,
		"--config.file="+configuration,
		"--storage.tsdb.path="+t.TempDir(),
		"--web.listen-address="+address,
	)
	command.Env = append(os.Environ(), "AWS_SHARED_CREDENTIALS_FILE="+profile)
	command.Stdout, command.Stderr = &output, &output
	testkit.Must(t, command.Start())
	t.Cleanup(func() {
		_ = command.Process.Kill() // it may have ended
		_ = command.Wait()         // killed
		if t.Failed() {
			t.Logf("prometheus: %s", output.String())
		}
	})
	testkit.EventuallyEmpty(t, func() string {
		samples, err := f.cloud.Query(background, f.workspace.ID, `up{cluster="dev",job="self"}`)
		if err == nil && len(samples) == 1 && samples[0].Value == 1 {
			return ""
		}
		return fmt.Sprintf("no samples: %v, %v; writes: %+v", samples, err, f.cloud.Writes(f.workspace.ID))
	})
	for _, write := range f.cloud.Writes(f.workspace.ID) {
		if !write.Stored() || write.AccessKeyID != creds.AccessKeyID {
			t.Errorf("write = %+v", write)
		}
	}
}

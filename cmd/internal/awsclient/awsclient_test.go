package awsclient_test

import (
	"crypto/sha1" //nolint:gosec // it names the SDK's cache files
	"encoding/hex"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/ampbridge/ampbridge/cmd/internal/awsclient"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

const profiles = `[profile sso]
sso_session = company
sso_account_id = 111122223333
sso_role_name = Admin
[sso-session company]
sso_start_url = https://company.awsapps.com/start
sso_region = eu-west-1
[profile chained]
role_arn = arn:aws:iam::111122223333:role/writer
source_profile = gone
`

// A person without usable credentials reads one line that names the fix, and no log of the SDK.
func TestCredentialsErrorsNameTheFix(t *testing.T) {
	for _, c := range []struct {
		name string
		env  map[string]string
		want []string
	}{
		{"none", nil, []string{"no AWS credentials: log in (aws sso login), or set AWS_PROFILE"}},
		{"the instance refuses", map[string]string{"AWS_EC2_METADATA_DISABLED": "false"},
			[]string{"no AWS credentials: log in (aws sso login), or set AWS_PROFILE"}},
		{"not logged in", map[string]string{"AWS_PROFILE": "sso", "HOME": t.TempDir()},
			[]string{"no AWS credentials: failed to read cached SSO token file", ": log in (aws sso login --profile sso), or set AWS_PROFILE"}},
		{"the login has expired", map[string]string{"AWS_PROFILE": "sso"},
			[]string{"no AWS credentials: ", "SSO token is expired", ": log in (aws sso login --profile sso), or set AWS_PROFILE"}},
		{"an unknown profile", map[string]string{"AWS_PROFILE": "gone"},
			[]string{`there is no AWS profile "gone": correct AWS_PROFILE`, "aws configure list-profiles"}},
		{"an unknown source of a profile", map[string]string{"AWS_PROFILE": "chained"},
			[]string{`there is no AWS profile "gone": `, "source_profile"}},
		{"a session that has expired", map[string]string{"AWS_ACCESS_KEY_ID": "ASIAUNKNOWN", "AWS_SECRET_ACCESS_KEY": "x"},
			[]string{"GetCallerIdentity: InvalidClientTokenId: ", ": log in (aws sso login), or set AWS_PROFILE"}},
		{"a token file that is missing", map[string]string{
			"AWS_WEB_IDENTITY_TOKEN_FILE": "/missing/token", "AWS_ROLE_ARN": "arn:aws:iam::111122223333:role/writer",
		}, []string{"no AWS credentials: ", "/missing/token"}},
		{"a pod without a role", map[string]string{"KUBERNETES_SERVICE_HOST": "10.0.0.1"},
			[]string{"no AWS credentials: give the pod's service account an AWS role (for sync: sync.roleArn"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			logged := redirectStderr(t)
			home := t.TempDir()
			name := sha1.Sum([]byte("company"))
			cache := filepath.Join(home, ".aws", "sso", "cache")
			testkit.Must(t, os.MkdirAll(cache, 0o700))
			testkit.WriteFile(t, filepath.Join(cache, hex.EncodeToString(name[:])+".json"),
				`{"accessToken":"x","expiresAt":"2020-01-01T00:00:00Z","startUrl":"https://company.awsapps.com/start","region":"eu-west-1"}`)
			t.Setenv("HOME", home)
			awstest.Start(t, awstest.Options{}).Setenv(t, awstest.Credentials{})
			t.Setenv("AWS_CONFIG_FILE", testkit.TempFile(t, "config", profiles))
			instance := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(http.StatusForbidden)
			}))
			defer instance.Close()
			t.Setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", instance.URL)
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			err := callerIdentity(t)
			if err == nil {
				t.Fatal("there is an identity")
			}
			text := awsclient.Short(err).Error()
			for _, want := range c.want {
				if !strings.Contains(text, want) {
					t.Errorf("%q does not contain %q", text, want)
				}
			}
			if printed := testkit.ReadFile(t, logged); printed != "" || strings.Contains(text, "\n") {
				t.Errorf("the SDK prints %q, the error is %q", printed, text)
			}
		})
	}
}

// AWS that does not answer is not AWS that refuses: the error names the host and the fix.
func TestUnreachableAWS(t *testing.T) {
	closed := httptest.NewServer(nil)
	closed.Close()
	address := strings.TrimPrefix(closed.URL, "http://")
	inspected := httptest.NewTLSServer(http.NotFoundHandler())
	defer inspected.Close()
	inspected.Config.ErrorLog = log.New(io.Discard, "", 0)
	hangingUp := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	defer hangingUp.Close()
	for name, c := range map[string]struct{ endpoint, want string }{
		"no program listens": {closed.URL,
			"GetCallerIdentity: no answer from " + address + ": connect: connection refused: check the network, and the proxy (HTTPS_PROXY)"},
		"an unknown host": {"http://sts.eu-wset-1.invalid",
			"GetCallerIdentity: no answer from sts.eu-wset-1.invalid: no such host: check the region"},
		"a proxy that inspects":    {inspected.URL, ": where a proxy inspects TLS, name a file with its CA in AWS_CA_BUNDLE"},
		"a firewall that hangs up": {hangingUp.URL, ": EOF: check the network, and the proxy"},
	} {
		t.Run(name, func(t *testing.T) {
			awstest.Start(t, awstest.Options{}).Setenv(t, awstest.Credentials{AccessKeyID: "AKIAUNKNOWN", SecretAccessKey: "x"})
			t.Setenv("AWS_MAX_ATTEMPTS", "1")
			t.Setenv("AWS_ENDPOINT_URL_STS", c.endpoint)
			err := callerIdentity(t)
			if err == nil || !strings.Contains(awsclient.Short(err).Error(), c.want) {
				t.Errorf("%v, want %q", awsclient.Short(err), c.want)
			}
		})
	}
}

// redirectStderr returns the path of a file that takes what the program prints on stderr.
func redirectStderr(t *testing.T) string {
	t.Helper()
	file, err := os.Create(filepath.Join(t.TempDir(), "stderr"))
	testkit.CloseAfter(t, file, err)
	before := os.Stderr
	os.Stderr = file
	t.Cleanup(func() { os.Stderr = before })
	return file.Name()
}

func callerIdentity(t *testing.T) error {
	cfg, err := awsclient.Config(t.Context(), config.WithDefaultRegion("eu-west-1"))
	if err != nil {
		return err
	}
	_, err = sts.NewFromConfig(cfg).GetCallerIdentity(t.Context(), &sts.GetCallerIdentityInput{})
	return err
}

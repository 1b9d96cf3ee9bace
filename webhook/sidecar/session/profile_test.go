package session_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/sts"

	"github.com/ampbridge/ampbridge/test/ststest"
	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

// TestProfiles reads the config file with the SDK, as Prometheus does, and gets
// sessions by it: through an endpoint with a private CA, chained too.
func TestProfiles(t *testing.T) {
	for _, name := range []string{"AWS_CA_BUNDLE", "AWS_ENDPOINT_URL_STS", "AWS_PROFILE"} {
		t.Setenv(name, "") // which would win
	}
	w := ststest.New(t)
	first := w.Role(t, account, "first", 3600)
	second := w.ChainedRole(t, "444455556666", "second", first)
	path := filepath.Join(t.TempDir(), "config")
	o := session.Options{Token: w.Token, Name: "dev-monitoring-prometheus-0", Endpoint: w.TLSURL, CABundle: string(w.CA)}
	profiles := []session.Profile{
		{Name: "ampbridge-central", Region: ststest.Region, Role: first},
		{Name: "ampbridge-chained", Region: ststest.Region, Role: first, AssumeRole: second},
	}
	for range 2 {
		if err := session.WriteProfiles(path, profiles, o); err != nil {
			t.Fatal(err)
		}
	}
	for profile, role := range map[string]string{"ampbridge-central": "first", "ampbridge-chained": "second"} {
		c, err := config.LoadDefaultConfig(context.Background(), config.WithRegion(ststest.Region), config.WithSharedConfigProfile(profile),
			config.WithSharedConfigFiles([]string{path}), config.WithSharedCredentialsFiles(nil))
		if err != nil {
			t.Fatal(err)
		}
		who, err := sts.NewFromConfig(c).GetCallerIdentity(context.Background(), &sts.GetCallerIdentityInput{})
		if err != nil {
			t.Errorf("%s: %v", profile, err)
		} else if !strings.HasSuffix(*who.Arn, ":assumed-role/"+role+"/dev-monitoring-prometheus-0") {
			t.Errorf("%s is %s", profile, *who.Arn)
		}
	}
}

func TestProfilesOfOddValues(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	if err := session.WriteProfiles(path, []session.Profile{{Name: "p", Role: "r\n[profile admin]"}}, session.Options{}); err == nil {
		t.Error("a value with a line of its own is written")
	}
	if err := session.WriteProfiles(filepath.Join(path, "in a file"), nil, session.Options{}); err == nil {
		t.Error("a file in no directory is written")
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a file was written")
	}
}

// TestEnvironmentIsIgnored: EKS's webhook, and others, put an identity into
// every container of a pod, the sidecar's too.
func TestEnvironmentIsIgnored(t *testing.T) {
	for name, value := range map[string]string{
		"AWS_ROLE_ARN": "arn:aws:iam::111122223333:role/other", "AWS_WEB_IDENTITY_TOKEN_FILE": "/nonexistent", "AWS_ROLE_SESSION_NAME": "other",
		"AWS_ACCESS_KEY_ID": "AKIAOTHER", "AWS_SECRET_ACCESS_KEY": "other", "AWS_SESSION_TOKEN": "other", "AWS_PROFILE": "other",
		"AWS_REGION": "us-gov-west-1", "AWS_DEFAULT_REGION": "us-gov-west-1", "AWS_CONFIG_FILE": "/nonexistent",
		"AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
		"AWS_ENDPOINT_URL":            "http://127.0.0.1:1", "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:1", "AWS_CA_BUNDLE": "/nonexistent",
		"AWS_USE_FIPS_ENDPOINT": "true", "AWS_USE_DUALSTACK_ENDPOINT": "true", "AWS_STS_REGIONAL_ENDPOINTS": "legacy", "AWS_MAX_ATTEMPTS": "9",
	} {
		t.Setenv(name, value)
	}
	w := ststest.New(t)
	first := w.Role(t, account, "first", 43200)
	second := w.ChainedRole(t, "444455556666", "second", first)
	for _, assumeRole := range []string{"", second} {
		if _, err := client(t, w, nil).Obtain(context.Background(), ststest.Region, first, assumeRole); err != nil {
			t.Errorf("with assumeRole %q: %v", assumeRole, err)
		}
	}
	for _, call := range w.Calls() {
		if call.Service == "sts" && !strings.HasSuffix(call.Principal, "/dev-monitoring-prometheus-0") {
			t.Errorf("%s by %q", call.Action, call.Principal)
		}
	}
}

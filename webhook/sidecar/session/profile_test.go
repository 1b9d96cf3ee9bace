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

package session_test

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

func TestName(t *testing.T) {
	pod := "prometheus-kube-prometheus-stack-prometheus-shard-3-0"
	for _, tc := range []struct{ cluster, namespace, pod, want string }{
		{"dev", "monitoring", "prometheus-0", "dev-monitoring-prometheus-0"},
		{"dev", "monitoring", "", "dev-monitoring-"},
		{"é b", "m", "p", "--b-m-p"},
		{"development-aks-westeurope", "monitoring", pod, "development-aks-west-theus-stack-prometheus-shard-3-0"},
	} {
		got := session.Name(tc.cluster, tc.namespace, tc.pod)
		if len(got) > 64 || len(got) < 2 || !strings.HasSuffix(got, tail(tc.pod)) || tc.cluster == "dev" && got != tc.want {
			t.Errorf("Name(%q, %q, %q) = %q", tc.cluster, tc.namespace, tc.pod, got)
		}
	}
}

func tail(s string) string { return s[max(0, len(s)-40):] }

func TestSessionInTime(t *testing.T) {
	begin := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for _, tc := range []struct{ life, margin time.Duration }{
		{time.Minute, 6 * time.Second},
		{time.Hour, 30 * time.Second},
		{12 * time.Hour, 30 * time.Second},
	} {
		s := session.Session{AccessKeyID: "A", Obtained: begin, Expires: begin.Add(tc.life)}
		last := s.Expires.Add(-tc.margin)
		if !s.Valid(begin) || !s.Valid(last.Add(-1)) || s.Valid(last) || s.Valid(s.Expires) {
			t.Errorf("a session of %v is not valid exactly until %v before its end", tc.life, tc.margin)
		}
		for range 100 {
			if at := s.Renewal().Sub(begin); at < tc.life*29/100 || at > tc.life*37/100 {
				t.Fatalf("a session of %v is renewed after %v", tc.life, at)
			}
		}
	}
	if (session.Session{}).Valid(time.Now()) || (session.Session{}).Valid(time.Time{}) {
		t.Error("no session is valid")
	}
}

func TestPause(t *testing.T) {
	within := func(failures int, life, least, most time.Duration) {
		t.Helper()
		current := session.Session{Obtained: time.Now()}
		current.Expires = current.Obtained.Add(life)
		if p := session.Pause(failures, current); p < least || p > most {
			t.Errorf("after %d failures with a life of %v: %v, want %v to %v", failures, life, p, least, most)
		}
	}
	within(1, 0, 200*time.Millisecond, 300*time.Millisecond)
	within(3, 0, 800*time.Millisecond, 1200*time.Millisecond)
	within(20, 0, 48*time.Second, 72*time.Second)
	within(1<<20, 0, 48*time.Second, 72*time.Second)
	within(20, time.Minute, 4*time.Second, 8*time.Second)
}

func some(key string) session.Session {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	return session.Session{
		AccessKeyID:     key,
		SecretAccessKey: "s/+=" + key,
		SessionToken:    "t/+==" + key,
		Obtained:        at,
		Expires:         at.Add(time.Hour),
	}
}

func TestStore(t *testing.T) {
	for _, mode := range []fs.FileMode{0o600, 0o644} {
		path := filepath.Join(t.TempDir(), "credentials")
		store, err := session.OpenStore(path, mode)
		testkit.Must(t, err)
		for profile, key := range map[string]string{"ampbridge-central": "ASIA1", "ampbridge-backup": "ASIA2"} {
			testkit.Must(t, store.Put(profile, some(key)))
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != mode {
			t.Errorf("mode %v, %v; want %v", info.Mode(), err, mode)
		}
		again, err := session.OpenStore(path, mode)
		testkit.Must(t, err)
		testkit.Equal(t, "read back", some("ASIA1"), again.Session("ampbridge-central"))
		testkit.Must(t, again.Put("ampbridge-central", some("ASIA3")))
		text := testkit.ReadFile(t, path)
		want := ""
		for _, section := range []struct{ header, key string }{
			{"ampbridge-backup", "ASIA2"}, {"profile ampbridge-backup", "ASIA2"},
			{"ampbridge-central", "ASIA3"}, {"profile ampbridge-central", "ASIA3"},
		} {
			want += `[` + section.header + `]
# ampbridge session from 2026-01-02T03:04:05.000000678Z until 2026-01-02T04:04:05.000000678Z
aws_access_key_id = ` + section.key + `
aws_secret_access_key = s/+=` + section.key + `
aws_session_token = t/+==` + section.key + `

`
		}
		testkit.Equal(t, "file", want, text)
	}
}

// TestSDKReadsTheFile as Prometheus does.
func TestSDKReadsTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials")
	store, err := session.OpenStore(path, 0o600)
	testkit.Must(t, err)
	for profile, key := range map[string]string{"ampbridge-central": "ASIA1", "ampbridge-backup": "ASIA2"} {
		testkit.Must(t, store.Put(profile, some(key)))
		for as, files := range map[string]func(*config.LoadSharedConfigOptions){
			"AWS_SHARED_CREDENTIALS_FILE": func(o *config.LoadSharedConfigOptions) {
				o.CredentialsFiles, o.ConfigFiles = []string{path}, []string{}
			},
			"AWS_CONFIG_FILE": func(o *config.LoadSharedConfigOptions) {
				o.CredentialsFiles, o.ConfigFiles = []string{}, []string{path}
			},
		} {
			read, err := config.LoadSharedConfigProfile(context.Background(), profile, files)
			if err != nil {
				t.Fatal(as, err)
			}
			want := some(key)
			got := session.Session{
				AccessKeyID:     read.Credentials.AccessKeyID,
				SecretAccessKey: read.Credentials.SecretAccessKey,
				SessionToken:    read.Credentials.SessionToken,
				Obtained:        want.Obtained,
				Expires:         want.Expires,
			}
			testkit.Equal(t, fmt.Sprintf("%s as %s", profile, as), want, got)
		}
	}
}

func TestStoreFailures(t *testing.T) {
	path := filepath.Join(t.TempDir(), "credentials")
	store, err := session.OpenStore(path, 0o600)
	testkit.Must(t, err)
	for _, bad := range []session.Session{{}, {AccessKeyID: "a\nb", SecretAccessKey: "s", SessionToken: "t"},
		{AccessKeyID: "a", SecretAccessKey: "s"}} {
		if err := store.Put("p", bad); err == nil {
			t.Errorf("%+v is written", bad)
		}
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("a file was written")
	}
	testkit.WriteFile(t, path, "garbage\n[p]\naws_access_key_id\n# ampbridge session from x until y\n")
	temporary := filepath.Join(filepath.Dir(path), ".credentials.tmp123")
	testkit.WriteFile(t, temporary, "secret")
	store, err = session.OpenStore(path, 0o600)
	if err != nil || store.Session("p").Valid(time.Now()) {
		t.Errorf("garbage gives %+v, %v", store.Session("p"), err)
	}
	if _, err := os.Stat(temporary); err == nil {
		t.Error("what a crash left behind is still there")
	}
	// The directory is gone: what was there stays what is handed out.
	testkit.Must(t, store.Put("p", some("ASIA1")))
	testkit.Must(t, os.RemoveAll(filepath.Dir(path)))
	if err := store.Put("p", some("ASIA2")); err == nil || store.Session("p").AccessKeyID != "ASIA1" {
		t.Errorf("after a failed write: %v, %s", err, store.Session("p").AccessKeyID)
	}
}

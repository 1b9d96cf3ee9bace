package policy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/test/testkit"
)

func load(t *testing.T, name string) *Policy {
	t.Helper()
	p, err := Parse([]byte(testkit.ReadFile(t, "testdata/"+name)))
	if err != nil {
		t.Fatalf("%s:\n%v", name, err)
	}
	return p
}

func TestParseFillsDefaults(t *testing.T) {
	p := load(t, "minimal.yaml")
	if p.Token != (Token{Audience: "sts.amazonaws.com", ExpirationSeconds: 3600, Source: "projected"}) {
		t.Errorf("token = %+v", p.Token)
	}
	if time.Duration(p.Session.Duration) != 6*time.Hour {
		t.Errorf("session.duration = %s", p.Session.Duration)
	}
	if p.Grants[0].Environment != EnvironmentSidecar || p.Trust.Manage != ManageRoles {
		t.Errorf("grant environment %q, trust.manage %q", p.Grants[0].Environment, p.Trust.Manage)
	}
	if got, want := p.Role(p.Destinations[0]).String(), "arn:aws:iam::111122223333:role/ampbridge/dev/ampbridge.dev.central"; got != want {
		t.Errorf("role = %s, want %s", got, want)
	}
}

func TestParseReadsEveryField(t *testing.T) {
	p := load(t, "full.yaml")
	if got := string(p.Cluster.Issuer); !strings.HasSuffix(got, "444455556666/") {
		t.Errorf("issuer %q lost its trailing slash", got)
	}
	d := p.Destinations[0]
	if d.RemoteWrite.QueueConfig.BatchSendDeadline != Duration(90*time.Second) || d.RemoteWrite.WriteRelabelConfigs[0].Action != "drop" {
		t.Errorf("remoteWrite = %+v", d.RemoteWrite)
	}
	if p.Destinations[0].Delivery != DeliveryAuto || p.Destinations[1].Delivery != DeliveryRelay {
		t.Errorf("delivery %q and %q", p.Destinations[0].Delivery, p.Destinations[1].Delivery)
	}
	if p.Destinations[1].AssumeRole.RoleName() != "writer" {
		t.Errorf("assumeRole = %s", p.Destinations[1].AssumeRole)
	}
	if g := p.Grants[1]; g.HA != "legacy-pair" || !g.IRSA || g.Environment != EnvironmentContainer {
		t.Errorf("grant = %+v", g)
	}
	if p.Sidecar.ImagePullSecrets[0].Name != "registry" || p.Sidecar.Resources.Limits.CPU != "100m" {
		t.Errorf("sidecar = %+v", p.Sidecar)
	}
	if p.Trust.Accounts[0].SyncRole.RoleName() != "ampbridge-sync" {
		t.Errorf("accounts = %+v", p.Trust.Accounts)
	}
}

// TestBrokenPolicies: each file in testdata/broken has one mistake, and its
// first line is the comment `# ` + the error that names the field and the fix.
func TestBrokenPolicies(t *testing.T) {
	files, err := filepath.Glob("testdata/broken/*.yaml")
	if err != nil || len(files) < 20 {
		t.Fatalf("%d broken policies, want 20 or more (%v)", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			text := testkit.ReadFile(t, file)
			_, err := Parse([]byte(text))
			var errs Errors
			if !errors.As(err, &errs) {
				t.Fatalf("Parse = %v, want an Errors", err)
			}
			if testkit.Updating() {
				_, rest, _ := strings.Cut(text, "\n")
				text = "# " + errs.Error() + "\n" + rest
				testkit.WriteFile(t, file, text)
			}
			first, _, _ := strings.Cut(text, "\n")
			if got, want := errs.Error(), strings.TrimPrefix(first, "# "); got != want {
				t.Errorf("error\n got: %s\nwant: %s", got, want)
			}
		})
	}
}

func TestEveryMistakeIsReportedAtOnce(t *testing.T) {
	_, err := Parse([]byte(`apiVersion: ampbridge.io/v1
kind: Policy
cluster: {name: Dev_1}
destinations:
- {name: central, workspace: arn:aws:s3:::bucket, endpont: https://x}
- {name: central, workspace: 12, delivery: proxy}
grants:
- {namespaces: "*", serviceAccounts: [], destinations: [nowhere]}
session: {duration: 6 hours}
token: {expirationSeconds: soon}
`))
	testkit.Golden(t, "testdata/every-mistake.txt", err.Error()+"\n")
}

func TestNotAPolicyAtAll(t *testing.T) {
	for name, text := range map[string]string{
		"empty": "", "scalar": "hello", "list": "- a", "two documents": "a: 1\n---\nb: 2", "not YAML": "a: [", "comment only": "# nothing",
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Parse([]byte(text)); err == nil || len(err.Error()) < 10 {
				t.Errorf("Parse = %v, want a reason", err)
			}
		})
	}
}

func TestFilesThatUnfoldAreRefused(t *testing.T) {
	minimal := testkit.ReadFile(t, "testdata/minimal.yaml")
	head := "sidecar: {imagePullSecrets: [&a {name: x}"
	bomb := minimal + "sts: {caBundle: &s ''}\n"
	bomb = strings.Replace(
		bomb,
		"destinations:",
		"destinations:\n- &d {name: bomb, remoteWrite: {writeRelabelConfigs: [&r {sourceLabels: [a"+strings.Repeat(
			", a",
			1000,
		)+"]}"+strings.Repeat(
			", *r",
			1000,
		)+"]}}"+strings.Repeat(
			"\n- *d",
			1000,
		),
		1,
	)
	for name, row := range map[string]struct{ text, says string }{
		"aliases of aliases": {bomb, "aliases"},
		"a huge file":        {minimal + strings.Repeat("# \n", 1<<19), "bytes"},
		"many plain values":  {minimal + head + strings.Repeat(", *a", 1000) + "]}\n", ""},
	} {
		_, err := Parse([]byte(row.text))
		if row.says == "" && err != nil || row.says != "" && (err == nil || !strings.Contains(err.Error(), row.says)) {
			t.Errorf("%s: %.200v, want one that says %q", name, err, row.says)
		}
	}
}

// TestCABundleHoldsNoKey: the policy's bundle travels in every pod.
func TestCABundleHoldsNoKey(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	testkit.Must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	testkit.Must(t, err)
	certificates := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}))
	withKey := certificates + string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte{1}}))
	for path, field := range map[string]func(*Policy) *string{
		"sts.caBundle":                         func(p *Policy) *string { return &p.STS.CABundle },
		"destinations[0].remoteWrite.caBundle": func(p *Policy) *string { return &p.Destinations[0].RemoteWrite.CABundle },
	} {
		p := load(t, "minimal.yaml")
		*field(p) = certificates
		if errs := p.validate(); len(errs) > 0 {
			t.Errorf("%s: a certificate: %v", path, errs)
		}
		*field(p) = withKey
		if errs := p.validate(); len(errs) != 1 || errs[0].Path != path || !strings.Contains(errs[0].Problem, "EC PRIVATE KEY") {
			t.Errorf("%s: a key beside it: %v", path, errs)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"full.yaml", "minimal.yaml"} {
		data := testkit.ReadFile(f, filepath.Join("testdata", name))
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse([]byte(text))
		if (p == nil) == (err == nil) {
			t.Fatalf("Parse = %v, %v: want one of the two", p, err)
		}
	})
}

func TestGlob(t *testing.T) {
	for _, row := range []struct {
		glob    Glob
		matches []string
		not     []string
	}{
		{"monitoring", []string{"monitoring"}, []string{"monitoring2", "Monitoring", "", "a-monitoring"}},
		{"team-*", []string{"team-a", "team-"}, []string{"team", "ateam-a"}},
		{"*-prometheus", []string{"a-prometheus", "-prometheus"}, []string{"prometheus", "a-prometheus-b"}},
		{"a*b*c", []string{"abc", "axxbyyc", "abbcc"}, []string{"ab", "ac", "acb", "abcd"}},
		{"a*a", []string{"aa", "aba"}, []string{"a"}},
		{"*", []string{"", "x"}, nil},
		// Characters that are special in other pattern languages stand for themselves.
		{"a.b", []string{"a.b"}, []string{"axb"}},
	} {
		for _, name := range row.matches {
			if !row.glob.Match(name) {
				t.Errorf("%q does not match %q", row.glob, name)
			}
		}
		for _, name := range row.not {
			if row.glob.Match(name) {
				t.Errorf("%q matches %q", row.glob, name)
			}
		}
	}
}

// A workspace that is yet to be made is for bootstrap alone.
func TestNewWorkspace(t *testing.T) {
	text := strings.Replace(taggedPolicy, "trust:", `- {name: new, workspace: "arn:aws:aps:eu-west-1:111122223333:workspace/ID"}
trust:`, 1)
	for _, id := range []string{"ws-new", "ws-new-1", "ws-NEW"} {
		data := []byte(strings.Replace(text, "ID", id, 1))
		_, err := Parse(data)
		if err == nil || !strings.Contains(err.Error(), "line 7: destinations[1].workspace: is "+id+",") ||
			strings.Contains(err.Error(), "destinations[0]") {
			t.Errorf("%s: %v", id, err)
		}
		p, err := ParseDraft(data)
		if err != nil || !p.Destinations[1].Workspace.IsNew() || p.Destinations[0].Workspace.IsNew() {
			t.Errorf("%s: a draft: %v", id, err)
		}
	}
	// A draft is as strict in everything else.
	if _, err := ParseDraft([]byte(strings.Replace(text, "trust:", "trusts:", 1))); err == nil {
		t.Error("an unknown field of a draft is accepted")
	}
}

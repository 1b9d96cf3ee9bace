package doctor_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/awstest"
)

// inPod runs doctor with what a container has, which is an environment and a token file. Some
// checks are always skipped. In the sidecar's container there is no Prometheus here, and in any
// other one the workspace is not known.
func (s *fixture) inPod() {
	role := "arn:aws:iam::" + accountID + ":role/ampbridge/demo/" + roleName
	file := filepath.Join(s.dir, "token")
	token := func(serviceAccount, audience string) func(*fixture) string {
		return func(s *fixture) string {
			s.Helper()
			text, err := s.kube.Token(s.Context(), namespace, serviceAccount, audience, 600)
			s.try(err)
			return text
		}
	}
	ours := token(serviceAccount, "sts.amazonaws.com")
	identity := []string{"AWS_ROLE_ARN=" + role, "AWS_WEB_IDENTITY_TOKEN_FILE=" + file, "AWS_REGION=" + region}
	for _, c := range []struct {
		name    string
		token   func(*fixture) string
		env     []string
		args    []string
		id      check.ID // empty: none fails
		message string
	}{
		{"all well", ours, identity, nil, "", ""},
		{"all well, by the policy", ours, identity, []string{"--policy", s.policyFile}, "", ""},
		{"token file missing", nil, identity, nil, check.TokenMinted, "does not exist"},
		{"token file empty", func(*fixture) string { return "\n" }, identity, nil, check.TokenMinted, "is empty"},
		{"not a token", func(*fixture) string { return "eyJzb21ldGhpbmcgZWxzZQ" }, identity, nil, check.TokenMinted, "this is not a token"},
		{"the Azure token", token(serviceAccount, policy.AudienceAzure), identity, []string{"--policy", s.policyFile}, check.TokenMinted,
			"this is the token of Azure's webhook"},
		{"the Azure token, unknown to the pod", token(serviceAccount, policy.AudienceAzure), identity, nil, check.Session,
			"Incorrect token audience"},
		{"expired token", func(*fixture) string {
			signer := awstest.NewSigner(issuerURL, jose.RS256)
			claims := signer.Claims("system:serviceaccount:"+namespace+":"+serviceAccount, "sts.amazonaws.com")
			claims["exp"] = time.Now().Add(-time.Hour).Unix()
			return signer.Sign(claims)
		}, identity, nil, check.TokenMinted, "it expired at"},
		{"subject mismatch", token("default", "sts.amazonaws.com"), identity, nil, check.Session, "Not authorized"},
		{"static keys win over the role", ours, append(slices.Clone(identity), "AWS_ACCESS_KEY_ID=AKIAEXAMPLE"), nil, check.Identity,
			"static keys win"},
		{"no identity", ours, nil, nil, check.Identity, "the pod has no identity for AWS"},
		{"the sidecar's container", ours, []string{sidecarconfig.Variable + "=" + s.sidecarConfig(file)}, nil, "", ""},
	} {
		s.Run(c.name, func(t *testing.T) {
			s := s.in(t)
			_ = os.Remove(file)
			if c.token != nil {
				s.try(os.WriteFile(file, []byte(c.token(s)), 0o600))
			}
			env := []string{
				"HOME=" + s.dir,
				"HTTPS_PROXY=" + s.proxy,
				"SSL_CERT_FILE=" + filepath.Join(s.dir, "public-ca.pem"),
				"AWS_ENDPOINT_URL_STS=" + s.cloud.URL,
			}
			a := s.doctor(append(env, c.env...), append([]string{"--in-pod"}, c.args...)...)
			if c.id == "" {
				want := unchecked
				if len(c.args) > 0 {
					want = 0 // the policy names the workspace, so the write is checked too
				}
				if a.status != want || a.Status(check.Session) != check.Pass {
					t.Errorf("status %d\n%s", a.status, a.text())
				}
				return
			}
			if len(a.Failed) != 1 || a.Failed[0] != c.id || a.status != 1 || !contains(a.finding().Message, c.message) {
				t.Errorf("failed %v, status %d; want %s (%q)\n%s", a.Failed, a.status, c.id, c.message, a.text())
			}
			for _, f := range a.Findings {
				if f.ID == c.id {
					break
				}
				// Outside of the sidecar's container the workspace is not known.
				if f.Status != check.Pass && f.ID != check.Write {
					t.Errorf("%s is %s\n%s", f.ID, f.Status, a.text())
				}
			}
		})
	}
}

// sidecarConfig returns the config of a sidecar, with the token in the file.
func (s *fixture) sidecarConfig(file string) string {
	s.Helper()
	pod, err := s.kube.Client().CoreV1().Pods(
		namespace,
	).Create(
		s.Context(),
		prometheusPod("config", nil),
		metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}},
	)
	s.try(err)
	for _, v := range pod.Spec.InitContainers[0].Env {
		if v.Name != sidecarconfig.Variable {
			continue
		}
		a, err := sidecarconfig.Decode(strings.ReplaceAll(v.Value, "$$", "$"))
		s.try(err)
		// This machine's files of the same names do not belong to the pod.
		a.Token, a.Credentials, a.Prometheus = file, filepath.Join(s.TempDir(), "credentials"), sidecarconfig.Prometheus{}
		return a.Encode()
	}
	s.Fatal("the pod was not injected")
	return ""
}

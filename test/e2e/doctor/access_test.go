package doctor_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/policy/check"
)

// limitedAccess removes some of doctor's access. Doctor runs the checks that it still can.
func (s *fixture) limitedAccess() {
	s.Run("the documented rights, and no others", func(t *testing.T) { s.in(t).documentedRights() })
	s.Run("no cluster", func(t *testing.T) {
		s := s.in(t)
		env := append(s.environ(), "KUBECONFIG=/dev/null")
		a := s.doctor(env, "--policy", s.policyFile)
		s.require(env, map[string]int{"all": 1, "cluster": 1, "aws": 0})
		s.expectSkipped(
			a,
			check.Kubernetes,
			check.IssuerMatches,
			check.Namespace,
			check.ServiceAccount,
			check.Registration,
			check.Endpoints,
			check.Certificate,
			check.Injection,
			check.TokenMinted,
			check.SyncLeads,
			check.Session,
			check.Write,
			check.Pods,
			check.Identity,
			check.Sidecar,
			check.Flow,
		)
	})
	s.Run("neither cluster nor AWS credentials", func(t *testing.T) {
		s := s.in(t)
		env := append(s.withoutCredentials(), "KUBECONFIG=/dev/null")
		if a := s.doctor(env, "--policy", s.policyFile); a.status != unchecked {
			s.Errorf("status %d\n%s", a.status, a.text())
		}
		if a := s.doctor(env); a.status != unchecked || len(a.NotChecked) != len(check.All) {
			s.Errorf("no policy either: status %d\n%s", a.status, a.text())
		}
		s.require(env, map[string]int{"all": 1, "cluster": 1, "aws": 1})
	})
	s.Run("AWS does not answer", func(t *testing.T) {
		s := s.in(t)
		env := append(s.environ(), "AWS_MAX_ATTEMPTS=1")
		for i, e := range env {
			if name, _, _ := strings.Cut(e, "="); strings.HasPrefix(name, "AWS_ENDPOINT_URL") {
				env[i] = name + "=http://127.0.0.1:1"
			}
		}
		s.setPolicy("endpoint: "+s.cloud.TLSURL, "endpoint: https://127.0.0.1:1", "endpoint: "+s.cloud.URL, "endpoint: http://127.0.0.1:1")
		defer s.setPolicy()
		a := s.doctor(env, "--policy", s.policyFile, "--kubeconfig", s.kube.Kubeconfig())
		if a.status != 1 || !slices.Equal(a.Failed, []check.ID{check.Session}) || a.Status(check.Account) != check.Skip {
			s.Errorf("status %d\n%s", a.status, a.text())
		}
		s.require(env, map[string]int{"all": 1, "cluster": 1, "aws": 1}, "--kubeconfig", s.kube.Kubeconfig())
		s.require(append(env, "KUBECONFIG=/dev/null"), map[string]int{"all": 1, "cluster": 1, "aws": 1})
	})
	s.Run("the API server does not answer", func(t *testing.T) {
		s := s.in(t)
		config := filepath.Join(s.dir, "down.kubeconfig")
		up, err := os.ReadFile(s.kube.Kubeconfig())
		s.try(err)
		s.try(os.WriteFile(config, bytes.ReplaceAll(up, []byte(s.kube.URL), []byte("https://127.0.0.1:1")), 0o600))
		a := s.doctor(s.environ(), "--policy", s.policyFile, "--kubeconfig", config)
		s.require(s.environ(), map[string]int{"all": 1, "cluster": 1, "aws": 1}, "--kubeconfig", config)
		if !slices.Equal(a.Failed, []check.ID{check.Kubernetes}) || a.Status(check.OIDCProvider) != check.Pass ||
			a.Status(check.Workspace) != check.Pass {
			s.Errorf("failed %v\n%s", a.Failed, a.text())
		}
	})
	s.Run("no AWS credentials", func(t *testing.T) {
		s := s.in(t)
		env := s.withoutCredentials()
		a := s.doctor(env, "--policy", s.policyFile, "--kubeconfig", s.kube.Kubeconfig())
		s.require(env, map[string]int{"all": 1, "cluster": 1, "aws": 1}, "--kubeconfig", s.kube.Kubeconfig()) // no pod runs
		// Sessions and the remote write use the pod's own token.
		s.expectSkipped(a, append([]check.ID{check.Account, check.OIDCProvider, check.RoleExists, check.TrustDocument, check.Permissions,
			check.Boundary, check.Workspace, check.Query}, podChecks...)...)
	})
	s.Run("no way to the issuer, but AWS has one", func(t *testing.T) {
		s := s.in(t)
		a := s.doctor(append(s.environ(), "HTTPS_PROXY=http://127.0.0.1:1"), "--policy", s.policyFile, "--kubeconfig", s.kube.Kubeconfig())
		s.expectSkipped(a, podChecks...)
	})
	s.Run("the issuer is not known", func(t *testing.T) {
		s := s.in(t)
		s.setPolicy("  issuer: "+issuerURL+"\n", "")
		defer s.setPolicy()
		a := s.doctor(append(s.environ(), "KUBECONFIG=/dev/null"), "--policy", s.policyFile)
		if a.status != unchecked || a.Status(check.TrustDocument) != check.Skip || a.Status(check.RoleExists) != check.Pass {
			s.Errorf("status %d\n%s", a.status, a.text())
		}
	})
	s.Run("no sample", func(t *testing.T) {
		s := s.in(t)
		a := s.runDoctor(fault{args: []string{"--no-write"}})
		s.expectSkipped(a, append([]check.ID{check.Write}, podChecks...)...)
		if slices.Contains(a.NotChecked, check.Write) {
			s.Errorf("what --no-write leaves out counts as not checked: %v", a.NotChecked)
		}
	})
	s.Run("every format", func(t *testing.T) {
		s := s.in(t)
		for format, part := range map[string]string{"text": "✓ write ", "html": `data-check="write" data-status="pass"`} {
			cmd := exec.CommandContext(s.Context(), s.ampbridge, "doctor", "-o", format, "--kubeconfig", s.kube.Kubeconfig())
			cmd.Env = s.environ()
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != unchecked || !contains(string(out), part) || bytes.Contains(out, []byte(tokenStart)) {
				s.Errorf("%s: %v\n%s", format, err, out)
			}
		}
	})
}

// withoutCredentials returns the environment of a person who is not logged in to AWS.
func (s *fixture) withoutCredentials() []string {
	return append(slices.DeleteFunc(s.environ(), func(e string) bool {
		return strings.HasPrefix(e, "AWS_ACCESS_KEY_ID") || strings.HasPrefix(e, "AWS_SECRET_ACCESS_KEY")
	}), "AWS_EC2_METADATA_DISABLED=true")
}

// require runs doctor with each value of --require, and expects its exit status.
func (s *fixture) require(env []string, want map[string]int, args ...string) {
	s.Helper()
	for scope, status := range want {
		a := s.doctor(env, append(args, "--policy", s.policyFile, "--require", scope)...)
		if a.status != status {
			s.Errorf("--require %s: status %d, want %d: %s\n%s", scope, a.status, status, a.stderr, a.text())
		}
		if a.status == 1 && len(a.Failed) == 0 && !contains(a.stderr, "--require "+scope+": not checked: ") {
			s.Errorf("--require %s: %s", scope, a.stderr)
		}
	}
}

// expectSkipped expects that these checks are skipped, and all others pass.
func (s *fixture) expectSkipped(a answer, ids ...check.ID) {
	s.Helper()
	if a.status != unchecked {
		s.Errorf("status %d, %s", a.status, a.stderr)
	}
	for _, r := range check.All {
		want := check.Pass
		switch {
		case slices.Contains(ids, r.ID), r.ID == check.Read: // nothing here reads
			want = check.Skip
		case r.ID == check.SyncLeads:
			want = check.Warn
		}
		if status := a.Status(r.ID); status != want {
			s.Errorf("%s: %s, want %s\n%s", r.ID, status, want, a.text())
		}
	}
}

var fenced = regexp.MustCompile("(?s)```(yaml|json)\n(.*?)```")

// documentedRights runs doctor with the rights that docs/reference/doctor.md lists.
func (s *fixture) documentedRights() {
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "reference", "doctor.md"))
	s.try(err)
	blocks := map[string]string{}
	for _, m := range fenced.FindAllStringSubmatch(string(page), -1) {
		blocks[m[1]] = m[2]
	}
	var role rbacv1.ClusterRole
	s.try(yaml.UnmarshalStrict([]byte(blocks["yaml"]), &role))
	client := s.kube.Client()
	s.must(client.RbacV1().ClusterRoles().Create(s.Context(), &role, metav1.CreateOptions{}))
	s.must(
		client.CoreV1().ServiceAccounts(
			system,
		).Create(
			s.Context(),
			&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "doctor"}},
			metav1.CreateOptions{},
		),
	)
	s.must(client.RbacV1().ClusterRoleBindings().Create(s.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: role.Name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role.Name},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: system, Name: "doctor"}},
	}, metav1.CreateOptions{}))
	kubeconfig, err := s.kube.KubeconfigFor(s.Context(), system, "doctor")
	s.try(err)
	keys, err := s.account.PutUser("doctor", blocks["json"])
	s.try(err)
	env := append(s.environ(), keys.Environ()...)
	s.eventually(
		"the rights are in force",
		func() bool { return s.doctor(env, "--kubeconfig", kubeconfig).Status(check.Policy) == check.Pass },
	)
	s.expectSkipped(s.doctor(env, "--kubeconfig", kubeconfig), podChecks...)
}

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

// means takes away what doctor may have at hand: it does what it can.
func (s *scene) means() {
	s.Run("the documented rights, and no others", func(t *testing.T) { s.in(t).documentedRights() })
	s.Run("no cluster", func(t *testing.T) {
		s := s.in(t)
		a := s.ask(append(s.environ(), "KUBECONFIG=/dev/null"), "--policy", s.policyFile)
		s.unseen(a, check.Kubernetes, check.IssuerMatches, check.Namespace, check.ServiceAccount, check.Registration, check.Endpoints,
			check.Certificate, check.Injection, check.TokenMinted, check.SyncLeads, check.Session, check.Write, check.Pods, check.Identity, check.Sidecar, check.Flow)
	})
	s.Run("the API server does not answer", func(t *testing.T) {
		s := s.in(t)
		config := filepath.Join(s.dir, "down.kubeconfig")
		up, err := os.ReadFile(s.kube.Kubeconfig())
		s.try(err)
		s.try(os.WriteFile(config, bytes.ReplaceAll(up, []byte(s.kube.URL), []byte("https://127.0.0.1:1")), 0o600))
		a := s.ask(s.environ(), "--policy", s.policyFile, "--kubeconfig", config)
		if !slices.Equal(a.Broken, []check.ID{check.Kubernetes}) || a.State(check.OIDCProvider) != check.Pass || a.State(check.Workspace) != check.Pass {
			s.Errorf("broken %v\n%s", a.Broken, a.text())
		}
	})
	s.Run("no AWS credentials", func(t *testing.T) {
		s := s.in(t)
		env := append(slices.DeleteFunc(s.environ(), func(e string) bool {
			return strings.HasPrefix(e, "AWS_ACCESS_KEY_ID") || strings.HasPrefix(e, "AWS_SECRET_ACCESS_KEY")
		}), "AWS_EC2_METADATA_DISABLED=true")
		a := s.ask(env, "--policy", s.policyFile, "--kubeconfig", s.kube.Kubeconfig())
		// STS and the remote write take the pod's own token.
		s.unseen(a, append([]check.ID{check.Account, check.OIDCProvider, check.RoleExists, check.TrustDocument, check.Permissions,
			check.Boundary, check.Workspace, check.Query}, podLinks...)...)
	})
	s.Run("no way to the issuer, but AWS has one", func(t *testing.T) {
		s := s.in(t)
		a := s.ask(append(s.environ(), "HTTPS_PROXY=http://127.0.0.1:1"), "--policy", s.policyFile, "--kubeconfig", s.kube.Kubeconfig())
		s.unseen(a, podLinks...)
	})
	s.Run("nobody tells the issuer", func(t *testing.T) {
		s := s.in(t)
		s.setPolicy("  issuer: "+issuerURL+"\n", "")
		defer s.setPolicy()
		a := s.ask(append(s.environ(), "KUBECONFIG=/dev/null"), "--policy", s.policyFile)
		if a.status != unchecked || a.State(check.TrustDocument) != check.Skip || a.State(check.RoleExists) != check.Pass {
			s.Errorf("status %d\n%s", a.status, a.text())
		}
	})
	s.Run("no sample", func(t *testing.T) {
		s := s.in(t)
		a := s.examine(fault{args: []string{"--no-write"}})
		s.unseen(a, append([]check.ID{check.Write}, podLinks...)...)
		if slices.Contains(a.NotChecked, check.Write) {
			s.Errorf("what --no-write leaves out counts as not checked: %v", a.NotChecked)
		}
	})
	s.Run("every format", func(t *testing.T) {
		s := s.in(t)
		for format, part := range map[string]string{"text": "✓ write ", "html": `data-link="write" data-state="ok"`} {
			cmd := exec.CommandContext(s.Context(), s.ampbridge, "doctor", "-o", format, "--kubeconfig", s.kube.Kubeconfig())
			cmd.Env = s.environ()
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != unchecked || !contains(string(out), part) || bytes.Contains(out, []byte(tokenStart)) {
				s.Errorf("%s: %v\n%s", format, err, out)
			}
		}
	})
}

// unseen expects these links not to be looked at, and all others to hold.
func (s *scene) unseen(a answer, links ...check.ID) {
	s.Helper()
	if a.status != unchecked {
		s.Errorf("status %d, %s", a.status, a.stderr)
	}
	for _, r := range check.Chain {
		want := check.Pass
		switch {
		case slices.Contains(links, r.ID):
			want = check.Skip
		case r.ID == check.SyncLeads:
			want = check.Warn
		}
		if state := a.State(r.ID); state != want {
			s.Errorf("%s is %s, want %s\n%s", r.ID, state, want, a.text())
		}
	}
}

var fenced = regexp.MustCompile("(?s)```(yaml|json)\n(.*?)```")

// documentedRights runs doctor with the rights that docs/doctor.md lists.
func (s *scene) documentedRights() {
	page, err := os.ReadFile(filepath.Join("..", "..", "..", "docs", "doctor.md"))
	s.try(err)
	blocks := map[string]string{}
	for _, m := range fenced.FindAllStringSubmatch(string(page), -1) {
		blocks[m[1]] = m[2]
	}
	var role rbacv1.ClusterRole
	s.try(yaml.UnmarshalStrict([]byte(blocks["yaml"]), &role))
	client := s.kube.Client()
	s.must(client.RbacV1().ClusterRoles().Create(s.Context(), &role, metav1.CreateOptions{}))
	s.must(client.CoreV1().ServiceAccounts(system).Create(s.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "doctor"}}, metav1.CreateOptions{}))
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
	s.await("the rights are in force", func() bool { return s.ask(env, "--kubeconfig", kubeconfig).State(check.Policy) == check.Pass })
	s.unseen(s.ask(env, "--kubeconfig", kubeconfig), podLinks...)
}

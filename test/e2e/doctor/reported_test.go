package doctor_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/amp"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/servingcert"
)

// These faults are from public reports about IRSA, AMP and Kubernetes, by system.

// othersKubeconfig is the file that reachFaults change.
const othersKubeconfig = "others.kubeconfig"

func usersKubeconfig(s *fixture, change func(string) string) {
	s.Helper()
	text, err := os.ReadFile(s.kube.Kubeconfig())
	s.try(err)
	s.try(os.WriteFile(filepath.Join(s.dir, othersKubeconfig), []byte(change(string(text))), 0o600))
}

func goodKubeconfig(s *fixture) { usersKubeconfig(s, func(text string) string { return text }) }

var reachFaults = []fault{
	{
		name: "API server refuses connections", id: check.Kubernetes, message: "does not answer",
		kubeconfig: othersKubeconfig,
		inject: func(s *fixture) {
			usersKubeconfig(s, func(text string) string { return strings.ReplaceAll(text, s.kube.URL, "https://127.0.0.1:1") })
		},
		fix: goodKubeconfig,
	},
	{
		name: "API server of an unknown name", id: check.Kubernetes, message: "gone.invalid", kubeconfig: othersKubeconfig,
		inject: func(s *fixture) {
			usersKubeconfig(s, func(text string) string { return strings.ReplaceAll(text, s.kube.URL, "https://gone.invalid") })
		},
		fix: goodKubeconfig,
	},
	{
		name: "token of the kubeconfig is not accepted", id: check.Kubernetes,
		message:    "the server has asked for the client to provide credentials",
		kubeconfig: othersKubeconfig, inject: func(s *fixture) {
			file, err := s.kube.KubeconfigFor(s.Context(), system, "default")
			s.try(err)
			text, err := os.ReadFile(file)
			s.try(err)
			head, token, found := strings.Cut(string(text), "token: ")
			if !found {
				s.Fatal("the kubeconfig has no token")
			}
			_, rest, _ := strings.Cut(token, "\n")
			s.try(os.WriteFile(filepath.Join(s.dir, othersKubeconfig), []byte(head+"token: expired\n"+rest), 0o600))
		},
		fix: goodKubeconfig,
	},
}

// installedPolicy replaces the policy in the ConfigMap of the installation.
func (s *fixture) installedPolicy(text string) {
	s.Helper()
	s.must(s.kube.Client().CoreV1().ConfigMaps(system).Patch(s.Context(), "ampbridge-policy", types.MergePatchType,
		fmt.Appendf(nil, `{"data":{"policy.yaml":%q}}`, text), metav1.PatchOptions{}))
}

func plainInstalled(s *fixture) { s.installedPolicy(s.policy()) }

var policyFaults = []fault{
	{
		name:      "policy of another version",
		id:        check.Policy,
		message:   "this build reads ampbridge.io/v1alpha1",
		installed: true,
		inject:    func(s *fixture) { s.installedPolicy(s.policy("ampbridge.io/v1alpha1", "ampbridge.io/v1")) },
		fix:       plainInstalled,
	},
	{name: "destination mistyped in a grant", id: check.Policy, message: "is not a destination of this policy", installed: true,
		inject: func(s *fixture) { s.installedPolicy(s.policy("destinations: [central]", "destinations: [centrall]")) },
		fix:    plainInstalled},
	{name: "field of a newer version", id: check.Policy, message: "delivry", installed: true,
		inject: func(s *fixture) { s.installedPolicy(s.policy("paused: false", "delivry: relay")) }, fix: plainInstalled},
	{name: "ARN of another service for the workspace", id: check.Policy, message: "workspace", installed: true,
		inject: func(s *fixture) { s.installedPolicy(s.policy("arn:aws:aps:", "arn:aws:iam:")) }, fix: plainInstalled},
	{
		name:      "two policies are installed",
		id:        check.Policy,
		message:   "has several policies",
		installed: true,
		inject: func(s *fixture) {
			s.must(s.kube.Client().CoreV1().ConfigMaps(system).Create(s.Context(), &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Name: "second-policy", Labels: map[string]string{"ampbridge.io/chart": "ampbridge"}},
				Data:       map[string]string{"policy.yaml": s.policy()},
			}, metav1.CreateOptions{}))
		},
		fix: func(s *fixture) {
			s.try(s.kube.Client().CoreV1().ConfigMaps(system).Delete(s.Context(), "second-policy", metav1.DeleteOptions{}))
		},
	},
	{name: "namespace mistyped in the grant", id: check.Namespace, message: "namespace monitorng does not exist",
		inject: func(s *fixture) { s.setPolicy("namespaces: ["+namespace+"]", "namespaces: [monitorng]") }, fix: plainPolicy},
	{
		name:    "service account mistyped in the grant",
		id:      check.ServiceAccount,
		message: "prometheus-server does not exist in namespace",
		inject: func(s *fixture) {
			s.setPolicy("serviceAccounts: ["+serviceAccount+"]", "serviceAccounts: [prometheus-server]")
		},
		fix: plainPolicy,
	},
}

var registrationFaults = []fault{
	{
		name:    "registered for a Service of another name",
		id:      check.Endpoints,
		message: "the Service ampbridge-system/webhook does not exist",
		inject: func(s *fixture) {
			s.patchRegistration(`[{"op":"replace","path":"/webhooks/0/clientConfig/service/name","value":"webhook"}]`)
		},
		fix: (*fixture).register,
	},
	{
		name:    "registered for updates alone",
		id:      check.Registration,
		message: "has no rule for the creation of pods",
		inject: func(s *fixture) {
			s.patchRegistration(`[{"op":"replace","path":"/webhooks/0/rules/0/operations","value":["UPDATE"]}]`)
		},
		fix: (*fixture).register,
	},
	{
		name:    "entry of the registration removed",
		id:      check.Registration,
		message: "it has no entry",
		inject: func(s *fixture) {
			s.patchRegistration(`[{"op":"remove","path":"/webhooks/0"}]`)
		},
		fix: (*fixture).register,
	},
	{
		name:    "certificate for another name",
		id:      check.Certificate,
		message: "certificate is valid for elsewhere",
		inject: func(s *fixture) {
			dir := s.TempDir()
			ca, err := servingcert.Write(dir, "elsewhere")
			s.try(err)
			s.servingSecret(dir)
			s.bundle(ca)
		},
		fix: func(s *fixture) { s.servingSecret(s.dir); s.register() },
	},
	{name: "quota of pods used up", id: check.Injection, message: "exceeded quota", inject: func(s *fixture) {
		s.must(s.kube.Client().CoreV1().ResourceQuotas(namespace).Create(s.Context(), &corev1.ResourceQuota{
			ObjectMeta: metav1.ObjectMeta{Name: "none"},
			Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{corev1.ResourcePods: resource.MustParse("0")}},
		}, metav1.CreateOptions{}))
		s.eventually(
			"the quota is in force",
			func() bool { return contains(s.runDoctor(fault{}).finding().Message, "exceeded quota") },
		)
	}, fix: func(s *fixture) {
		s.try(s.kube.Client().CoreV1().ResourceQuotas(namespace).Delete(s.Context(), "none", metav1.DeleteOptions{}))
		s.eventually("the quota is gone", func() bool { return s.runDoctor(fault{}).status == unchecked })
	}},
}

// servingSecret writes the certificate in dir to the webhook's Secret.
func (s *fixture) servingSecret(dir string) {
	s.Helper()
	certificate, err := os.ReadFile(filepath.Join(dir, "tls.crt"))
	s.try(err)
	patch, err := json.Marshal(map[string]any{"data": map[string][]byte{"tls.crt": certificate}})
	s.try(err)
	s.must(
		s.kube.Client().CoreV1().Secrets(
			system,
		).Patch(
			s.Context(),
			service+"-tls",
			types.MergePatchType,
			patch,
			metav1.PatchOptions{},
		),
	)
}

// discovery publishes a discovery document with other keys.
func discovery(s *fixture, keys string) {
	s.published.replace(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasSuffix(r.URL.Path, "openid-configuration") {
			http.NotFound(w, r)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"issuer": issuerURL, "jwks_uri": keys})
	}))
}

var documentFaults = []fault{
	{name: "keys by http", id: check.SigningKeys, message: "AWS accepts only https",
		inject: func(s *fixture) { discovery(s, "http://oidc.example.com/keys") }, fix: publishAgain},
	{name: "keys not found", id: check.SigningKeys, message: "the keys cannot be read", inject: func(s *fixture) {
		s.forgetKeys()
		discovery(s, issuerURL+"keys")
	}, fix: publishAgain},
	{
		name:    "discovery document is a page for people",
		id:      check.SigningKeys,
		message: "the discovery document cannot be read",
		inject: func(s *fixture) {
			s.forgetKeys()
			s.published.replace(
				http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }),
			)
		},
		fix: publishAgain,
	},
}

// trustOf replaces the trust document by one with this statement.
func (s *fixture) trustOf(statements string) {
	s.Helper()
	s.must(s.iam.UpdateAssumeRolePolicy(s.Context(), &iam.UpdateAssumeRolePolicyInput{
		RoleName: &roleName, PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[` + statements + `]}`),
	}))
}

var roleFaults = []fault{
	{
		name:    "role of the same name in another path",
		id:      check.RoleExists,
		message: "has the same name in another path",
		inject: func(s *fixture) {
			s.deleteRole()
			s.must(
				s.iam.CreateRole(
					s.Context(),
					&iam.CreateRoleInput{RoleName: &roleName, Path: aws.String("/by-hand/"), AssumeRolePolicyDocument: aws.String(
						`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"` + accountID + `"},"Action":"sts:AssumeRole"}]}`,
					)},
				),
			)
		},
		fix: func(s *fixture) {
			s.must(s.iam.DeleteRole(s.Context(), &iam.DeleteRoleInput{RoleName: &roleName}))
			s.sync()
		},
	},
	{
		name:    "trust for EC2",
		id:      check.TrustDocument,
		message: "no statement of it allows sts:AssumeRoleWithWebIdentity",
		inject: func(s *fixture) {
			s.trustOf(`{"Effect":"Allow","Principal":{"Service":"ec2.amazonaws.com"},"Action":"sts:AssumeRole"}`)
		},
	},
	{
		name:    "trust with the action of another call",
		id:      check.TrustDocument,
		message: "no statement of it allows",
		inject: func(s *fixture) {
			s.trust("sts:AssumeRoleWithWebIdentity", "sts:AssumeRole")
		},
	},
	{name: "trust that denies", id: check.TrustDocument, message: "it denies web identities", inject: func(s *fixture) {
		s.trustOf(
			`{"Effect":"Deny","Principal":{"Federated":"` + providerARN + `"},"Action":"sts:AssumeRoleWithWebIdentity"}`,
		)
	}},
	{
		name:    "trust without a subject",
		id:      check.TrustDocument,
		message: "every pod of the cluster is let in",
		inject: func(s *fixture) {
			s.trustOf(
				`{"Effect":"Allow","Principal":{"Federated":"` + providerARN + `"},"Action":"sts:AssumeRoleWithWebIdentity","Condition":` +
					`{"StringEquals":{"oidc.example.com/clusters/demo/:aud":"sts.amazonaws.com"}}}`,
			)
		},
	},
	{
		name:    "permission to query alone",
		id:      check.Permissions,
		message: "nothing in it allows aps:RemoteWrite",
		inject: func(s *fixture) {
			s.permit(
				"ampbridge",
				`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["aps:QueryMetrics","aps:GetLabels"],"Resource":"*"}]}`,
			)
		},
	},
	{
		name:    "boundary of another name",
		id:      check.Boundary,
		message: "policy/narrow, and the policy requires",
		inject: func(s *fixture) {
			arn, err := s.account.PutManagedPolicy(
				"narrow",
				`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}`,
			)
			s.try(err)
			s.must(
				s.iam.PutRolePermissionsBoundary(
					s.Context(),
					&iam.PutRolePermissionsBoundaryInput{RoleName: &roleName, PermissionsBoundary: &arn},
				),
			)
		},
	},
}

const webIdentity = "sts:AssumeRoleWithWebIdentity"

var sessionFaults = []fault{
	injected("service control policy denies the session", check.Session, "AccessDenied", webIdentity, awstest.Deny),
	injected("STS limits the rate", check.Session, "Throttling", webIdentity, awstest.Throttle),
	injected("STS does not reach the issuer", check.Session, "IDPCommunicationError", webIdentity,
		awstest.Respond(400, "IDPCommunicationError", "Error communicating with the identity provider")),
	injected("STS is not active in the region", check.Session, "RegionDisabledException", webIdentity,
		awstest.Respond(403, "RegionDisabledException", "STS is not activated in this region for account: "+accountID)),
	{name: "proxy of STS refuses connections", id: check.Session, message: "no answer", inject: func(s *fixture) {
		s.setPolicy("sts:\n", "sts:\n  proxyURL: http://127.0.0.1:1\n")
	}, fix: plainPolicy},
	{name: "endpoint of STS has no address", id: check.Session, message: "no answer", inject: func(s *fixture) {
		s.setPolicy("endpoint: "+s.cloud.TLSURL, "endpoint: https://sts.invalid")
	}, fix: plainPolicy},
}

var writeFaults = []fault{
	{name: "workspace is still being created", id: check.Workspace, message: "is CREATING", inject: func(s *fixture) {
		s.cloud.SetWorkspaceDelay(time.Hour)
		next, err := amp.NewFromConfig(s.cloud.Config(s.account.AdminCredentials(), region)).CreateWorkspace(
			s.Context(), &amp.CreateWorkspaceInput{Alias: aws.String("next")})
		s.try(err)
		s.cloud.SetWorkspaceDelay(0)
		s.otherWorkspace(s.workspace.ID, aws.ToString(next.WorkspaceId))
	}, fix: func(s *fixture) { s.setPolicy(); s.sync() }},
	injected("AMP fails", check.Query, "Internal", "aps:QueryMetrics", awstest.ServerError),
	injected("KMS key of the workspace is disabled", check.Write, "KMS", "aps:RemoteWrite",
		awstest.Respond(403, "AccessDeniedException", "The KMS key that encrypts the workspace is disabled")),
	injected("two writers of the same series", check.Write, "out of order", "aps:RemoteWrite",
		awstest.Respond(400, "ValidationException", "out of order sample: series ampbridge_doctor")),
	injected("too many labels", check.Write, "label names", "aps:RemoteWrite",
		awstest.Respond(400, "ValidationException", "series has too many label names (31, limit: 30)")),
	injected("a firewall drops the packets to AMP", check.Write, "no answer", "aps:RemoteWrite", awstest.Hang),
	injected("the connection to AMP is reset", check.Write, "no answer", "aps:RemoteWrite", awstest.Refuse),
}

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
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/go-jose/go-jose/v4"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/servingcert"
)

func contains(text, part string) bool { return strings.Contains(text, part) }

// plainPolicy restores doctor's policy.
func plainPolicy(s *fixture) { s.setPolicy() }

var clusterFaults = []fault{
	{name: "no label", id: check.Namespace, message: "does not carry the label", inject: func(s *fixture) { s.labelNamespace("null") }},
	{name: "label mistyped", id: check.Namespace, message: `is "on"`, inject: func(s *fixture) { s.labelNamespace(`"on"`) }},
	{name: "service account missing", id: check.ServiceAccount, message: "does not exist in namespace", inject: func(s *fixture) {
		s.try(s.kube.Client().CoreV1().ServiceAccounts(namespace).Delete(s.Context(), serviceAccount, metav1.DeleteOptions{}))
	}},
	{
		name:    "opted out",
		id:      check.ServiceAccount,
		message: "has opted out",
		inject:  func(s *fixture) { s.annotate("ampbridge.io/inject", "false") },
	},
	{
		name:    "annotation mistyped",
		id:      check.ServiceAccount,
		message: `is "yes"`,
		inject:  func(s *fixture) { s.annotate("ampbridge.io/inject", "yes") },
		after:   func(s *fixture) { s.annotate("ampbridge.io/inject", "") },
	},
	{
		name:    "unknown destination",
		id:      check.Grant,
		message: `names "centre"`,
		inject:  func(s *fixture) { s.annotate("ampbridge.io/destinations", "centre") },
	},
	{name: "no grant", id: check.Grant, message: "no grant of the policy covers",
		// The flags name the service account, as a person would who expects samples of it.
		args: []string{"--namespace", namespace, "--service-account", serviceAccount},
		inject: func(s *fixture) {
			s.setPolicy("namespaces: ["+namespace+"]", "namespaces: [elsewhere, "+namespace+"x]")
		}, fix: plainPolicy},
	{
		name:    "paused",
		id:      check.Grant,
		message: "paused",
		inject:  func(s *fixture) { s.setPolicy("paused: false", "paused: true") },
		fix:     plainPolicy,
	},
	{name: "self-assume in the policy", id: check.Policy, message: "assumeRole", inject: func(s *fixture) {
		role := "arn:aws:iam::" + accountID + ":role/amp"
		s.setPolicy("- name: central\n", "- name: central\n  role: "+role+"\n  assumeRole: "+role+"\n")
	}, fix: plainPolicy},
	{name: "no policy installed", id: check.Policy, message: "has no ConfigMap", installed: true, inject: func(s *fixture) {
		s.try(s.kube.Client().CoreV1().ConfigMaps(system).Delete(s.Context(), "ampbridge-policy", metav1.DeleteOptions{}))
	}, fix: (*fixture).configMap},
	{name: "missing trailing slash in the policy", id: check.IssuerMatches, message: "the slash at the end",
		inject: func(s *fixture) { s.setPolicy(issuerURL, strings.TrimSuffix(issuerURL, "/")) }, fix: plainPolicy},
	{name: "policy of another cluster", id: check.IssuerMatches, message: "the policy's issuer is https://oidc.example.com/clusters/other/",
		inject: func(s *fixture) { s.setPolicy("clusters/demo", "clusters/other") }, fix: plainPolicy},
}

var webhookFaults = []fault{
	{name: "webhook absent", id: check.Registration, message: "there is no MutatingWebhookConfiguration", inject: func(s *fixture) {
		s.try(
			s.kube.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(
				s.Context(),
				"ampbridge",
				metav1.DeleteOptions{},
			),
		)
	}, fix: (*fixture).register},
	{name: "namespace excluded", id: check.Registration, message: "does not select namespace", inject: func(s *fixture) {
		s.patchRegistration(`[{"op":"add","path":"/webhooks/0/namespaceSelector/matchExpressions/0/values/-","value":"monitoring"}]`)
	}, fix: (*fixture).register},
	{
		name:    "no endpoints",
		id:      check.Endpoints,
		message: "none of the 1 pods",
		inject:  func(s *fixture) { s.ready(false) },
		fix:     func(s *fixture) { s.ready(true) },
	},
	{name: "service missing", id: check.Endpoints, message: "does not exist", inject: func(s *fixture) {
		s.try(s.kube.Client().CoreV1().Services(system).Delete(s.Context(), service, metav1.DeleteOptions{}))
		s.eventually("its endpoints are gone too, or are deleted now", func() bool {
			_ = s.kube.Client().DiscoveryV1().EndpointSlices(system).Delete(s.Context(), service, metav1.DeleteOptions{})
			list, err := s.kube.Client().DiscoveryV1().EndpointSlices(system).List(s.Context(), metav1.ListOptions{})
			s.try(err)
			return len(list.Items) == 0
		})
	}, fix: func(s *fixture) { s.makeService(); s.waitForInjection(true) }},
	{name: "CA bundle of another CA", id: check.Certificate, message: "does not verify the certificate", inject: func(s *fixture) {
		other, err := servingcert.Write(s.TempDir(), "elsewhere")
		s.try(err)
		s.bundle(other)
	}, fix: (*fixture).register},
	{
		name:    "no CA bundle",
		id:      check.Certificate,
		message: "no CA bundle",
		inject:  func(s *fixture) { s.bundle(nil) },
		fix:     (*fixture).register,
	},
	{name: "webhook not injecting", id: check.Injection, message: "gave no reason", inject: func(s *fixture) {
		s.stopWebhook()
		s.waitForInjection(false)
	}, fix: func(s *fixture) { s.startWebhook(); s.waitForInjection(true) }},
	{name: "webhook has another policy", id: check.Injection, message: "paused", inject: func(s *fixture) {
		s.webhookPolicy(s.policy("paused: false", "paused: true"))
		s.waitForInjection(false)
	}, fix: func(s *fixture) {
		s.webhookPolicy(s.policy())
		s.waitForInjection(true)
	}},
	{name: "namespace refuses the pod", id: check.Injection, message: "minimum memory usage", inject: func(s *fixture) {
		s.must(s.kube.Client().CoreV1().LimitRanges(namespace).Create(s.Context(), &corev1.LimitRange{
			ObjectMeta: metav1.ObjectMeta{Name: "big"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
				Type: corev1.LimitTypeContainer, Min: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")},
			}}},
		}, metav1.CreateOptions{}))
		s.eventually(
			"the API server knows the limits",
			func() bool { return contains(s.runDoctor(fault{}).finding().Message, "minimum memory usage") },
		)
	}, fix: func(s *fixture) {
		s.try(s.kube.Client().CoreV1().LimitRanges(namespace).Delete(s.Context(), "big", metav1.DeleteOptions{}))
		s.eventually("the API server has forgotten them", func() bool { return s.runDoctor(fault{}).status == unchecked })
	}},
	{
		name: "a policy refuses the sidecar", id: check.Injection,
		message: "admitted without it: ValidatingAdmissionPolicy registries refuses it: images come from quay.io",
		inject: func(s *fixture) {
			client, meta := s.kube.Client().AdmissionregistrationV1(), metav1.ObjectMeta{Name: "registries"}
			s.must(client.ValidatingAdmissionPolicies().Create(s.Context(), &admissionv1.ValidatingAdmissionPolicy{
				ObjectMeta: meta, Spec: admissionv1.ValidatingAdmissionPolicySpec{
					MatchConstraints: &admissionv1.MatchResources{ResourceRules: []admissionv1.NamedRuleWithOperations{{
						RuleWithOperations: admissionv1.RuleWithOperations{
							Operations: []admissionv1.OperationType{admissionv1.Create},
							Rule:       admissionv1.Rule{APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"pods"}},
						},
					}}},
					Validations: []admissionv1.Validation{{
						Expression: "!has(object.spec.initContainers) || object.spec.initContainers.all(c, c.image.startsWith('quay.io/'))",
						Message:    "images come from quay.io",
					}},
				},
			}, metav1.CreateOptions{}))
			s.must(client.ValidatingAdmissionPolicyBindings().Create(s.Context(), &admissionv1.ValidatingAdmissionPolicyBinding{
				ObjectMeta: meta, Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
					PolicyName: meta.Name, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
				},
			}, metav1.CreateOptions{}))
			s.eventually("the policy is in force", func() bool { return contains(s.runDoctor(fault{}).finding().Message, "images come from") })
		},
		fix: func(s *fixture) {
			client := s.kube.Client().AdmissionregistrationV1()
			s.try(client.ValidatingAdmissionPolicyBindings().Delete(s.Context(), "registries", metav1.DeleteOptions{}))
			s.try(client.ValidatingAdmissionPolicies().Delete(s.Context(), "registries", metav1.DeleteOptions{}))
			s.eventually("the policy is forgotten", func() bool { return s.runDoctor(fault{}).status == unchecked })
		},
	},
}

// providerARN and roleName name the provider and the role that sync creates.
var (
	providerARN = policy.Issuer(issuerURL).ProviderARN("aws", accountID).String()
	roleName    = policy.RoleName("demo", "central")
)

var awsFaults = []fault{
	{name: "provider missing", id: check.OIDCProvider, message: "there is no " + providerARN, inject: (*fixture).deleteProvider},
	{name: "provider without the trailing slash", id: check.OIDCProvider, message: "the slash at the end counts", inject: func(s *fixture) {
		s.deleteProvider()
		s.createProvider(strings.TrimSuffix(issuerURL, "/"), []string{"sts.amazonaws.com"}, nil)
	}, after: func(s *fixture) {
		s.must(
			s.iam.DeleteOpenIDConnectProvider(
				s.Context(),
				&iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: aws.String(strings.TrimSuffix(providerARN, "/"))},
			),
		)
	}},
	{name: "provider without the audience", id: check.OIDCProvider, message: "its audiences are another", inject: func(s *fixture) {
		s.deleteProvider()
		s.createProvider(issuerURL, []string{"another"}, nil)
	}, after: func(s *fixture) { s.deleteProvider(); s.sync() }},
	{name: "thumbprint mismatch (private CA)", id: check.OIDCProvider, message: "private CA with the thumbprint", inject: func(s *fixture) {
		s.must(s.iam.UpdateOpenIDConnectProviderThumbprint(s.Context(), &iam.UpdateOpenIDConnectProviderThumbprintInput{
			OpenIDConnectProviderArn: &providerARN, ThumbprintList: []string{strings.Repeat("0", 40)},
		}))
	}},
	{name: "provider quota", id: check.OIDCProvider, message: "the quota is probably used up", inject: func(s *fixture) {
		s.deleteProvider()
		for n := range 100 {
			s.createProvider(fmt.Sprintf("https://oidc.example.com/clusters/%d", n), nil, []string{strings.Repeat("0", 40)})
		}
	}, fix: func(s *fixture) {
		s.account.SetQuotas(func(q *awstest.Quotas) { q.Providers = 200 })
		s.sync("--provider-quota", "200")
	}, after: func(s *fixture) {
		for n := range 100 {
			arn := policy.Issuer(fmt.Sprintf("https://oidc.example.com/clusters/%d", n)).ProviderARN("aws", accountID).String()
			s.must(s.iam.DeleteOpenIDConnectProvider(s.Context(), &iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: &arn}))
		}
	}},
	{name: "wrong audience (the Azure token)", id: check.OIDCProvider, message: "Incorrect token audience", inject: func(s *fixture) {
		s.setPolicy("source: projected", "source: azure")
		s.sync()
		s.must(s.iam.RemoveClientIDFromOpenIDConnectProvider(s.Context(), &iam.RemoveClientIDFromOpenIDConnectProviderInput{
			OpenIDConnectProviderArn: &providerARN, ClientID: aws.String(policy.AudienceAzure),
		}))
	}, after: func(s *fixture) { s.setPolicy(); s.sync() }},
	{name: "role missing", id: check.RoleExists, message: "there is no role", inject: (*fixture).deleteRole},
	{name: "wrong principal ARN", id: check.TrustDocument, message: "Principal.Federated is", inject: func(s *fixture) {
		s.trust("oidc-provider/oidc.example.com/clusters/demo/", "oidc-provider/oidc.example.com/clusters/other/")
	}},
	{
		name:    "wrong :sub format",
		id:      check.TrustDocument,
		message: `is "monitoring/prometheus", which no token has`,
		inject: func(s *fixture) {
			s.trust("system:serviceaccount:monitoring:prometheus", "monitoring/prometheus")
		},
	},
	{
		name:    "subject mismatch",
		id:      check.TrustDocument,
		message: "lets in system:serviceaccount:monitoring:grafana",
		inject: func(s *fixture) {
			s.trust("monitoring:prometheus", "monitoring:grafana")
		},
	},
	{
		name:    "missing trailing slash in the condition",
		id:      check.TrustDocument,
		message: "the slash before :aud counts",
		inject: func(s *fixture) {
			s.trust("clusters/demo/:", "clusters/demo:")
		},
	},
	{name: "trust of another issuer", id: check.TrustDocument, message: "is of another issuer", inject: func(s *fixture) {
		s.trust("clusters/demo/:", "clusters/other/:")
	}},
	{
		name:    "wrong audience in the trust document",
		id:      check.TrustDocument,
		message: "it is api://AzureADTokenExchange",
		inject: func(s *fixture) {
			s.trust(`"sts.amazonaws.com"`, `"api://AzureADTokenExchange"`)
		},
	},
	{name: "IfExists", id: check.TrustDocument, message: "also passes without the claim", inject: func(s *fixture) {
		s.trust("StringEquals", "StringEqualsIfExists")
	}},
	{name: "a wildcard subject", id: check.TrustDocument, message: "lets in whatever", inject: func(s *fixture) {
		s.trust("StringEquals", "StringLike", "monitoring:prometheus", "*:prometheus")
	}},
	{name: "permission document missing", id: check.Permissions, message: "nothing in it allows aps:RemoteWrite", inject: func(s *fixture) {
		s.must(s.iam.DeleteRolePolicy(s.Context(), &iam.DeleteRolePolicyInput{RoleName: &roleName, PolicyName: aws.String("ampbridge")}))
	}},
	{name: "permission document for another workspace", id: check.Permissions, message: "ws-other, and not on", inject: func(s *fixture) {
		s.permit(
			"ampbridge",
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"aps:RemoteWrite",`+
				`"Resource":"arn:aws:aps:eu-west-1:111122223333:workspace/ws-other"}]}`,
		)
	}},
	{name: "somebody's policy denies", id: check.Permissions, message: "a policy of the role denies", inject: func(s *fixture) {
		s.permit("freeze", `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"aps:*","Resource":"*"}]}`)
	}, fix: func(s *fixture) {
		s.must(s.iam.DeleteRolePolicy(s.Context(), &iam.DeleteRolePolicyInput{RoleName: &roleName, PolicyName: aws.String("freeze")}))
	}},
	{name: "boundary missing", id: check.Boundary, message: "the role has none", inject: func(s *fixture) {
		s.must(s.iam.DeleteRolePermissionsBoundary(s.Context(), &iam.DeleteRolePermissionsBoundaryInput{RoleName: &roleName}))
	}},
	{name: "boundary denies", id: check.Boundary, message: "does not allow aps:RemoteWrite", inject: func(s *fixture) {
		s.must(
			s.account.PutManagedPolicy(
				"boundary",
				`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}`,
			),
		)
	}, after: func(s *fixture) {
		s.must(
			s.account.PutManagedPolicy(
				"boundary",
				`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["aps:RemoteWrite","sts:AssumeRole"],"Resource":"*"}]}`,
			),
		)
	}},
	{name: "second role does not trust the first", id: check.Session, message: "the second role, " + secondRole, inject: func(s *fixture) {
		s.must(s.iam.CreateRole(s.Context(), &iam.CreateRoleInput{RoleName: aws.String("writer"), AssumeRolePolicyDocument: aws.String(
			`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}`)}))
		s.must(
			s.iam.PutRolePolicy(
				s.Context(),
				&iam.PutRolePolicyInput{RoleName: aws.String("writer"), PolicyName: aws.String("write"), PolicyDocument: aws.String(
					`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"aps:RemoteWrite","Resource":"*"}]}`)},
			),
		)
		s.setPolicy("- name: central\n", "- name: central\n  assumeRole: "+secondRole+"\n")
		s.sync()
	}, fix: func(s *fixture) {
		s.must(
			s.iam.UpdateAssumeRolePolicy(
				s.Context(),
				&iam.UpdateAssumeRolePolicyInput{RoleName: aws.String("writer"), PolicyDocument: aws.String(
					`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:role/ampbridge/demo/` +
						roleName + `"},"Action":"sts:AssumeRole"}]}`,
				)},
			),
		)
	}, after: func(s *fixture) { s.setPolicy(); s.sync() }},
	{name: "expired token", id: check.Session, message: "ExpiredToken", inject: func(s *fixture) { s.cloud.Advance(time.Hour) },
		fix: func(s *fixture) { s.cloud.Advance(-time.Hour) }},
	{name: "STS does not answer", id: check.Session, message: "no answer", inject: func(s *fixture) {
		s.setPolicy("endpoint: "+s.cloud.TLSURL, "endpoint: https://127.0.0.1:1")
	}, fix: plainPolicy},
}

const secondRole = "arn:aws:iam::" + accountID + ":role/writer"

// byHand sets a policy for roles that sync does not manage. The fixes are then commands of
// the AWS CLI.
func byHand(s *fixture) { s.setPolicy("trust:\n", "trust:\n  manage: none\n") }

var byHandFaults = []fault{
	{
		name:    "provider missing, no sync",
		id:      check.OIDCProvider,
		message: "there is no",
		inject:  func(s *fixture) { byHand(s); s.deleteProvider() },
	},
	{
		name:    "trust of another subject, no sync",
		id:      check.TrustDocument,
		message: "monitoring:grafana",
		inject:  func(s *fixture) { s.trust("monitoring:prometheus", "monitoring:grafana") },
	},
	{name: "permission document missing, no sync", id: check.Permissions, message: "nothing in it", inject: func(s *fixture) {
		s.must(s.iam.DeleteRolePolicy(s.Context(), &iam.DeleteRolePolicyInput{RoleName: &roleName, PolicyName: aws.String("ampbridge")}))
	}},
	{
		name:    "role missing, no sync",
		id:      check.RoleExists,
		message: "there is no role",
		inject:  (*fixture).deleteRole,
		after: func(s *fixture) {
			// Sync does not manage these roles, so the row deletes them before sync creates its own.
			s.deleteRole()
			s.deleteProvider()
			s.setPolicy()
			s.sync()
		},
	},
}

var issuerFaults = []fault{
	{name: "unreachable issuer", id: check.SigningKeys, message: "cannot be read", inject: func(s *fixture) {
		s.forgetKeys()
		s.published.replace(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	}, fix: publishAgain},
	{name: "issuer not public", id: check.SigningKeys, message: "403 Forbidden", inject: func(s *fixture) {
		s.forgetKeys()
		s.published.replace(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }))
	}, fix: publishAgain},
	{name: "key rotated out of the JWKS", id: check.SigningKeys, message: "none of the published keys", inject: func(s *fixture) {
		s.published.replace(awstest.NewSigner(issuerURL, jose.RS256))
	}, fix: publishAgain},
	{
		name:    "discovery document of another issuer",
		id:      check.SigningKeys,
		message: "is that of https://oidc.example.com/clusters/demo",
		inject: func(s *fixture) {
			s.published.replace(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				_ = json.NewEncoder(
					w,
				).Encode(
					map[string]string{"issuer": strings.TrimSuffix(issuerURL, "/"), "jwks_uri": issuerURL + "keys"},
				)
			}))
		},
		fix: publishAgain,
	},
}

// forgetKeys sets the clock of the double forward, so that it reads the keys again.
func (s *fixture) forgetKeys() { s.cloud.Advance(15 * time.Second) }

func publishAgain(s *fixture) { s.published.replace(nil) }

var workspaceFaults = []fault{
	{name: "wrong region", id: check.Workspace, message: "in eu-central-1", inject: func(s *fixture) {
		s.otherWorkspace("aps:eu-west-1", "aps:eu-central-1")
	}, fix: func(s *fixture) { s.setPolicy(); s.sync() }},
	{name: "workspace missing", id: check.Workspace, message: "there is no ws-0000", inject: func(s *fixture) {
		s.otherWorkspace(s.workspace.ID, "ws-0000")
	}, fix: func(s *fixture) { s.setPolicy(); s.sync() }},
	{name: "endpoint does not answer", id: check.Query, message: "no answer", inject: func(s *fixture) {
		s.setPolicy("endpoint: "+s.cloud.URL, "endpoint: http://127.0.0.1:1")
	}, fix: plainPolicy},
	injected("403 from AMP", check.Write, "AccessDenied", "aps:RemoteWrite", awstest.Deny),
	injected("AMP throttles", check.Write, "ThrottlingException", "aps:RemoteWrite", awstest.Throttle),
	{
		name:    "role not visible yet",
		id:      check.Session,
		message: "Not authorized to perform sts:AssumeRoleWithWebIdentity",
		inject: func(s *fixture) {
			// STS sees everything that is older than a minute, so it sees all but the new role.
			// This is the last row, because the clock cannot be set back: that would hide the role.
			s.deleteRole()
			s.cloud.Advance(2 * time.Minute)
			s.cloud.SetPropagationDelay(time.Minute)
			s.sync()
		},
		fix: func(s *fixture) { s.cloud.SetPropagationDelay(0) },
	},
}

// injected returns a fault that the double injects until the row stops it.
func injected(name string, id check.ID, message, target string, f awstest.Fault) fault {
	var injection *awstest.Injection
	return fault{
		name:    name,
		id:      id,
		message: message,
		inject:  func(s *fixture) { injection = s.cloud.Fail(target, f) },
		fix:     func(*fixture) { injection.Stop() },
	}
}

// The following functions cause faults.

func (s *fixture) labelNamespace(value string) {
	s.Helper()
	s.must(s.kube.Client().CoreV1().Namespaces().Patch(s.Context(), namespace, types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"labels":{%q:%s}}}`, policy.LabelInjection, value), metav1.PatchOptions{}))
}

// annotate sets the service account's annotation, or removes it.
func (s *fixture) annotate(name, value string) {
	s.Helper()
	text := "null"
	if value != "" {
		text = fmt.Sprintf("%q", value)
	}
	s.must(s.kube.Client().CoreV1().ServiceAccounts(namespace).Patch(s.Context(), serviceAccount, types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%s}}}`, name, text), metav1.PatchOptions{}))
}

func (s *fixture) patchRegistration(patch string) {
	s.Helper()
	s.must(
		s.kube.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(
			s.Context(),
			"ampbridge",
			types.JSONPatchType,
			[]byte(patch),
			metav1.PatchOptions{},
		),
	)
}

func (s *fixture) bundle(ca []byte) {
	s.Helper()
	configurations := s.kube.Client().AdmissionregistrationV1().MutatingWebhookConfigurations()
	object, err := configurations.Get(s.Context(), "ampbridge", metav1.GetOptions{})
	s.try(err)
	for i := range object.Webhooks {
		object.Webhooks[i].ClientConfig.CABundle = ca
	}
	s.must(configurations.Update(s.Context(), object, metav1.UpdateOptions{}))
}

func (s *fixture) ready(is bool) {
	s.Helper()
	s.must(s.kube.Client().DiscoveryV1().EndpointSlices(system).Patch(s.Context(), service, types.JSONPatchType,
		fmt.Appendf(nil, `[{"op":"replace","path":"/endpoints/0/conditions/ready","value":%v}]`, is), metav1.PatchOptions{}))
}

func (s *fixture) webhookPolicy(text string) {
	s.Helper()
	file := filepath.Join(s.dir, "webhook-policy.yaml")
	s.try(os.WriteFile(file+".next", []byte(text), 0o600))
	s.try(os.Rename(file+".next", file))
}

func (s *fixture) deleteProvider() {
	s.Helper()
	s.must(s.iam.DeleteOpenIDConnectProvider(s.Context(), &iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: &providerARN}))
}

func (s *fixture) createProvider(url string, audiences, thumbprints []string) {
	s.Helper()
	if thumbprints == nil {
		thumbprints = []string{s.issuer.Thumbprint()}
	}
	s.must(
		s.iam.CreateOpenIDConnectProvider(
			s.Context(),
			&iam.CreateOpenIDConnectProviderInput{Url: &url, ClientIDList: audiences, ThumbprintList: thumbprints},
		),
	)
}

func (s *fixture) deleteRole() {
	s.Helper()
	_, err := s.iam.DeleteRolePolicy(s.Context(), &iam.DeleteRolePolicyInput{RoleName: &roleName, PolicyName: aws.String("ampbridge")})
	s.try(err)
	s.must(s.iam.DeleteRole(s.Context(), &iam.DeleteRoleInput{RoleName: &roleName}))
}

// trust edits the trust document that sync wrote: old, new, old, new, …
func (s *fixture) trust(replace ...string) {
	s.Helper()
	document := policy.TrustDocument(policy.Issuer(issuerURL).ProviderARN("aws", accountID), issuerURL, "sts.amazonaws.com",
		[]policy.Subject{{Namespace: namespace, ServiceAccount: serviceAccount}}).String()
	for i := 0; i < len(replace); i += 2 {
		if !strings.Contains(document, replace[i]) {
			s.Fatalf("no %q in %s", replace[i], document)
		}
		document = strings.ReplaceAll(document, replace[i], replace[i+1])
	}
	s.must(s.iam.UpdateAssumeRolePolicy(s.Context(), &iam.UpdateAssumeRolePolicyInput{RoleName: &roleName, PolicyDocument: &document}))
}

func (s *fixture) permit(name, document string) {
	s.Helper()
	s.must(s.iam.PutRolePolicy(s.Context(), &iam.PutRolePolicyInput{RoleName: &roleName, PolicyName: &name, PolicyDocument: &document}))
}

// otherWorkspace is a workspace that does not exist. Sync would refuse it, so this file writes
// its permission document.
func (s *fixture) otherWorkspace(is, instead string) {
	s.Helper()
	s.setPolicy(is, instead)
	s.permit("ampbridge", fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"aps:RemoteWrite","Resource":%q}]}`,
		strings.ReplaceAll(fmt.Sprint(s.workspace.ARN), is, instead)))
}

// prometheusPod returns a pod that the webhook injects.
func prometheusPod(name string, change func(*corev1.Pod)) *corev1.Pod {
	mounts := []corev1.VolumeMount{{Name: "config", MountPath: "/etc/config"}}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:   name,
			Labels: map[string]string{"app.kubernetes.io/name": "prometheus", "app.kubernetes.io/component": "server"},
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: serviceAccount,
			Containers: []corev1.Container{
				{
					Name:         "reloader",
					Image:        "quay.io/prometheus-operator/prometheus-config-reloader:v0.85.0",
					Args:         []string{"--watched-dir=/etc/config", "--reload-url=http://127.0.0.1:9090/-/reload"},
					VolumeMounts: mounts,
				},
				{
					Name:         "prometheus-server",
					Image:        "quay.io/prometheus/prometheus:v3.1.0",
					Args:         []string{"--config.file=/etc/config/prometheus.yml", "--web.enable-lifecycle"},
					VolumeMounts: mounts,
				},
			},
			Volumes: []corev1.Volume{
				{
					Name: "config",
					VolumeSource: corev1.VolumeSource{
						ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}},
					},
				},
			},
		},
	}
	if change != nil {
		change(pod)
	}
	return pod
}

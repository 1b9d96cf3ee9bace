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

// plainPolicy puts doctor's policy back.
func plainPolicy(s *scene) { s.setPolicy() }

var clusterFaults = []fault{
	{name: "no label", link: check.Namespace, says: "does not carry the label", play: func(s *scene) { s.labelNamespace("null") }},
	{name: "label mistyped", link: check.Namespace, says: `is "on"`, play: func(s *scene) { s.labelNamespace(`"on"`) }},
	{name: "service account missing", link: check.ServiceAccount, says: "is not in namespace", play: func(s *scene) {
		s.try(s.kube.Client().CoreV1().ServiceAccounts(namespace).Delete(s.Context(), serviceAccount, metav1.DeleteOptions{}))
	}},
	{name: "opted out", link: check.ServiceAccount, says: "has opted out", play: func(s *scene) { s.annotate("ampbridge.io/inject", "false") }},
	{name: "annotation mistyped", link: check.ServiceAccount, says: `is "yes"`, play: func(s *scene) { s.annotate("ampbridge.io/inject", "yes") },
		after: func(s *scene) { s.annotate("ampbridge.io/inject", "") }},
	{name: "unknown destination", link: check.Grant, says: `names "centre"`, play: func(s *scene) { s.annotate("ampbridge.io/destinations", "centre") }},
	{name: "no grant", link: check.Grant, says: "no grant of the policy covers",
		// The subject is named, as a person would who wonders about it.
		args: []string{"--namespace", namespace, "--service-account", serviceAccount},
		play: func(s *scene) { s.setPolicy("namespaces: ["+namespace+"]", "namespaces: [elsewhere, "+namespace+"x]") }, mend: plainPolicy},
	{name: "paused", link: check.Grant, says: "paused", play: func(s *scene) { s.setPolicy("paused: false", "paused: true") }, mend: plainPolicy},
	{name: "self-assume in the policy", link: check.Policy, says: "assumeRole", play: func(s *scene) {
		role := "arn:aws:iam::" + accountID + ":role/amp"
		s.setPolicy("- name: central\n", "- name: central\n  role: "+role+"\n  assumeRole: "+role+"\n")
	}, mend: plainPolicy},
	{name: "no policy installed", link: check.Policy, says: "has no ConfigMap", installed: true, play: func(s *scene) {
		s.try(s.kube.Client().CoreV1().ConfigMaps(system).Delete(s.Context(), "ampbridge-policy", metav1.DeleteOptions{}))
	}, mend: (*scene).configMap},
	{name: "missing trailing slash in the policy", link: check.IssuerMatches, says: "the slash at the end",
		play: func(s *scene) { s.setPolicy(issuerURL, strings.TrimSuffix(issuerURL, "/")) }, mend: plainPolicy},
	{name: "policy of another cluster", link: check.IssuerMatches, says: "the policy's is https://oidc.example.com/clusters/other/",
		play: func(s *scene) { s.setPolicy("clusters/demo", "clusters/other") }, mend: plainPolicy},
}

var webhookFaults = []fault{
	{name: "webhook absent", link: check.Registration, says: "there is no MutatingWebhookConfiguration", play: func(s *scene) {
		s.try(s.kube.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Delete(s.Context(), "ampbridge", metav1.DeleteOptions{}))
	}, mend: (*scene).register},
	{name: "namespace excluded", link: check.Registration, says: "does not select namespace", play: func(s *scene) {
		s.patchRegistration(`[{"op":"add","path":"/webhooks/0/namespaceSelector/matchExpressions/0/values/-","value":"monitoring"}]`)
	}, mend: (*scene).register},
	{name: "no endpoints", link: check.Endpoints, says: "none of the 1 pods", play: func(s *scene) { s.ready(false) }, mend: func(s *scene) { s.ready(true) }},
	{name: "service missing", link: check.Endpoints, says: "is not there", play: func(s *scene) {
		s.try(s.kube.Client().CoreV1().Services(system).Delete(s.Context(), service, metav1.DeleteOptions{}))
		s.await("its endpoints are gone too, or are deleted now", func() bool {
			_ = s.kube.Client().DiscoveryV1().EndpointSlices(system).Delete(s.Context(), service, metav1.DeleteOptions{})
			list, err := s.kube.Client().DiscoveryV1().EndpointSlices(system).List(s.Context(), metav1.ListOptions{})
			s.try(err)
			return len(list.Items) == 0
		})
	}, mend: func(s *scene) { s.makeService(); s.awaitInjection(true) }},
	{name: "CA bundle of another CA", link: check.Certificate, says: "does not vouch for the certificate", play: func(s *scene) {
		other, err := servingcert.Write(s.TempDir(), "elsewhere")
		s.try(err)
		s.bundle(other)
	}, mend: (*scene).register},
	{name: "no CA bundle", link: check.Certificate, says: "no CA bundle", play: func(s *scene) { s.bundle(nil) }, mend: (*scene).register},
	{name: "webhook not injecting", link: check.Injection, says: "without a word", play: func(s *scene) {
		s.stopWebhook()
		s.awaitInjection(false)
	}, mend: func(s *scene) { s.startWebhook(); s.awaitInjection(true) }},
	{name: "webhook has another policy", link: check.Injection, says: "paused", play: func(s *scene) {
		s.webhookPolicy(s.policy("paused: false", "paused: true"))
		s.awaitInjection(false)
	}, mend: func(s *scene) {
		s.webhookPolicy(s.policy())
		s.awaitInjection(true)
	}},
	{name: "namespace refuses the pod", link: check.Injection, says: "minimum memory usage", play: func(s *scene) {
		s.must(s.kube.Client().CoreV1().LimitRanges(namespace).Create(s.Context(), &corev1.LimitRange{
			ObjectMeta: metav1.ObjectMeta{Name: "big"}, Spec: corev1.LimitRangeSpec{Limits: []corev1.LimitRangeItem{{
				Type: corev1.LimitTypeContainer, Min: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")},
			}}},
		}, metav1.CreateOptions{}))
		s.await("the API server knows the limits", func() bool { return contains(s.examine(fault{}).finding().Message, "minimum memory usage") })
	}, mend: func(s *scene) {
		s.try(s.kube.Client().CoreV1().LimitRanges(namespace).Delete(s.Context(), "big", metav1.DeleteOptions{}))
		s.await("the API server has forgotten them", func() bool { return s.examine(fault{}).status == unchecked })
	}},
}

// providerARN and roleName are sync's.
var (
	providerARN = policy.Issuer(issuerURL).ProviderARN("aws", accountID).String()
	roleName    = policy.RoleName("demo", "central")
)

var awsFaults = []fault{
	{name: "provider missing", link: check.OIDCProvider, says: "there is no " + providerARN, play: (*scene).deleteProvider},
	{name: "provider without the trailing slash", link: check.OIDCProvider, says: "the slash at the end counts", play: func(s *scene) {
		s.deleteProvider()
		s.createProvider(strings.TrimSuffix(issuerURL, "/"), []string{"sts.amazonaws.com"}, nil)
	}, after: func(s *scene) {
		s.must(s.iam.DeleteOpenIDConnectProvider(s.Context(), &iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: aws.String(strings.TrimSuffix(providerARN, "/"))}))
	}},
	{name: "provider without the audience", link: check.OIDCProvider, says: "takes the audience another", play: func(s *scene) {
		s.deleteProvider()
		s.createProvider(issuerURL, []string{"another"}, nil)
	}, after: func(s *scene) { s.deleteProvider(); s.sync() }},
	{name: "thumbprint mismatch (private CA)", link: check.OIDCProvider, says: "private CA with the thumbprint", play: func(s *scene) {
		s.must(s.iam.UpdateOpenIDConnectProviderThumbprint(s.Context(), &iam.UpdateOpenIDConnectProviderThumbprintInput{
			OpenIDConnectProviderArn: &providerARN, ThumbprintList: []string{strings.Repeat("0", 40)},
		}))
	}},
	{name: "provider quota", link: check.OIDCProvider, says: "its quota is probably used up", play: func(s *scene) {
		s.deleteProvider()
		for n := range 100 {
			s.createProvider(fmt.Sprintf("https://oidc.example.com/clusters/%d", n), nil, []string{strings.Repeat("0", 40)})
		}
	}, mend: func(s *scene) {
		s.account.SetQuotas(func(q *awstest.Quotas) { q.Providers = 200 })
		s.sync("--provider-quota", "200")
	}, after: func(s *scene) {
		for n := range 100 {
			arn := policy.Issuer(fmt.Sprintf("https://oidc.example.com/clusters/%d", n)).ProviderARN("aws", accountID).String()
			s.must(s.iam.DeleteOpenIDConnectProvider(s.Context(), &iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: &arn}))
		}
	}},
	{name: "wrong audience (the Azure token)", link: check.OIDCProvider, says: "Incorrect token audience", play: func(s *scene) {
		s.setPolicy("source: projected", "source: azure")
		s.sync()
		s.must(s.iam.RemoveClientIDFromOpenIDConnectProvider(s.Context(), &iam.RemoveClientIDFromOpenIDConnectProviderInput{
			OpenIDConnectProviderArn: &providerARN, ClientID: aws.String(policy.AudienceAzure),
		}))
	}, after: func(s *scene) { s.setPolicy(); s.sync() }},
	{name: "role missing", link: check.RoleExists, says: "there is no role", play: (*scene).deleteRole},
	{name: "wrong principal ARN", link: check.TrustDocument, says: "Principal.Federated is", play: func(s *scene) {
		s.trust("oidc-provider/oidc.example.com/clusters/demo/", "oidc-provider/oidc.example.com/clusters/other/")
	}},
	{name: "wrong :sub format", link: check.TrustDocument, says: `is "monitoring/prometheus", which no token has`, play: func(s *scene) {
		s.trust("system:serviceaccount:monitoring:prometheus", "monitoring/prometheus")
	}},
	{name: "subject mismatch", link: check.TrustDocument, says: "lets in system:serviceaccount:monitoring:grafana", play: func(s *scene) {
		s.trust("monitoring:prometheus", "monitoring:grafana")
	}},
	{name: "missing trailing slash in the condition", link: check.TrustDocument, says: "the slash before :aud counts", play: func(s *scene) {
		s.trust("clusters/demo/:", "clusters/demo:")
	}},
	{name: "trust of another issuer", link: check.TrustDocument, says: "is of another issuer", play: func(s *scene) {
		s.trust("clusters/demo/:", "clusters/other/:")
	}},
	{name: "wrong audience in the trust document", link: check.TrustDocument, says: "it is api://AzureADTokenExchange", play: func(s *scene) {
		s.trust(`"sts.amazonaws.com"`, `"api://AzureADTokenExchange"`)
	}},
	{name: "no audience in the trust document", link: check.TrustDocument, says: "a token of any audience is let in", play: func(s *scene) {
		s.trust(`"oidc.example.com/clusters/demo/:aud":"sts.amazonaws.com",`, "")
	}},
	{name: "IfExists", link: check.TrustDocument, says: "passes where the token does not say", play: func(s *scene) {
		s.trust("StringEquals", "StringEqualsIfExists")
	}},
	{name: "a wildcard subject", link: check.TrustDocument, says: "lets in whatever", play: func(s *scene) {
		s.trust("StringEquals", "StringLike", "monitoring:prometheus", "*:prometheus")
	}},
	{name: "permission document missing", link: check.Permissions, says: "nothing in it allows aps:RemoteWrite", play: func(s *scene) {
		s.must(s.iam.DeleteRolePolicy(s.Context(), &iam.DeleteRolePolicyInput{RoleName: &roleName, PolicyName: aws.String("ampbridge")}))
	}},
	{name: "permission document for another workspace", link: check.Permissions, says: "ws-other, and not on", play: func(s *scene) {
		s.permit("ampbridge", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"aps:RemoteWrite","Resource":"arn:aws:aps:eu-west-1:111122223333:workspace/ws-other"}]}`)
	}},
	{name: "somebody's policy denies", link: check.Permissions, says: "a policy of the role denies", play: func(s *scene) {
		s.permit("freeze", `{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Action":"aps:*","Resource":"*"}]}`)
	}, mend: func(s *scene) {
		s.must(s.iam.DeleteRolePolicy(s.Context(), &iam.DeleteRolePolicyInput{RoleName: &roleName, PolicyName: aws.String("freeze")}))
	}},
	{name: "boundary missing", link: check.Boundary, says: "the role has none", play: func(s *scene) {
		s.must(s.iam.DeleteRolePermissionsBoundary(s.Context(), &iam.DeleteRolePermissionsBoundaryInput{RoleName: &roleName}))
	}},
	{name: "boundary denies", link: check.Boundary, says: "does not allow aps:RemoteWrite", play: func(s *scene) {
		s.must(s.account.PutManagedPolicy("boundary", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"s3:*","Resource":"*"}]}`))
	}, after: func(s *scene) {
		s.must(s.account.PutManagedPolicy("boundary", `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":["aps:RemoteWrite","sts:AssumeRole"],"Resource":"*"}]}`))
	}},
	{name: "second role does not trust the first", link: check.Session, says: "the second role, " + secondRole, play: func(s *scene) {
		s.must(s.iam.CreateRole(s.Context(), &iam.CreateRoleInput{RoleName: aws.String("writer"), AssumeRolePolicyDocument: aws.String(
			`{"Version":"2012-10-17","Statement":[{"Effect":"Deny","Principal":{"AWS":"*"},"Action":"sts:AssumeRole"}]}`)}))
		s.must(s.iam.PutRolePolicy(s.Context(), &iam.PutRolePolicyInput{RoleName: aws.String("writer"), PolicyName: aws.String("write"), PolicyDocument: aws.String(
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"aps:RemoteWrite","Resource":"*"}]}`)}))
		s.setPolicy("- name: central\n", "- name: central\n  assumeRole: "+secondRole+"\n")
		s.sync()
	}, mend: func(s *scene) {
		s.must(s.iam.UpdateAssumeRolePolicy(s.Context(), &iam.UpdateAssumeRolePolicyInput{RoleName: aws.String("writer"), PolicyDocument: aws.String(
			`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::111122223333:role/ampbridge/demo/` + roleName + `"},"Action":"sts:AssumeRole"}]}`)}))
	}, after: func(s *scene) { s.setPolicy(); s.sync() }},
	{name: "expired token", link: check.Session, says: "ExpiredToken", play: func(s *scene) { s.cloud.Advance(time.Hour) },
		mend: func(s *scene) { s.cloud.Advance(-time.Hour) }},
	{name: "STS does not answer", link: check.Session, says: "no answer", play: func(s *scene) {
		s.setPolicy("endpoint: "+s.cloud.TLSURL, "endpoint: https://127.0.0.1:1")
	}, mend: plainPolicy},
}

const secondRole = "arn:aws:iam::" + accountID + ":role/writer"

// byHand is the policy of somebody who keeps the roles without sync: the mends
// are commands of the AWS CLI then.
func byHand(s *scene) { s.setPolicy("trust:\n", "trust:\n  manage: none\n") }

var byHandFaults = []fault{
	{name: "provider missing, no sync", link: check.OIDCProvider, says: "there is no", play: func(s *scene) { byHand(s); s.deleteProvider() }},
	{name: "trust of another subject, no sync", link: check.TrustDocument, says: "monitoring:grafana", play: func(s *scene) { s.trust("monitoring:prometheus", "monitoring:grafana") }},
	{name: "permission document missing, no sync", link: check.Permissions, says: "nothing in it", play: func(s *scene) {
		s.must(s.iam.DeleteRolePolicy(s.Context(), &iam.DeleteRolePolicyInput{RoleName: &roleName, PolicyName: aws.String("ampbridge")}))
	}},
	{name: "role missing, no sync", link: check.RoleExists, says: "there is no role", play: (*scene).deleteRole, after: func(s *scene) {
		// Sync takes over again only what is its own.
		s.deleteRole()
		s.deleteProvider()
		s.setPolicy()
		s.sync()
	}},
}

var issuerFaults = []fault{
	{name: "unreachable issuer", link: check.SigningKeys, says: "cannot be read", play: func(s *scene) {
		s.forgetKeys()
		s.published.replace(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }))
	}, mend: publishAgain},
	{name: "issuer not public", link: check.SigningKeys, says: "403 Forbidden", play: func(s *scene) {
		s.forgetKeys()
		s.published.replace(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) }))
	}, mend: publishAgain},
	{name: "key rotated out of the JWKS", link: check.SigningKeys, says: "hold none that signed the token", play: func(s *scene) {
		s.published.replace(awstest.NewSigner(issuerURL, jose.RS256))
	}, mend: publishAgain},
	{name: "discovery document of another issuer", link: check.SigningKeys, says: "is that of https://oidc.example.com/clusters/demo", play: func(s *scene) {
		s.published.replace(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			_ = json.NewEncoder(w).Encode(map[string]string{"issuer": strings.TrimSuffix(issuerURL, "/"), "jwks_uri": issuerURL + "keys"})
		}))
	}, mend: publishAgain},
}

// forgetKeys lets so much time pass that AWS reads the keys anew.
func (s *scene) forgetKeys() { s.cloud.Advance(15 * time.Second) }

func publishAgain(s *scene) { s.published.replace(nil) }

var workspaceFaults = []fault{
	{name: "wrong region", link: check.Workspace, says: "in eu-central-1", play: func(s *scene) {
		s.otherWorkspace("aps:eu-west-1", "aps:eu-central-1")
	}, mend: func(s *scene) { s.setPolicy(); s.sync() }},
	{name: "workspace missing", link: check.Workspace, says: "there is no ws-0000", play: func(s *scene) {
		s.otherWorkspace(s.workspace.ID, "ws-0000")
	}, mend: func(s *scene) { s.setPolicy(); s.sync() }},
	{name: "endpoint does not answer", link: check.Query, says: "no answer", play: func(s *scene) {
		s.setPolicy("endpoint: "+s.cloud.URL, "endpoint: http://127.0.0.1:1")
	}, mend: plainPolicy},
	injected("403 from AMP", check.Write, "AccessDenied", "aps:RemoteWrite", awstest.Deny),
	injected("AMP throttles", check.Write, "ThrottlingException", "aps:RemoteWrite", awstest.Throttle),
	{name: "role not visible yet", link: check.Session, says: "Not authorized to perform sts:AssumeRoleWithWebIdentity", play: func(s *scene) {
		// All but the new role is older than what STS sees by now. The last of the
		// rows: a clock that is turned back would hide the role from everybody.
		s.deleteRole()
		s.cloud.Advance(2 * time.Minute)
		s.cloud.SetPropagationDelay(time.Minute)
		s.sync()
	}, mend: func(s *scene) { s.cloud.SetPropagationDelay(0) }},
}

// injected is a fault that the double plays until the row ends it.
func injected(name string, link check.ID, says, target string, f awstest.Fault) fault {
	var injection *awstest.Injection
	return fault{name: name, link: link, says: says, play: func(s *scene) { injection = s.cloud.Fail(target, f) }, mend: func(*scene) { injection.Stop() }}
}

// Ways to break things.

func (s *scene) labelNamespace(value string) {
	s.Helper()
	s.must(s.kube.Client().CoreV1().Namespaces().Patch(s.Context(), namespace, types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"labels":{%q:%s}}}`, policy.LabelInjection, value), metav1.PatchOptions{}))
}

// annotate sets the service account's annotation, or takes it away.
func (s *scene) annotate(name, value string) {
	s.Helper()
	text := "null"
	if value != "" {
		text = fmt.Sprintf("%q", value)
	}
	s.must(s.kube.Client().CoreV1().ServiceAccounts(namespace).Patch(s.Context(), serviceAccount, types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%s}}}`, name, text), metav1.PatchOptions{}))
}

func (s *scene) patchRegistration(patch string) {
	s.Helper()
	s.must(s.kube.Client().AdmissionregistrationV1().MutatingWebhookConfigurations().Patch(s.Context(), "ampbridge", types.JSONPatchType, []byte(patch), metav1.PatchOptions{}))
}

func (s *scene) bundle(ca []byte) {
	s.Helper()
	configurations := s.kube.Client().AdmissionregistrationV1().MutatingWebhookConfigurations()
	object, err := configurations.Get(s.Context(), "ampbridge", metav1.GetOptions{})
	s.try(err)
	for i := range object.Webhooks {
		object.Webhooks[i].ClientConfig.CABundle = ca
	}
	s.must(configurations.Update(s.Context(), object, metav1.UpdateOptions{}))
}

func (s *scene) ready(is bool) {
	s.Helper()
	s.must(s.kube.Client().DiscoveryV1().EndpointSlices(system).Patch(s.Context(), service, types.JSONPatchType,
		fmt.Appendf(nil, `[{"op":"replace","path":"/endpoints/0/conditions/ready","value":%v}]`, is), metav1.PatchOptions{}))
}

func (s *scene) webhookPolicy(text string) {
	s.Helper()
	file := filepath.Join(s.dir, "webhook-policy.yaml")
	s.try(os.WriteFile(file+".next", []byte(text), 0o600))
	s.try(os.Rename(file+".next", file))
}

func (s *scene) deleteProvider() {
	s.Helper()
	s.must(s.iam.DeleteOpenIDConnectProvider(s.Context(), &iam.DeleteOpenIDConnectProviderInput{OpenIDConnectProviderArn: &providerARN}))
}

func (s *scene) createProvider(url string, audiences, thumbprints []string) {
	s.Helper()
	if thumbprints == nil {
		thumbprints = []string{s.issuer.Thumbprint()}
	}
	s.must(s.iam.CreateOpenIDConnectProvider(s.Context(), &iam.CreateOpenIDConnectProviderInput{Url: &url, ClientIDList: audiences, ThumbprintList: thumbprints}))
}

func (s *scene) deleteRole() {
	s.Helper()
	_, err := s.iam.DeleteRolePolicy(s.Context(), &iam.DeleteRolePolicyInput{RoleName: &roleName, PolicyName: aws.String("ampbridge")})
	s.try(err)
	s.must(s.iam.DeleteRole(s.Context(), &iam.DeleteRoleInput{RoleName: &roleName}))
}

// trust edits the trust document that sync wrote: old, new, old, new, …
func (s *scene) trust(replace ...string) {
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

func (s *scene) permit(name, document string) {
	s.Helper()
	s.must(s.iam.PutRolePolicy(s.Context(), &iam.PutRolePolicyInput{RoleName: &roleName, PolicyName: &name, PolicyDocument: &document}))
}

// otherWorkspace is one that is not there: sync would refuse it, so its
// permission document is written here.
func (s *scene) otherWorkspace(is, instead string) {
	s.Helper()
	s.setPolicy(is, instead)
	s.permit("ampbridge", fmt.Sprintf(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"aps:RemoteWrite","Resource":%q}]}`,
		strings.ReplaceAll(fmt.Sprint(s.workspace.ARN), is, instead)))
}

// prometheusPod is one that the webhook injects.
func prometheusPod(name string, change func(*corev1.Pod)) *corev1.Pod {
	mounts := []corev1.VolumeMount{{Name: "config", MountPath: "/etc/config"}}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app.kubernetes.io/name": "prometheus", "app.kubernetes.io/component": "server"}},
		Spec: corev1.PodSpec{
			ServiceAccountName: serviceAccount,
			Containers: []corev1.Container{
				{Name: "reloader", Image: "quay.io/prometheus-operator/prometheus-config-reloader:v0.85.0", Args: []string{"--watched-dir=/etc/config", "--reload-url=http://127.0.0.1:9090/-/reload"}, VolumeMounts: mounts},
				{Name: "prometheus-server", Image: "quay.io/prometheus/prometheus:v3.15.0", Args: []string{"--config.file=/etc/config/prometheus.yml", "--web.enable-lifecycle"}, VolumeMounts: mounts},
			},
			Volumes: []corev1.Volume{{Name: "config", VolumeSource: corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: name}}}}},
		},
	}
	if change != nil {
		change(pod)
	}
	return pod
}

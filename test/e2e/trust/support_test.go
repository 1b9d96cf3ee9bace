package trust_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/go-jose/go-jose/v4"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/webhooktest"
)

const (
	accountID = "111122223333"
	region    = "eu-west-1"
	audience  = "sts.amazonaws.com"
	// adminsTrust is the trust document of an administrator's role.
	adminsTrust = `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":"111122223333"},"Action":"sts:AssumeRole"}]}`
)

// fixture is an AWS double for one test.
type fixture struct {
	*testing.T
	cloud *awstest.Cloud
	dir   string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	return &fixture{T: t, cloud: awstest.Start(t, awstest.Options{}), dir: t.TempDir()}
}

func (f *fixture) must(_ any, err error) {
	f.Helper()
	testkit.Must(f, err)
}

// account returns an account with a permissions boundary for the clusters in it.
func (f *fixture) account(id string) *awstest.Account {
	f.Helper()
	a := f.cloud.Account(id)
	a.AddWorkspace(region, "ws-0001-"+id)
	a.AddWorkspace("eu-central-1", "ws-0002-"+id)
	for _, name := range []string{"boundary", "other-boundary"} {
		f.must(
			a.PutManagedPolicy(
				name,
				`{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":["aps:RemoteWrite","sts:AssumeRole"],"Resource":"*"}}`,
			),
		)
	}
	return a
}

func (f *fixture) client(c awstest.Credentials) *iam.Client {
	return iam.NewFromConfig(f.cloud.Config(c, region))
}

// member is a cluster with a policy and its own issuer. All members share one API server, except for the
// answers about the issuer.
type member struct {
	*fixture
	policy     *policy.Policy
	issuer     policy.Issuer
	signer     *awstest.Signer
	kubeconfig string
	file       string
	// creds are the credentials of its sync.
	creds awstest.Credentials
}

// issuerOf returns the n-th issuer.
func issuerOf(n int) policy.Issuer {
	return policy.Issuer(fmt.Sprintf("https://oidc.eks.eu-west-1.amazonaws.com/id/%032X", n))
}

// policyText returns the policy of a cluster. Its service accounts in the namespace may write to two
// destinations of the account.
func policyText(cluster, account, namespace string) string {
	return fmt.Sprintf(`apiVersion: ampbridge.io/v1alpha1
kind: Policy
cluster: {name: %[1]q}
destinations:
- {name: central, workspace: "arn:aws:aps:eu-west-1:%[2]s:workspace/ws-0001-%[2]s"}
- {name: backup, workspace: "arn:aws:aps:eu-central-1:%[2]s:workspace/ws-0002-%[2]s"}
grants:
- {namespaces: [%[3]s], serviceAccounts: ["prometheus*"], destinations: [central, backup]}
trust: {permissionsBoundary: "arn:aws:iam::%[2]s:policy/boundary"}
`, cluster, account, namespace)
}

// privateIssuer is an issuer with a certificate that no public authority signed.
const privateIssuer = policy.Issuer("https://issuer.internal.example/dev")

// vouched returns the policy with the certificate of [privateIssuer].
func (f *fixture) vouched(text string) string {
	f.Helper()
	i, err := f.cloud.RegisterIssuer(string(privateIssuer), http.NotFoundHandler(), awstest.PrivateCA)
	f.must(nil, err)
	return strings.Replace(text, "cluster: {", "cluster: {issuerCA: "+strconv.Quote(string(i.CA()))+", ", 1)
}

// scopes are the two role scopes, each with a function that changes a policy to it.
var scopes = map[string]func(text string) string{
	policy.RoleScopeDestination: func(text string) string { return text },
	policy.RoleScopeServiceAccount: func(text string) string {
		return strings.Replace(text, "trust: {", "trust: {roleScope: serviceAccount, ", 1)
	},
}

// join adds a cluster. Its sync acts as the account's administrator.
func (f *fixture) join(text string, issuer policy.Issuer) *member {
	f.Helper()
	m := &member{fixture: f, issuer: issuer, signer: awstest.NewSigner(string(issuer), jose.ES256)}
	m.follow(text)
	ca := awstest.PublicCA
	if issuer == privateIssuer {
		ca = awstest.PrivateCA
	}
	f.must(f.cloud.RegisterIssuer(string(issuer), m.signer, ca))
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: apiServerOf(f.T, issuer)}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{}
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "x"
	data, err := clientcmd.Write(*config)
	f.must(nil, err)
	m.kubeconfig = testkit.TempFile(m, "kubeconfig", string(data))
	m.creds = f.cloud.Account(m.accountID()).AdminCredentials()
	return m
}

// follow changes the cluster's policy.
func (m *member) follow(text string) {
	m.Helper()
	m.policy, m.file = policytest.Parse(m, text), testkit.TempFile(m, "policy.yaml", text)
}

// role returns the role of prometheus for a destination.
func (m *member) role(destination int) policy.ARN { return m.roleOf(destination, "prometheus") }

// roleOf returns the role of a service account in the namespace that the policy grants.
func (m *member) roleOf(destination int, serviceAccount string) policy.ARN {
	namespace := string(m.policy.Grants[0].Namespaces[0])
	return m.policy.RoleFor(m.policy.Destinations[destination], policy.Subject{Namespace: namespace, ServiceAccount: serviceAccount})
}

// confine makes the cluster's sync act with exactly the permissions that the policy package lists.
func (m *member) confine() *member {
	m.Helper()
	creds, err := m.cloud.Account(m.accountID()).PutUser("sync-"+policy.Owner(m.policy.Cluster.Name, m.issuer),
		policy.SyncPermissions(m.policy, m.issuer, m.accountID()).String())
	m.must(nil, err)
	m.creds = creds
	return m
}

func (m *member) accountID() string { return m.policy.Destinations[0].Workspace.Account }

// apiServerOf returns the URL of the shared API server with another issuer.
func apiServerOf(t *testing.T, issuer policy.Issuer) string {
	t.Helper()
	config := kube.Config()
	transport, err := rest.TransportFor(config)
	testkit.Must(t, err)
	target, err := url.Parse(config.Host)
	testkit.Must(t, err)
	mux := http.NewServeMux()
	mux.Handle("/", &httputil.ReverseProxy{
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport: transport,
	})
	mux.HandleFunc("/.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": issuer, "jwks_uri": issuer + "/openid/v1/jwks"})
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// command returns a run of sync. Its environment contains nothing of the machine's.
func (m *member) command(ctx context.Context, more ...string) *exec.Cmd {
	cmd := m.ampbridge(ctx, "sync", "--once")
	cmd.Env = append(cmd.Env, more...)
	return cmd
}

// ampbridge returns a command of the program with the cluster's policy.
func (m *member) ampbridge(ctx context.Context, arguments ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, ampbridge, append(arguments, "--policy", m.file, "--kubeconfig", m.kubeconfig)...)
	cmd.Env = append(append([]string{"HOME=" + m.dir, "AWS_EC2_METADATA_DISABLED=true"}, m.cloud.Environ()...), m.creds.Environ()...)
	return cmd
}

func (m *member) sync() (output string, err error) {
	out, err := m.command(m.Context()).CombinedOutput()
	return string(out), err
}

// inSync runs sync, which must succeed.
func (m *member) inSync() string {
	m.Helper()
	out, err := m.sync()
	if err != nil || !strings.Contains(out, "\nsync: in sync: ") {
		m.Fatalf("sync of %s: %v\n%s", m.policy.Cluster.Name, err, out)
	}
	return out
}

// assume reports as an error that STS refuses one of the cluster's tokens.
func (m *member) assume(role policy.ARN, namespace, serviceAccount string) error {
	_, err := m.session(role, namespace, serviceAccount)
	return err
}

// session returns the answer of STS to one of the cluster's tokens.
func (m *member) session(role policy.ARN, namespace, serviceAccount string) (awstest.Credentials, error) {
	token := m.signer.Token("system:serviceaccount:"+namespace+":"+serviceAccount, audience)
	return m.cloud.AssumeWithToken(m.Context(), role.String(), token)
}

// namespace creates a labelled namespace with the service accounts, unless it exists.
func namespace(t *testing.T, name string, accounts ...string) {
	t.Helper()
	namespaces.Lock()
	defer namespaces.Unlock()
	if slices.Contains(namespaces.made, name) {
		return
	}
	webhooktest.Namespace(t, kube, name, accounts...)
	namespaces.made = append(namespaces.made, name)
}

var namespaces struct {
	sync.Mutex
	made []string
}

// state returns all roles and providers in an account's IAM by ARN, without times and unique ids.
func (f *fixture) state(a *awstest.Account) map[string]string {
	f.Helper()
	ctx, client, found := f.Context(), a.IAM(), map[string]string{}
	show := func(arn *string, parts ...any) {
		text, err := json.MarshalIndent(parts, "", " ")
		f.must(nil, err)
		found[aws.ToString(arn)] = string(text)
	}
	roles := iam.NewListRolesPaginator(client, &iam.ListRolesInput{})
	for roles.HasMorePages() {
		page, err := roles.NextPage(ctx)
		f.must(nil, err)
		for _, listed := range page.Roles {
			got, err := client.GetRole(ctx, &iam.GetRoleInput{RoleName: listed.RoleName})
			f.must(nil, err)
			r := got.Role
			inline, err := client.ListRolePolicies(ctx, &iam.ListRolePoliciesInput{RoleName: r.RoleName})
			f.must(nil, err)
			var documents []string
			for _, name := range inline.PolicyNames {
				p, err := client.GetRolePolicy(ctx, &iam.GetRolePolicyInput{RoleName: r.RoleName, PolicyName: &name})
				f.must(nil, err)
				documents = append(documents, name, unescaped(p.PolicyDocument))
			}
			attached, err := client.ListAttachedRolePolicies(ctx, &iam.ListAttachedRolePoliciesInput{RoleName: r.RoleName})
			f.must(nil, err)
			show(
				r.Arn,
				unescaped(r.AssumeRolePolicyDocument),
				r.PermissionsBoundary,
				r.MaxSessionDuration,
				r.Description,
				tagText(r.Tags),
				documents,
				attached.AttachedPolicies,
			)
		}
	}
	providers, err := client.ListOpenIDConnectProviders(ctx, &iam.ListOpenIDConnectProvidersInput{})
	f.must(nil, err)
	for _, listed := range providers.OpenIDConnectProviderList {
		p, err := client.GetOpenIDConnectProvider(ctx, &iam.GetOpenIDConnectProviderInput{OpenIDConnectProviderArn: listed.Arn})
		f.must(nil, err)
		slices.Sort(p.ClientIDList)
		show(listed.Arn, p.ClientIDList, p.ThumbprintList, tagText(p.Tags))
	}
	return found
}

func unescaped(document *string) string {
	text, err := url.PathUnescape(aws.ToString(document))
	if err != nil {
		return aws.ToString(document)
	}
	return text
}

func tagText(tags []types.Tag) []string {
	var list []string
	for _, t := range tags {
		list = append(list, aws.ToString(t.Key)+"="+aws.ToString(t.Value))
	}
	slices.Sort(list)
	return list
}

package bootstrap_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/amp"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/go-jose/go-jose/v4"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/ampbridge/ampbridge/cmd/internal/cli"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

const moduleIssuer = "https://oidc.eks.us-east-1.amazonaws.com/id/B4EA44BE30ABD91AC23C475F32371111"

// moved is an entry of the module's list, and the name of the cluster in ampbridge.
type moved struct {
	policy.Subject
	environment, issuer, cluster string
	audiences                    []string
	private                      bool // the issuer's certificate authority
}

func entry(environment, issuer, cluster, namespace, account string) moved {
	subject := policy.Subject{Namespace: namespace, ServiceAccount: account}
	return moved{subject, environment, issuer, cluster, []string{"sts.amazonaws.com"}, false}
}

// grant is the entry as Terraform has it.
func (m moved) grant(thumbprints ...string) string {
	list := func(texts []string) string { return `["` + strings.Join(texts, `", "`) + `"]` }
	return fmt.Sprintf(`{
    description = "To grant access to the remote EKS cluster",
    environment_name = %q,
    instance_name = "dev cluster",
    kube_service_account_name = %q,
    namespace = %q,
    oidc_provider_client_id_list = %s,
    oidc_provider_thumbprint_list = %s,
    oidc_provider_url = %q
  }`, m.environment, m.ServiceAccount, m.Namespace, list(m.audiences), list(thumbprints), m.issuer)
}

// shape is a file of the module, with what it says.
type shape struct {
	list []moved
	// text is the file's; args are those of bootstrap --from beside it.
	text func(list, workspace string) string
	args func(workspace string) []string
	// forgets is how the runbook has Terraform forget the workspace.
	forgets string
	scope   string // trust.roleScope, by hand
}

const removed = "from = module.amp.aws_prometheus_workspace.this"

func named(workspace string) []string { return []string{"--workspace", workspace} }

const inputs = "tags = { team = \"metrics\" }\nworkspace_alias = \"prometheus-test\"\naccount_id = \"" + accountID + "\"\n"

func moduleBlock(list, _ string) string {
	return "module \"amp\" {\n" + inputs + "iam_access_grant_list = [" + list + "]\n}\n"
}

// The steps of the runbook, for the seed's own list and for other shapes of the
// module: at every step each service account writes a sample with the role that it uses
// then, no sample is missing, and at the end nothing of the module is needed. The
// workspace's samples are in a real Prometheus.
func TestNoStepOfTheMigrationIsWithoutTrust(t *testing.T) {
	const other, aks = "https://oidc.eks.us-east-1.amazonaws.com/id/B4EA44BE30ABD91AC23C475F32372222",
		"https://eastus.oic.prod-aks.azure.com/72f988bf-86f1-41af-91ab-2d7cd011db47/0a1b2c3d-1111-2222-3333-444455556666/"
	theirs := entry("dev", moduleIssuer, "dev", "monitoring", "kube-prometheus-stack-prometheus")
	second := entry("dev", moduleIssuer, "dev", "tenant", "prometheus")
	private, third := theirs, second
	private.issuer, private.private, private.audiences = "https://issuer.corp.example/dev", true, []string{"sts.amazonaws.com", "vault"}
	third.issuer, third.private, third.audiences = private.issuer, true, private.audiences
	for name, s := range map[string]shape{
		"the seed's list":  {[]moved{theirs}, moduleBlock, named, removed, ""},
		"two of a cluster": {[]moved{theirs, second}, moduleBlock, named, removed, ""},
		"several clusters": {[]moved{
			theirs, second, entry("qa", other, "qa", "monitoring", "kube-prometheus-stack-prometheus"),
			entry("dev", aks, "dev-dev-cluster", "monitoring", "kube-prometheus-stack-prometheus"),
		}, moduleBlock, named, removed, ""},
		"tfvars with every input": {
			[]moved{theirs, second},
			func(list, _ string) string {
				return inputs + "instance_name = \"env\"\niam_access_grant_list = [" + list + "]\n"
			},
			func(workspace string) []string { return append(named(workspace), "--module", `module.amp["dev"]`) },
			`terraform state rm 'module.amp["dev"].aws_prometheus_workspace.this' `, "", // no removed block may have an instance
		},
		"terraform output -json": {
			[]moved{theirs, second},
			func(list, workspace string) string {
				list = regexp.MustCompile(`(?m)^    (\w+) = `).ReplaceAllString(list, `"$1": `)
				return `{"arn": {"sensitive": false, "type": "string", "value": "` + workspace + `"},
"tags": {"sensitive": false, "type": ["map", "string"], "value": {"team": "metrics"}},
"iam_access_grant_list": {"sensitive": false, "type": ["list", "dynamic"], "value": [` + list + `]}}`
			},
			func(string) []string { return nil }, removed, "",
		},
		"client ids and thumbprints, to a role for each": {
			[]moved{private, third}, moduleBlock, named, removed, policy.RoleScopeServiceAccount,
		},
	} {
		t.Run(name, func(t *testing.T) { migrate(t, s) })
	}
}

func migrate(t *testing.T, s shape) {
	f := newFixtureOn(t, awstest.Start(t, awstest.Options{Prometheus: tools.Path(t, "prometheus")}), policyText)
	admin := f.iam(f.account.AdminCredentials())
	workspace := f.account.CreateWorkspace(region, "prometheus-test").ARN
	// The running module: a provider for each cluster, and a role for each entry.
	signers, thumbprints := map[string]*awstest.Signer{}, map[string][]string{}
	var entries, clusters []string
	members := map[string][]policy.Subject{}
	for i, m := range s.list {
		provider := policy.Issuer(m.issuer).ProviderARN("aws", accountID)
		if signers[m.issuer] == nil {
			signers[m.issuer] = awstest.NewSigner(m.issuer, jose.RS256)
			ca := awstest.PublicCA
			if m.private {
				ca = awstest.PrivateCA
			}
			registered, err := f.cloud.RegisterIssuer(m.issuer, signers[m.issuer], ca)
			testkit.Must(t, err)
			thumbprints[m.issuer] = []string{"9e99a48a9960b14926bb7f3b02e22da2b0ab7280"}
			if m.private {
				thumbprints[m.issuer] = append(thumbprints[m.issuer], registered.Thumbprint())
			}
			clusters = append(clusters, m.cluster)
			if _, err := admin.CreateOpenIDConnectProvider(t.Context(), &iam.CreateOpenIDConnectProviderInput{
				Url: &m.issuer, ClientIDList: m.audiences, ThumbprintList: thumbprints[m.issuer],
				Tags: []types.Tag{{Key: new("team"), Value: new("metrics")}},
			}); err != nil {
				t.Fatal(err)
			}
		}
		role := fmt.Sprintf("aws-managed-prometheus-dev-%d", i)
		trust := policy.TrustDocument(provider, policy.Issuer(m.issuer), "sts.amazonaws.com", []policy.Subject{m.Subject})
		delete(trust.Statement[0].Condition["StringEquals"], policy.Issuer(m.issuer).Host()+":aud") // as the module has it
		_, err := admin.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: &role, AssumeRolePolicyDocument: new(trust.String())})
		testkit.Must(t, err)
		// As the module has it, with its needless sts:AssumeRole.
		if _, err := admin.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{
			RoleName: &role, PolicyName: new("this"), PolicyDocument: new(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow",` +
				`"Action":["sts:AssumeRole","aps:RemoteWrite"],"Resource":"` + workspace + `"}]}`),
		}); err != nil {
			t.Fatal(err)
		}
		entries = append(entries, m.grant(thumbprints[m.issuer]...))
		members[m.cluster] = append(members[m.cluster], m.Subject)
	}
	dir := t.TempDir()
	main := filepath.Join(dir, "module")
	testkit.WriteFile(t, main, s.text(strings.Join(entries, ",\n"), workspace))

	client := sts.NewFromConfig(f.cloud.Config(awstest.Credentials{}, region))
	written := map[string]int{}
	assume := func(step, role string, want bool, m moved) {
		t.Helper()
		out, err := client.AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{
			RoleArn: &role, RoleSessionName: new("migration"),
			WebIdentityToken: new(signers[m.issuer].Token(m.String(), "sts.amazonaws.com")),
		})
		if (err == nil) != want || err != nil && !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("%s: %s of %s takes %s: %v, want %v", step, m, m.cluster, role, err, want)
		}
		if err == nil {
			f.writeSample(workspace, m.cluster+" "+m.String(), awstest.Credentials{
				AccessKeyID: *out.Credentials.AccessKeyId, SecretAccessKey: *out.Credentials.SecretAccessKey,
				SessionToken: *out.Credentials.SessionToken,
			})
			written[m.cluster+" "+m.String()]++
		}
	}
	old := func(i int) string {
		return fmt.Sprintf("arn:aws:iam::%s:role/aws-managed-prometheus-dev-%d", accountID, i)
	}
	fresh := func(m moved) string {
		if s.scope != "" { // a name that may be shortened
			p := &policy.Policy{Cluster: policy.Cluster{Name: m.cluster}, Trust: policy.Trust{RoleScope: s.scope}}
			central := policy.Destination{Name: "central"}
			testkit.Must(t, central.Workspace.UnmarshalText([]byte(workspace)))
			return p.RoleFor(central, m.Subject).String()
		}
		return "arn:aws:iam::111122223333:role/ampbridge/" + m.cluster + "/ampbridge." + m.cluster + ".central"
	}
	var steps []string
	check := func(step string, module, ours bool) {
		t.Helper()
		steps = append(steps, step)
		for i, m := range s.list {
			assume(step, old(i), module, m)
			assume(step, fresh(m), ours, m)
			stranger := m
			stranger.ServiceAccount = "default"
			assume(step, fresh(m), false, stranger)
			for _, o := range s.list {
				if o.cluster != m.cluster {
					assume(step, fresh(m), false, o)
				}
			}
		}
	}
	check("before", true, false)

	status, out, errs := run(t, append([]string{"bootstrap", "--from", main}, s.args(workspace)...)...)
	if status != cli.OK || !strings.Contains(out, s.forgets) || strings.Contains(out, "removed {") != (s.forgets == removed) {
		t.Fatalf("status %d: %s%s", status, out, errs)
	}
	n := len(f.cloud.Calls())
	// 1. The policies.
	status, _, errs = run(t, "bootstrap", "policy", "--from", main, "--workspace", workspace, "--dir", dir)
	if status != cli.OK || len(f.cloud.Calls()) != n {
		t.Fatalf("status %d: %s", status, errs)
	}
	texts := map[string]string{}
	for _, name := range clusters {
		texts[name] = testkit.ReadFile(t, filepath.Join(dir, name+".yaml"))
		if s.scope != "" {
			texts[name] = strings.Replace(texts[name], "trust:\n", "trust:\n  roleScope: "+s.scope+"\n", 1)
		}
	}
	check("1", true, false)
	// 2. Bootstrap: the providers stay as they are.
	for _, name := range clusters {
		f.write(texts[name])
		f.must("--apply", "--yes")
	}
	check("2", true, false)
	// 3. Sync, with what bootstrap gave it.
	keys := map[string]awstest.Credentials{}
	sync := func(name string) int {
		t.Helper()
		f.write(texts[name])
		p := f.policy()
		if p.Trust.Tags["team"] != "metrics" {
			t.Errorf("tags %v", p.Trust.Tags)
		}
		if keys[name].AccessKeyID == "" {
			var err error
			if keys[name], err = f.account.PutUser("sync-"+name, policy.SyncPermissions(p, p.Cluster.Issuer, accountID).String()); err != nil {
				t.Fatal(err)
			}
		}
		f.credentials(keys[name])
		return f.syncSubjects(p, members[name])
	}
	for _, name := range clusters {
		sync(name)
	}
	check("3 and 4", true, true)
	// 5. Terraform destroys the module's roles, and forgets workspace and providers.
	for i := range s.list {
		name := fmt.Sprintf("aws-managed-prometheus-dev-%d", i)
		if _, err := admin.DeleteRolePolicy(t.Context(), &iam.DeleteRolePolicyInput{
			RoleName: &name, PolicyName: new("this"),
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.DeleteRole(t.Context(), &iam.DeleteRoleInput{RoleName: &name}); err != nil {
			t.Fatal(err)
		}
	}
	check("5", false, true)
	// 6. The providers become the clusters', as they are.
	for _, name := range clusters {
		texts[name] = strings.Replace(texts[name], "trust:\n", "trust:\n  adoptProvider: true\n", 1)
		sync(name)
	}
	check("6", false, true)
	for _, name := range clusters {
		if again := sync(name); again != 0 {
			t.Errorf("%s: %d changes at the end", name, again)
		}
	}
	id := workspace[strings.LastIndexByte(workspace, '/')+1:]
	kept, err := amp.NewFromConfig(f.cloud.Config(f.account.AdminCredentials(), region)).DescribeWorkspace(
		t.Context(), &amp.DescribeWorkspaceInput{WorkspaceId: &id})
	if err != nil || aws.ToString(kept.Workspace.Alias) != "prometheus-test" {
		t.Errorf("the workspace is %+v, %v", kept, err)
	}
	samples, err := f.cloud.Query(t.Context(), id, "count_over_time(migration[1h])")
	if err != nil || len(samples) != len(s.list) {
		t.Errorf("samples %v, %v", samples, err)
	}
	for _, sample := range samples {
		if want := written[sample.Metric["subject"]]; int(sample.Value) != want || want < len(steps) {
			t.Errorf("%s: %v samples of %d", sample.Metric["subject"], sample.Value, want)
		}
	}
	for _, m := range s.list {
		found, err := admin.GetOpenIDConnectProvider(t.Context(), &iam.GetOpenIDConnectProviderInput{
			OpenIDConnectProviderArn: new(policy.Issuer(m.issuer).ProviderARN("aws", accountID).String()),
		})
		if err != nil || value(found.Tags, policy.TagOwner) != policy.Owner(m.cluster, policy.Issuer(m.issuer)) ||
			value(found.Tags, "team") != "metrics" || len(found.ThumbprintList) != len(thumbprints[m.issuer]) ||
			len(found.ClientIDList) != len(m.audiences) {
			t.Errorf("provider %+v, %v", found, err)
		}
	}
}

// writeSample writes a sample to a workspace as Prometheus does.
func (f *fixture) writeSample(workspace, subject string, keys awstest.Credentials) {
	f.Helper()
	field := func(b []byte, number protowire.Number, content []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), content)
	}
	label := func(b []byte, name, value string) []byte {
		return field(b, 1, field(field(nil, 1, []byte(name)), 2, []byte(value)))
	}
	f.last = max(f.last+1, time.Now().UnixMilli()) // no two samples of one time
	sample := protowire.AppendFixed64(protowire.AppendTag(nil, 1, protowire.Fixed64Type), math.Float64bits(1))
	sample = protowire.AppendVarint(protowire.AppendTag(sample, 2, protowire.VarintType), uint64(f.last))
	message := field(nil, 1, field(label(label(nil, "__name__", "migration"), "subject", subject), 2, sample))
	// Snappy that compresses nothing: the length, and one literal with two bytes of length.
	body := append(binary.AppendUvarint(nil, uint64(len(message))), 61<<2, byte(len(message)-1), byte((len(message)-1)>>8))
	body = append(body, message...)
	id := workspace[strings.LastIndexByte(workspace, '/')+1:]
	request, err := http.NewRequestWithContext(f.Context(), http.MethodPost, f.cloud.URL+"/workspaces/"+id+"/api/v1/remote_write",
		bytes.NewReader(body))
	testkit.Must(f, err)
	request.Header.Set("Content-Type", "application/x-protobuf")
	request.Header.Set("Content-Encoding", "snappy")
	request.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	sum := sha256.Sum256(body)
	credentials, err := keys.Retrieve(f.Context())
	if err == nil {
		err = v4.NewSigner().SignHTTP(f.Context(), credentials, request, hex.EncodeToString(sum[:]), "aps", region, time.Now())
	}
	testkit.Must(f, err)
	response, err := http.DefaultClient.Do(request)
	testkit.Must(f, err)
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil || response.StatusCode/100 != 2 {
		f.Errorf("%s: the write: %s, %v: %s", subject, response.Status, err, text)
	}
}

// What the runbook cannot carry over is said, and with --strict it is an error.
func TestRunbookSaysWhatItLeavesOut(t *testing.T) {
	main := filepath.Join(t.TempDir(), "main.tf")
	text := moduleBlock(entry("dev", moduleIssuer, "", "monitoring", "prometheus").grant("9e99a48a9960b14926bb7f3b02e22da2b0ab7280"), "")
	text = strings.Replace(text, inputs, "", 1)
	const workspace = "arn:aws:aps:eu-west-1:111122223333:workspace/ws-0123abcd"
	for name, c := range map[string]struct {
		text, args string
		status     int
		want       string
	}{
		"thumbprints": {text, "--workspace " + workspace, cli.OK, "thumbprints"},
		"strict":      {text, "--strict --workspace " + workspace, cli.Failed, "--strict: 1 things are left out"},
		"an unknown input": {strings.Replace(text, "{\n", "{\n  retention = 5\n", 1), "--workspace " + workspace, cli.OK,
			"retention: warning: is left out"},
		"instance_name": {strings.Replace(text, "{\n", "{\n  instance_name = \"env\"\n", 1), "--workspace " + workspace, cli.OK,
			"instance_name: note: \"env\" names the module's roles"},
		"another account": {strings.Replace(text, "{\n", "{\n  account_id = \"444455556666\"\n", 1), "--workspace " + workspace, cli.Failed,
			"account_id is 444455556666"},
		"no workspace": {text, "", cli.Usage, "no workspace: name it with --workspace"},
		"a policy too": {text, "--policy x.yaml", cli.Usage, "--from and --policy exclude each other"},
		"an entry that is lost": {strings.Replace(text, `"monitoring"`, `"*"`, 1), "--workspace " + workspace, cli.Failed,
			"1 of 1 entries were not converted"},
	} {
		testkit.WriteFile(t, main, c.text)
		status, out, errs := run(t, append([]string{"bootstrap", "--from", main}, strings.Fields(c.args)...)...)
		if status != c.status || !strings.Contains(errs, c.want) || (out != "") != (status == cli.OK) {
			t.Errorf("%s: status %d, %d bytes: %s", name, status, len(out), errs)
		}
	}
	if status, _, errs := run(t, "bootstrap", "--policy", "x", "--strict"); status != cli.Usage ||
		!strings.Contains(errs, "--strict is for --from") {
		t.Errorf("status %d: %s", status, errs)
	}
}

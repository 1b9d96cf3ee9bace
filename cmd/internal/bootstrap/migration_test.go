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
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/aws/aws-sdk-go-v2/service/iam/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/go-jose/go-jose/v4"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/ampbridge/ampbridge/cmd/internal/cli"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/tools"
)

const moduleIssuer = "https://oidc.eks.us-east-1.amazonaws.com/id/B4EA44BE30ABD91AC23C475F32371111"

// grant is an entry of the module's list.
func grant(namespace, account string) string {
	return fmt.Sprintf(`{
    description = "To grant access to the remote EKS cluster"
    environment_name = "dev"
    instance_name = "dev cluster"
    kube_service_account_name = %q
    namespace = %q
    oidc_provider_client_id_list = ["sts.amazonaws.com"]
    oidc_provider_thumbprint_list = ["9e99a48a9960b14926bb7f3b02e22da2b0ab7280"]
    oidc_provider_url = %q
  }`, account, namespace, moduleIssuer)
}

// The steps of the runbook, for the seed's own list and for two service accounts: at
// every step each service account writes a sample with the role that it uses then, no
// sample is missing, and at the end nothing of the module is needed. The workspace's
// samples are in a real Prometheus.
func TestNoStepOfTheMigrationIsWithoutTrust(t *testing.T) {
	for name, subjects := range map[string][]policy.Subject{
		"the seed's list": {{Namespace: "monitoring", ServiceAccount: "kube-prometheus-stack-prometheus"}},
		"two of a cluster": {
			{Namespace: "monitoring", ServiceAccount: "kube-prometheus-stack-prometheus"},
			{Namespace: "tenant", ServiceAccount: "prometheus"},
		},
	} {
		t.Run(name, func(t *testing.T) { migrate(t, subjects) })
	}
}

func migrate(t *testing.T, subjects []policy.Subject) {
	f := newFixtureOn(t, awstest.Start(t, awstest.Options{Prometheus: tools.Path(t, "prometheus")}), policyText)
	signer := awstest.NewSigner(moduleIssuer, jose.RS256)
	if _, err := f.cloud.RegisterIssuer(moduleIssuer, signer, awstest.PublicCA); err != nil {
		t.Fatal(err)
	}
	admin := f.iam(f.account.AdminCredentials())
	workspace := f.account.CreateWorkspace(region, "prometheus-test").ARN
	// The running module: a provider, and a role for each entry.
	provider := policy.Issuer(moduleIssuer).ProviderARN("aws", accountID)
	if _, err := admin.CreateOpenIDConnectProvider(t.Context(), &iam.CreateOpenIDConnectProviderInput{
		Url: aws.String(moduleIssuer), ClientIDList: []string{"sts.amazonaws.com"},
		ThumbprintList: []string{"9e99a48a9960b14926bb7f3b02e22da2b0ab7280"},
		Tags:           []types.Tag{{Key: aws.String("team"), Value: aws.String("metrics")}},
	}); err != nil {
		t.Fatal(err)
	}
	var entries []string
	for i, s := range subjects {
		role := fmt.Sprintf("aws-managed-prometheus-dev-%d", i)
		trust := policy.TrustDocument(provider, moduleIssuer, "sts.amazonaws.com", []policy.Subject{s})
		delete(trust.Statement[0].Condition["StringEquals"], policy.Issuer(moduleIssuer).Host()+":aud") // as the module has it
		_, err := admin.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: &role, AssumeRolePolicyDocument: aws.String(trust.String())})
		if err != nil {
			t.Fatal(err)
		}
		// As the module has it, with its needless sts:AssumeRole.
		if _, err := admin.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{
			RoleName: &role, PolicyName: aws.String("this"), PolicyDocument: aws.String(`{"Version":"2012-10-17","Statement":[{"Effect":"Allow",` +
				`"Action":["sts:AssumeRole","aps:RemoteWrite"],"Resource":"` + workspace + `"}]}`),
		}); err != nil {
			t.Fatal(err)
		}
		entries = append(entries, grant(s.Namespace, s.ServiceAccount))
	}
	dir := t.TempDir()
	main, file := filepath.Join(dir, "main.tf"), filepath.Join(dir, "dev.yaml")
	save(t, main, "module \"amp\" {\n  tags = { team = \"metrics\" }\n  workspace_alias = \"prometheus-test\"\n  account_id = \""+accountID+
		"\"\n  iam_access_grant_list = ["+strings.Join(entries, ",\n")+"]\n}\n")

	client := sts.NewFromConfig(f.cloud.Config(awstest.Credentials{}, region))
	written := map[string]int{}
	assume := func(step, role string, want bool, s policy.Subject) {
		t.Helper()
		out, err := client.AssumeRoleWithWebIdentity(t.Context(), &sts.AssumeRoleWithWebIdentityInput{
			RoleArn: &role, RoleSessionName: aws.String("migration"), WebIdentityToken: aws.String(signer.Token(s.String(), "sts.amazonaws.com")),
		})
		if (err == nil) != want || err != nil && !strings.Contains(err.Error(), "AccessDenied") {
			t.Errorf("%s: %s takes %s: %v, want %v", step, s, role, err, want)
		}
		if err == nil {
			f.writeSample(workspace, s.String(), awstest.Credentials{
				AccessKeyID: *out.Credentials.AccessKeyId, SecretAccessKey: *out.Credentials.SecretAccessKey,
				SessionToken: *out.Credentials.SessionToken,
			})
			written[s.String()]++
		}
	}
	old := func(i int) string {
		return fmt.Sprintf("arn:aws:iam::%s:role/aws-managed-prometheus-dev-%d", accountID, i)
	}
	const fresh = "arn:aws:iam::111122223333:role/ampbridge/dev/ampbridge.dev.central"
	var steps []string
	check := func(step string, module, ours bool) {
		t.Helper()
		steps = append(steps, step)
		for i, s := range subjects {
			assume(step, old(i), module, s)
			assume(step, fresh, ours, s)
		}
		assume(step, fresh, false, policy.Subject{Namespace: "monitoring", ServiceAccount: "default"})
	}
	check("before", true, false)

	var out, errs bytes.Buffer
	status := cli.Main(t.Context(), []string{"bootstrap", "--from", main, "--workspace", workspace}, nil, &out, &errs)
	if status != cli.OK || !strings.Contains(out.String(), "from = module.amp.aws_prometheus_workspace.this") {
		t.Fatalf("status %d: %s%s", status, out.String(), errs.String())
	}
	n := len(f.cloud.Calls())
	// 1. The policy.
	status = cli.Main(t.Context(), []string{"bootstrap", "policy", "--from", main, "--workspace", workspace, "--dir", dir}, nil, &out, &errs)
	if status != cli.OK || len(f.cloud.Calls()) != n {
		t.Fatalf("status %d: %s", status, errs.String())
	}
	f.write(read(t, file))
	check("1", true, false)
	// 2. Bootstrap: the provider stays as it is.
	f.must("--apply", "--yes")
	check("2", true, false)
	p := f.policy()
	if p.Trust.Tags["team"] != "metrics" {
		t.Errorf("tags %v", p.Trust.Tags)
	}
	// 3. Sync, with what bootstrap gave it.
	keys, err := f.account.PutUser("sync", policy.SyncPermissions(p, moduleIssuer, accountID).String())
	if err != nil {
		t.Fatal(err)
	}
	f.credentials(keys)
	f.syncSubjects(p, subjects)
	check("3 and 4", true, true)
	// 5. Terraform destroys the module's roles, and forgets workspace and provider.
	for i := range subjects {
		name := fmt.Sprintf("aws-managed-prometheus-dev-%d", i)
		if _, err := admin.DeleteRolePolicy(t.Context(), &iam.DeleteRolePolicyInput{
			RoleName: &name, PolicyName: aws.String("this"),
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.DeleteRole(t.Context(), &iam.DeleteRoleInput{RoleName: &name}); err != nil {
			t.Fatal(err)
		}
	}
	check("5", false, true)
	// 6. The provider becomes the cluster's, as it is.
	f.write(strings.Replace(read(t, file), "trust:\n", "trust:\n  adoptProvider: true\n", 1))
	p = f.policy()
	f.syncSubjects(p, subjects)
	check("6", false, true)
	if again := f.syncSubjects(p, subjects); again != 0 {
		t.Errorf("%d changes at the end", again)
	}
	id := workspace[strings.LastIndexByte(workspace, '/')+1:]
	samples, err := f.cloud.Query(t.Context(), id, "count_over_time(migration[1h])")
	if err != nil || len(samples) != len(subjects) {
		t.Errorf("samples %v, %v", samples, err)
	}
	for _, sample := range samples {
		if want := written[sample.Metric["subject"]]; int(sample.Value) != want || want < len(steps) {
			t.Errorf("%s: %v samples of %d", sample.Metric["subject"], sample.Value, want)
		}
	}
	found, err := admin.GetOpenIDConnectProvider(t.Context(), &iam.GetOpenIDConnectProviderInput{
		OpenIDConnectProviderArn: aws.String(provider.String()),
	})
	if err != nil || value(found.Tags, policy.TagOwner) != policy.Owner("dev", moduleIssuer) || value(found.Tags, "team") != "metrics" ||
		len(found.ThumbprintList) != 1 {
		t.Errorf("provider %+v, %v", found, err)
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
	if err != nil {
		f.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-protobuf")
	request.Header.Set("Content-Encoding", "snappy")
	request.Header.Set("X-Prometheus-Remote-Write-Version", "0.1.0")
	sum := sha256.Sum256(body)
	credentials, err := keys.Retrieve(f.Context())
	if err == nil {
		err = v4.NewSigner().SignHTTP(f.Context(), credentials, request, hex.EncodeToString(sum[:]), "aps", region, time.Now())
	}
	if err != nil {
		f.Fatal(err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		f.Fatal(err)
	}
	text, err := io.ReadAll(response.Body)
	if err := errors.Join(err, response.Body.Close()); err != nil || response.StatusCode/100 != 2 {
		f.Errorf("%s: the write: %s, %v: %s", subject, response.Status, err, text)
	}
}

// What the runbook cannot carry over is said, and with --strict it is an error.
func TestRunbookSaysWhatItLeavesOut(t *testing.T) {
	main := filepath.Join(t.TempDir(), "main.tf")
	text := "module \"amp\" {\n  iam_access_grant_list = [" + grant("monitoring", "prometheus") + "]\n}\n"
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
		if err := os.WriteFile(main, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
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

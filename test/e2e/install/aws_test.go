//go:build linux && e2e

package install

import (
	"fmt"
	"net"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/node"
	"github.com/ampbridge/ampbridge/test/tools"
)

const (
	region = "eu-west-1"
	// central is the account of the workspace, and of nothing else: the clusters
	// run in accounts of their own.
	central  = "111122223333"
	audience = "sts.amazonaws.com"
)

// awsHosts are the names by which everything finds AWS: nothing is told another endpoint.
var awsHosts = []string{
	"sts." + region + ".amazonaws.com", "iam.amazonaws.com", "aps-workspaces." + region + ".amazonaws.com",
}

// startAWS plays AWS at its own names' port, in front of one account and its workspace.
func startAWS(t *testing.T) (*awstest.Cloud, *awstest.Workspace) {
	t.Helper()
	cloud := awstest.Start(t, awstest.Options{Prometheus: tools.Path(t, "prometheus"), ListenTLS: net.JoinHostPort(node.Address, "443")})
	return cloud, cloud.Account(central).CreateWorkspace(region, "central")
}

// boundary, provider and role are what an administrator of the central account
// makes once per cluster, as docs/iam.md says.
func adminsPart(t *testing.T, cloud *awstest.Cloud, p *policy.Policy, issuer policy.Issuer) (syncRole string) {
	t.Helper()
	account := cloud.Account(central)
	if _, err := account.PutManagedPolicy(boundaryName(p.Cluster.Name), policy.BoundaryDocument(p, central).String()); err != nil {
		t.Fatal(err)
	}
	client := iam.NewFromConfig(cloud.Config(account.AdminCredentials(), region))
	if _, err := client.CreateOpenIDConnectProvider(t.Context(), &iam.CreateOpenIDConnectProviderInput{
		Url: aws.String(string(issuer)), ClientIDList: []string{audience},
	}); err != nil {
		t.Fatal(err)
	}
	subject := policy.Subject{Namespace: systemNamespace, ServiceAccount: release + "-sync"}
	trust := policy.TrustDocument(issuer.ProviderARN("aws", central), issuer, audience, []policy.Subject{subject})
	name := "ampbridge-sync-" + p.Cluster.Name
	role, err := client.CreateRole(t.Context(), &iam.CreateRoleInput{RoleName: &name, AssumeRolePolicyDocument: aws.String(trust.String())})
	if err != nil {
		t.Fatal(err)
	}
	permissions := policy.SyncPermissions(p, issuer, central).String()
	if _, err := client.PutRolePolicy(t.Context(), &iam.PutRolePolicyInput{RoleName: &name, PolicyName: aws.String("sync"), PolicyDocument: &permissions}); err != nil {
		t.Fatal(err)
	}
	return *role.Role.Arn
}

func boundaryName(cluster string) string { return "ampbridge-boundary-" + cluster }

// calls counts those that fit and succeeded.
func calls(cloud *awstest.Cloud, fits func(awstest.Call) bool) (n int) {
	for _, call := range cloud.Calls() {
		if call.Code == "" && fits(call) {
			n++
		}
	}
	return n
}

// refused lists what AWS refused, for the report of a failure.
func refused(cloud *awstest.Cloud) (lines []string) {
	for _, call := range cloud.Calls() {
		if call.Code != "" {
			lines = append(lines, fmt.Sprintf("%s:%s by %s: %s: %s", call.Service, call.Action, call.Principal, call.Code, call.Message))
		}
	}
	return lines
}

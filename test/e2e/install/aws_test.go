//go:build linux && e2e

package install

import (
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/node"
	"github.com/ampbridge/ampbridge/test/policytest"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

const (
	region = "eu-west-1"
	// central is the account of the workspace only. The clusters run in other accounts.
	central = "111122223333"
	// newWorkspace is the workspace in a policy before it exists.
	newWorkspace = "arn:aws:aps:" + region + ":" + central + ":workspace/ws-new"
)

// awsHosts are the names with which all programs find AWS. No program gets another endpoint.
var awsHosts = []string{
	"sts." + region + ".amazonaws.com",
	"iam.amazonaws.com",
	"aps." + region + ".amazonaws.com",
	"aps-workspaces." + region + ".amazonaws.com",
}

// startAWS serves AWS's double on the port of AWS's own names.
func startAWS(t *testing.T) *awstest.Cloud {
	t.Helper()
	return awstest.Start(t, awstest.Options{Prometheus: tools.Path(t, "prometheus"), ListenTLS: net.JoinHostPort(node.Address, "443")})
}

// ampbridge runs a command of the product as an administrator of the cluster and of the central account on a
// machine outside the cluster.
func (e *environment) ampbridge(args ...string) string {
	e.Helper()
	command := exec.CommandContext(e.Context(), ampbridgeProgram(node.Dir()), append(args, "--kubeconfig", e.Kubeconfig())...)
	command.Env = append([]string{"HOME=" + e.TempDir(), "AWS_REGION=" + region, "AWS_CA_BUNDLE=" + caFile(), "SSL_CERT_FILE=" + caFile()},
		e.cloud.Account(central).AdminCredentials().Environ()...)
	out, err := command.CombinedOutput()
	if err != nil {
		e.Fatalf("ampbridge %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// bootstrap runs the one-time step of the central account's administrator. For the first cluster it creates
// the workspace.
func (e *environment) bootstrap() {
	e.Helper()
	var values struct{ Policy map[string]any }
	e.must(yaml.Unmarshal([]byte(testkit.ReadFile(e, e.values)), &values))
	values.Policy["apiVersion"], values.Policy["kind"] = policy.APIVersion, policy.Kind // the chart adds both
	text, err := yaml.Marshal(values.Policy)
	e.must(err)
	file := testkit.TempFile(e, "policy.yaml", string(text))
	e.ampbridge("bootstrap", "--policy", file, "--apply", "--yes", "--write-policy", file)
	e.workspace = policytest.Parse(e, testkit.ReadFile(e, file)).Destinations[0].Workspace
}

// syncRole returns the name that bootstrap gives to sync's role.
func (e *environment) syncRole() string { return "ampbridge-sync." + e.name }

// publish serves the issuer under its own name, at an address of its own. AWS and doctor read it there.
func publish(t *testing.T, cloud *awstest.Cloud, host string) {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(node.SecondAddress, "443"))
	testkit.Must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // the listener is closed
			}
			go func() {
				defer func() { _ = client.Close() }()
				server, err := cloud.DialIssuer(context.Background(), "tcp", net.JoinHostPort(host, "443"))
				if err != nil {
					return // the client notices that the connection is closed
				}
				defer func() { _ = server.Close() }()
				go func() { _, _ = io.Copy(server, client) }()
				_, _ = io.Copy(client, server)
			}()
		}
	}()
}

// calls returns how many successful calls match.
func calls(cloud *awstest.Cloud, fits func(awstest.Call) bool) (n int) {
	for _, call := range cloud.Calls() {
		if call.Code == "" && fits(call) {
			n++
		}
	}
	return n
}

// refused lists the calls that AWS refused, for the report of a failure.
func refused(cloud *awstest.Cloud) (lines []string) {
	for _, call := range cloud.Calls() {
		if call.Code != "" {
			lines = append(lines, fmt.Sprintf("%s:%s by %s: %s: %s", call.Service, call.Action, call.Principal, call.Code, call.Message))
		}
	}
	return lines
}

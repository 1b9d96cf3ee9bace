//go:build linux && e2e

package install

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/node"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

const (
	region = "eu-west-1"
	// central is the account of the workspace, and of nothing else: the clusters
	// run in accounts of their own.
	central = "111122223333"
	// newWorkspace is what a policy says before there is one.
	newWorkspace = "arn:aws:aps:" + region + ":" + central + ":workspace/ws-new"
)

// awsHosts are the names by which everything finds AWS: nothing is told another endpoint.
var awsHosts = []string{
	"sts." + region + ".amazonaws.com",
	"iam.amazonaws.com",
	"aps." + region + ".amazonaws.com",
	"aps-workspaces." + region + ".amazonaws.com",
}

// startAWS plays AWS at its own names' port.
func startAWS(t *testing.T) *awstest.Cloud {
	t.Helper()
	return awstest.Start(t, awstest.Options{Prometheus: tools.Path(t, "prometheus"), ListenTLS: net.JoinHostPort(node.Address, "443")})
}

// ampbridge runs a command of the product, as an administrator of the cluster
// and of the central account would on his own machine.
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

// bootstrap is the one-time part of the central account's administrator. The
// first cluster's makes the workspace.
func (e *environment) bootstrap() {
	e.Helper()
	text := e.helm("template", release, chartPackage(version), "--namespace", systemNamespace, "--values", e.values, "--show-only",
		"templates/policy.yaml")
	var configMap corev1.ConfigMap
	e.must(yaml.UnmarshalStrict([]byte(text), &configMap))
	file := filepath.Join(e.TempDir(), "policy.yaml")
	e.must(os.WriteFile(file, []byte(configMap.Data["policy.yaml"]), 0o600))
	e.ampbridge("bootstrap", "--policy", file, "--apply", "--yes", "--write-policy", file)
	written, err := os.ReadFile(file)
	e.must(err)
	p, err := policy.Parse(written)
	e.must(err)
	e.workspace = p.Destinations[0].Workspace
}

// syncRole is what bootstrap calls it.
func (e *environment) syncRole() string { return "ampbridge-sync." + e.name }

// publish serves the issuer under its own name, at an address of its own, to
// whoever looks there: AWS does, and doctor.
func publish(t *testing.T, cloud *awstest.Cloud, host string) {
	t.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(node.SecondAddress, "443"))
	testkit.Must(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // closed
			}
			go func() {
				defer func() { _ = client.Close() }()
				server, err := cloud.DialIssuer(context.Background(), "tcp", net.JoinHostPort(host, "443"))
				if err != nil {
					return // the client sees the end of it
				}
				defer func() { _ = server.Close() }()
				go func() { _, _ = io.Copy(server, client) }()
				_, _ = io.Copy(client, server)
			}()
		}
	}()
}

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

package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"
	"github.com/go-jose/go-jose/v4"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/tools"
)

const (
	sidecarIssuer   = "https://oidc.eks.eu-west-1.amazonaws.com/id/BENCH"
	sidecarAudience = "sts.amazonaws.com"
	sidecarRegion   = "eu-west-1"
	sidecarAccount  = "111122223333"
	// settling is the time from the block to an idle sidecar, and idling is how long it is then
	// observed.
	settling = 3 * time.Second
	idling   = 10 * time.Second
	// idleBudget is 16 MiB, in MB.
	idleBudget = 16 * (1 << 20) / 1e6
)

// measureSidecar measures the idle sidecar's own program with a configuration of 100 KB and then
// with one of 1 MB.
func measureSidecar(ctx context.Context, dir string, r *report) error {
	program, err := buildShipped(ctx, dir, "config-sidecar")
	if err != nil {
		return err
	}
	cloud, err := awstest.New(ctx, awstest.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = cloud.Close() }() // an error only leaves temporary files
	assigned, err := sidecarConfig(ctx, cloud, filepath.Join(dir, "sidecar"))
	if err != nil {
		return err
	}
	r.line("")
	for _, size := range []int{100e3, 1e6} {
		if err := measureIdle(program, assigned, size, r); err != nil {
			return err
		}
	}
	return nil
}

// buildShipped builds one of the programs with the flags of `make build`. With symbols a program
// uses 3 MB more memory.
func buildShipped(ctx context.Context, dir, name string) (program string, err error) {
	program = filepath.Join(dir, name)
	return program, tools.GoBuild(ctx, program, "-ldflags=-s -w", "github.com/ampbridge/ampbridge/cmd/"+name)
}

// measureIdle starts a separate sidecar for each size, so that the peak belongs to that size.
func measureIdle(program string, a sidecarconfig.Config, size int, r *report) error {
	if err := os.WriteFile(filepath.Join(a.Source, a.File), configuration(size), 0o600); err != nil {
		return err
	}
	for _, left := range []string{a.Target, filepath.Dir(a.Credentials)} {
		if err := os.RemoveAll(left); err != nil {
			return err
		}
		if err := os.Mkdir(left, 0o750); err != nil {
			return err
		}
	}
	cmd := exec.Command(program)
	cmd.Env = []string{
		sidecarconfig.Variable + "=" + a.Encode(),
		sidecarconfig.PodNameVariable + "=prometheus-0",
		sidecarconfig.PodNamespaceVariable + "=" + namespace,
	}
	begun := time.Now()
	sidecar, err := startCommand(cmd)
	if err != nil {
		return err
	}
	defer sidecar.stop()
	block := []byte(policy.BlockName(a.Destinations[0].Name))
	if err := sidecar.until("the block is served", func() bool {
		served, err := os.ReadFile(filepath.Join(a.Target, a.File))
		return err == nil && bytes.Contains(served, block)
	}); err != nil {
		return err
	}
	took := time.Since(begun)
	time.Sleep(settling)
	before, err := sidecar.cpu()
	if err != nil {
		return err
	}
	time.Sleep(idling)
	after, err := sidecar.cpu()
	if err != nil {
		return err
	}
	m, err := sidecar.resident()
	if err != nil {
		return err
	}
	r.line(
		"sidecar, configuration of %4.0f KB: served with the block after %.2f s; idle %s, peak %.1f MB, %s ms of processor time in %s  %s",
		float64(
			size,
		)/1e3,
		took.Seconds(),
		m,
		m.peak,
		ms(after-before),
		idling,
		r.judge(m.all <= idleBudget, "≤ 16 MiB (%.1f MB)", idleBudget),
	)
	return nil
}

// sidecarConfig prepares a pod's directories, its token and the role that trusts it.
func sidecarConfig(ctx context.Context, cloud *awstest.Cloud, dir string) (a sidecarconfig.Config, err error) {
	a = sidecarconfig.Config{
		Version: sidecarconfig.VersionSigV4, Cluster: "bench", File: "prometheus.yml", Private: true, SessionSeconds: 3600,
		Source: filepath.Join(dir, "source"), Target: filepath.Join(dir, "target"),
		Credentials: filepath.Join(dir, "credentials", "credentials"), Token: filepath.Join(dir, "token"),
		STS: sidecarconfig.STS{Endpoint: cloud.URL},
	}
	if err := os.MkdirAll(a.Source, 0o750); err != nil {
		return a, err
	}
	signer := awstest.NewSigner(sidecarIssuer, jose.RS256)
	if _, err := cloud.RegisterIssuer(sidecarIssuer, signer, awstest.PublicCA); err != nil {
		return a, err
	}
	subject := policy.Subject{Namespace: namespace, ServiceAccount: account}
	if err := os.WriteFile(a.Token, []byte(signer.Token(subject.String(), sidecarAudience)), 0o600); err != nil {
		return a, err
	}
	client := iam.NewFromConfig(cloud.Config(cloud.Account(sidecarAccount).AdminCredentials(), sidecarRegion))
	provider, err := client.CreateOpenIDConnectProvider(ctx, &iam.CreateOpenIDConnectProviderInput{
		Url: aws.String(sidecarIssuer), ClientIDList: []string{sidecarAudience},
	})
	if err != nil {
		return a, err
	}
	arn, err := policy.ParseARN(aws.ToString(provider.OpenIDConnectProviderArn))
	if err != nil {
		return a, err
	}
	trust := policy.TrustDocument(arn, sidecarIssuer, sidecarAudience, []policy.Subject{subject}).String()
	role, err := client.CreateRole(
		ctx,
		&iam.CreateRoleInput{RoleName: aws.String("writer"), Path: aws.String("/ampbridge/"), AssumeRolePolicyDocument: &trust},
	)
	if err != nil {
		return a, err
	}
	d := policy.Destination{Name: "central"}
	if err := d.Workspace.UnmarshalText([]byte(cloud.Account(sidecarAccount).CreateWorkspace(sidecarRegion, "central").ARN)); err != nil {
		return a, err
	}
	a.Destinations = []sidecarconfig.Destination{
		{Name: d.Name, Role: aws.ToString(role.Role.Arn), Region: sidecarRegion, Block: d.Block(a.Cluster)},
	}
	return a, nil
}

// configuration returns a prometheus.yml of at least size bytes, with jobs as charts write them.
func configuration(size int) []byte {
	var b strings.Builder
	b.WriteString("global:\n  scrape_interval: 30s\nscrape_configs:\n")
	for n := 0; b.Len() < size; n++ {
		fmt.Fprintf(&b, `- job_name: pods-%d
  honor_labels: true
  kubernetes_sd_configs:
  - role: pod
    namespaces:
      names: [team-%[1]d]
  relabel_configs: # what the pod's annotations ask for
  - source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_scrape]
    action: keep
    regex: "true"
  - source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_path]
    action: replace
    target_label: __metrics_path__
    regex: (.+)
  - source_labels: [__meta_kubernetes_pod_annotation_prometheus_io_port, __meta_kubernetes_pod_ip]
    action: replace
    regex: (\d+);((([0-9]+?)(\.|$)){4})
    replacement: $2:$1
    target_label: __address__
  - action: labelmap
    regex: __meta_kubernetes_pod_label_(.+)
  - source_labels: [__meta_kubernetes_namespace]
    action: replace
    target_label: namespace
`, n)
	}
	return []byte(b.String())
}

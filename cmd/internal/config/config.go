// Package config is the command `ampbridge config`: the Prometheus configuration
// that a pod gets, without a cluster.
package config

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v4"

	"github.com/ampbridge/ampbridge/cmd/internal/policyfile"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/promconfig"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// generation marks the configuration as made by hand; the sidecar counts its
// sessions there.
const generation = "offline"

// Output formats.
const (
	Full  = "full"
	Block = "block"
)

// Options are the command's flags.
type Options struct {
	File           string
	Policy         string
	Namespace      string
	ServiceAccount string
	Pod            string
	Version        string
	Output         string
}

func (o *Options) register(flags *pflag.FlagSet) {
	flags.StringVarP(&o.File, "file", "f", "", "the Prometheus configuration `FILE`, gzipped or not; - is standard input")
	flags.StringVar(&o.Policy, "policy", "", "the policy `FILE`")
	flags.StringVarP(&o.Namespace, "namespace", "n", "", "`NAMESPACE` of the pod")
	flags.StringVar(&o.ServiceAccount, "service-account", "", "`NAME` of the pod's service account")
	flags.StringVar(&o.Pod, "pod", "", "`NAME` of the pod, for the replica label of a grant with ha")
	flags.StringVar(&o.Version, "prometheus-version", "", "`VERSION` of the pod's Prometheus, such as 3.1.0; without it, the block has the fields that every supported version knows")
	flags.StringVarP(&o.Output, "output", "o", Full, "output `FORMAT`: full for the whole configuration, block for remote_write alone, which needs no --file")
}

func (o *Options) validate() error {
	if o.File == "" && o.Output != Block {
		return usage.Errorf("no configuration: name its file with -f")
	}
	for _, f := range []struct{ flag, value string }{{"policy", o.Policy}, {"namespace", o.Namespace}, {"service-account", o.ServiceAccount}} {
		if f.value == "" {
			return usage.Errorf("--%s is missing", f.flag)
		}
	}
	if o.Version != "" {
		if _, err := policy.ParseVersion(o.Version); err != nil {
			return usage.Errorf("--prometheus-version: %v", err)
		}
	}
	if o.File == policyfile.Stdin && o.Policy == policyfile.Stdin {
		return usage.Errorf("-f and --policy cannot both be standard input")
	}
	return usage.OneOf("output", o.Output, Full, Block)
}

// New is the command.
func New() *cobra.Command {
	var o Options
	cmd := &cobra.Command{
		Use:   "config -f FILE --policy FILE --namespace NAMESPACE --service-account NAME",
		Short: "Show a Prometheus configuration with the block in it",
		Long: `Config prints the Prometheus configuration that a pod of the service account gets
once its sessions are there: the file, with a remote_write block for every granted
destination. It needs no cluster and no AWS. Blocks that are left out are named on
stderr, and fields that this Prometheus may not know; a service account without a grant ends it with status 1.`,
		Example: `  ampbridge config -f prometheus.yml --policy policy.yaml --namespace monitoring --service-account prometheus-k8s

  # What changes?
  ampbridge config -f prometheus.yml --policy policy.yaml --namespace monitoring --service-account prometheus-k8s | diff prometheus.yml -

  # From the operator's Secret.
  kubectl get secret -n monitoring prometheus-k8s -o jsonpath='{.data.prometheus\.yaml\.gz}' | base64 -d |
    ampbridge config -f - --policy policy.yaml --namespace monitoring --service-account prometheus-k8s`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			return Run(o, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	o.register(cmd.Flags())
	return cmd
}

// Run prints the configuration, or the blocks, on stdout.
func Run(o Options, stdin io.Reader, stdout, stderr io.Writer) error {
	p, err := policyfile.Load(o.Policy, stdin)
	if err != nil {
		return err
	}
	subject := policy.Subject{Namespace: o.Namespace, ServiceAccount: o.ServiceAccount}
	entitlement, granted := p.Entitled(subject)
	if !granted {
		return fmt.Errorf("not granted: no grant of %s covers service account %s of namespace %s", o.Policy, o.ServiceAccount, o.Namespace)
	}
	var version policy.Version
	if o.Version != "" {
		if version, err = policy.ParseVersion(o.Version); err != nil {
			return err
		}
	}
	var blocks []policy.Block
	for _, d := range sidecarconfig.New(p, entitlement).Destinations {
		if d.Replica && o.Pod == "" {
			return usage.Errorf("the grant sets ha, so the block carries the pod's name: give one with --pod")
		}
		block, omitted := d.For(o.Pod).For(version)
		blocks = append(blocks, block)
		for _, field := range omitted {
			if _, err := fmt.Fprintf(stderr, "%s does without %s, which needs Prometheus %s: the sidecar adds it once it knows the version; --prometheus-version shows it\n", d.Name, field.Field, field.Since); err != nil {
				return err
			}
		}
	}
	if o.Output == Block {
		encoder := yaml.NewEncoder(stdout)
		encoder.SetIndent(2)
		if err := encoder.Encode(map[string][]policy.Block{"remote_write": blocks}); err != nil {
			return err
		}
		return encoder.Close()
	}
	text, err := policyfile.Read(o.File, stdin)
	if err != nil {
		return err
	}
	if text, err = plain(text); err != nil {
		return fmt.Errorf("%s: %w", o.File, err)
	}
	result, err := promconfig.Render(text, blocks, generation)
	if err != nil {
		return fmt.Errorf("%s: %w", o.File, err)
	}
	for _, skipped := range result.Skipped {
		if _, err := fmt.Fprintf(stderr, "%s is left out: %s\n", strings.TrimPrefix(skipped.Name, policy.BlockName("")), skipped.Reason); err != nil {
			return err
		}
	}
	_, err = stdout.Write(result.Config)
	return err
}

// plain unpacks what is gzipped, by its first bytes: standard input has no name.
func plain(text []byte) ([]byte, error) {
	if !bytes.HasPrefix(text, []byte{0x1f, 0x8b}) {
		return text, nil
	}
	r, err := gzip.NewReader(bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	unpacked, err := io.ReadAll(r)
	if err != nil {
		return nil, err
	}
	return unpacked, r.Close()
}

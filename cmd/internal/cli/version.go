package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/kube"
	"github.com/ampbridge/ampbridge/cmd/internal/output"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/cmd/internal/versions"
)

// The linker (-X) sets both: release in release builds only, revision in builds that
// do not see git's files, so that an image and a local build are the same bytes.
var release, revision string

// publishedImage returns the published image of this version, for commands that work
// without a cluster. In a cluster the flag --image of the webhook names it.
func publishedImage() string {
	const repository = "ghcr.io/ampbridge/ampbridge:"
	return repository + cmp.Or(release, "latest")
}

// clientVersion returns the version of this program, with the commit if the toolchain
// noted it.
func clientVersion() versions.Client {
	c := versions.Client{
		Version: release, Commit: revision, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH,
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return c
	}
	c.Version = cmp.Or(c.Version, info.Main.Version)
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			c.Commit = s.Value
		case "vcs.modified":
			c.Modified = s.Value == "true"
		}
	}
	return c
}

func printVersionLine(stdout io.Writer) error {
	_, err := fmt.Fprintln(stdout, program, clientVersion())
	return err
}

// versionTimeout bounds the wait for the cluster: most people want the program's version.
const versionTimeout = 10 * time.Second

// versionOptions are the flags of `ampbridge version`.
type versionOptions struct {
	kubeconfig, namespace, output string
	overrides                     kube.Overrides
	client                        bool
}

func (o *versionOptions) register(flags *pflag.FlagSet) {
	flags.BoolVar(&o.client, "client", false, "print the version of this program only, and do not connect to the cluster")
	registerOutput(flags, &o.output)
	registerSystemNamespace(flags, &o.namespace, systemNamespace)
	registerKube(flags, &o.kubeconfig, &o.overrides)
}

func (o *versionOptions) validate() error {
	if o.namespace == "" {
		return usage.Errorf("--system-namespace is empty")
	}
	return nil
}

// run prints the versions. A cluster that cannot be reached is not an error: the program has
// a version without it.
func (o *versionOptions) run(ctx context.Context, stdout io.Writer) error {
	r := versions.Report{Client: clientVersion(), Unavailable: []string{}, Warnings: []string{}}
	if !o.client {
		if err := o.read(ctx, &r); err != nil {
			r.Unavailable = append(r.Unavailable, fmt.Sprintf("the cluster: %v", err))
		}
	}
	if o.output == output.Text {
		return r.Write(stdout)
	}
	return output.Write(stdout, o.output, r)
}

func (o *versionOptions) read(ctx context.Context, r *versions.Report) error {
	cluster, err := kube.ConnectWithin(versionTimeout, o.kubeconfig, o.overrides)
	if err != nil {
		return err
	}
	return r.Read(ctx, cluster, o.namespace)
}

// newVersion returns `ampbridge version`.
func newVersion() *cobra.Command {
	var o versionOptions
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of this program and of what the cluster runs",
		Long: `Version prints the version of this program. If it can reach a cluster, it also prints
the versions of Kubernetes, chart, webhook and sync, the image of the sidecar that the
webhook injects, and the images of the sidecars that run. It warns of versions that
do not go together. What it cannot read, it prints as unavailable, with status 0.`,
		Example: `  ampbridge version
  ampbridge version --client
  ampbridge version -o json | jq -r .cluster.webhook`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.validate(); err != nil {
				return err
			}
			return o.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	o.register(cmd.Flags())
	return cmd
}

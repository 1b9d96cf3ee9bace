package bootstrap

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ampbridge/ampbridge/cmd/internal/grantlist"
	"github.com/ampbridge/ampbridge/cmd/internal/policyfile"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
)

type policyOptions struct {
	from, workspace, destination string
	cluster, dir                 string
}

func newPolicy() *cobra.Command {
	var o policyOptions
	cmd := &cobra.Command{
		Use:   "policy --from FILE --workspace ARN",
		Short: "Turn the iam_access_grant_list of a Terraform module into policies",
		Long: `Policy is for people who come from a Terraform module in the manner of
kubernetes-ops: it reads its iam_access_grant_list, as JSON, as tfvars or from the
module block, and writes a policy for each cluster in it. The workspace is the
one that the module made. Every entry that cannot be carried over is named, and
then the command ends with status 1.`,
		Example: `  # One cluster.
  ampbridge bootstrap policy --from terraform.tfvars --workspace arn:aws:aps:eu-west-1:111122223333:workspace/ws-0123abcd > policy.yaml

  # Several: a file for each.
  ampbridge bootstrap policy --from terraform.tfvars --workspace arn:aws:aps:eu-west-1:111122223333:workspace/ws-0123abcd --dir policies`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.run(cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&o.from, "from", "", "the `FILE` with the iam_access_grant_list; - is standard input")
	flags.StringVar(&o.workspace, "workspace", "", "the `ARN` of the workspace: the module's output arn")
	flags.StringVar(&o.destination, "destination", "central", "the `NAME` of the workspace in the policies")
	flags.StringVar(&o.cluster, "cluster", "", "print the policy of this cluster, by its `NAME`, where there are several")
	flags.StringVar(&o.dir, "dir", "", "write NAME.yaml for each cluster into this `FOLDER`")
	return cmd
}

func (o *policyOptions) run(stdin io.Reader, stdout, stderr io.Writer) error {
	var workspace policy.Workspace
	switch err := workspace.UnmarshalText([]byte(o.workspace)); {
	case o.from == "":
		return usage.Errorf("no list: name its file with --from")
	case o.cluster != "" && o.dir != "":
		return usage.Errorf("--cluster and --dir exclude each other")
	case o.workspace == "":
		return usage.Errorf("no workspace: name it with --workspace; it is the module's output arn")
	case err != nil:
		return usage.Errorf("--workspace: %v", err)
	}
	data, err := policyfile.Read(o.from, stdin)
	if err != nil {
		return err
	}
	list, err := grantlist.Parse(data, o.from)
	if err != nil {
		return fmt.Errorf("%s: %w", o.from, err)
	}
	clusters, findings := grantlist.Convert(list, grantlist.Options{Workspace: workspace, Destination: o.destination})
	lost := 0
	for _, f := range findings {
		if f.Lost {
			lost++
		}
		_, _ = fmt.Fprintln(stderr, f)
	}
	if err := o.write(clusters, stdout); err != nil {
		return err
	}
	if lost > 0 {
		return fmt.Errorf("%d of %d entries were not carried over", lost, len(list))
	}
	return nil
}

func (o *policyOptions) write(clusters []grantlist.Cluster, stdout io.Writer) error {
	var names []string
	for _, c := range clusters {
		names = append(names, c.Name)
	}
	switch {
	case len(clusters) == 0:
		return nil // the findings say why
	case o.dir != "":
		var errs []error
		for _, c := range clusters {
			path := filepath.Join(o.dir, c.Name+".yaml")
			err := create(path, c.Policy)
			if err == nil {
				_, err = fmt.Fprintf(stdout, "wrote %s\n", path)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	case o.cluster == "" && len(clusters) > 1:
		return usage.Errorf("the list has the clusters %s, and a policy is for one: name it with --cluster, or a folder for all with --dir", strings.Join(names, ", "))
	}
	for _, c := range clusters {
		if o.cluster == "" || c.Name == o.cluster {
			_, err := stdout.Write(c.Policy)
			return err
		}
	}
	return usage.Errorf("--cluster %s: the list has %s", o.cluster, strings.Join(names, ", "))
}

// create writes a file that is not there: a policy may have been worked on since.
func create(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

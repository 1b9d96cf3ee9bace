package bootstrap

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/ampbridge/ampbridge/cmd/internal/grantlist"
	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/policyfile"
)

// PolicyOptions say which grant list [WritePolicies] converts, and to what.
type PolicyOptions struct {
	// From is the file with the list.
	From string
	// Destination is the name of the workspace in the policies.
	Workspace   policy.Workspace
	Destination string
	// Cluster selects one of several clusters; Dir takes a file for each.
	Cluster, Dir string
}

// WritePolicies converts the grant list, and reports on stderr what it cannot convert.
func WritePolicies(o PolicyOptions, stdin io.Reader, stdout, stderr io.Writer) error {
	data, err := policyfile.Read(o.From, stdin)
	if err != nil {
		return err
	}
	list, err := grantlist.Parse(data, o.From)
	if err != nil {
		return fmt.Errorf("%s: %w", o.From, err)
	}
	clusters, findings := grantlist.Convert(list, grantlist.Options{Workspace: o.Workspace, Destination: o.Destination})
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
		return fmt.Errorf("%d of %d entries were not converted", lost, len(list))
	}
	return nil
}

func (o *PolicyOptions) write(clusters []grantlist.Cluster, stdout io.Writer) error {
	var names []string
	for _, c := range clusters {
		names = append(names, c.Name)
	}
	switch {
	case len(clusters) == 0:
		return nil // the findings say why
	case o.Dir != "":
		var errs []error
		for _, c := range clusters {
			path := filepath.Join(o.Dir, c.Name+".yaml")
			err := createFile(path, c.Policy)
			if err == nil {
				_, err = fmt.Fprintf(stdout, "wrote %s\n", path)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	case o.Cluster == "" && len(clusters) > 1:
		return usage.Errorf(
			"the list has the clusters %s, and a policy is for one: name it with --cluster, or a folder for all with --dir",
			strings.Join(names, ", "),
		)
	}
	for _, c := range clusters {
		if o.Cluster == "" || c.Name == o.Cluster {
			_, err := stdout.Write(c.Policy)
			return err
		}
	}
	return usage.Errorf("--cluster %s: the list has %s", o.Cluster, strings.Join(names, ", "))
}

// createFile writes a new file. It never replaces one, because a policy may have been
// edited since.
func createFile(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

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

// PolicyOptions configures [WritePolicies].
type PolicyOptions struct {
	// From is the file with the list.
	From string
	// Destination is the name of the workspace in the policies.
	Workspace   policy.Workspace
	Destination string
	// Cluster selects one of several clusters. Dir gets one file per cluster.
	Cluster, Dir string
	// Strict makes it an error if something is left out of the policies.
	Strict bool
}

// WritePolicies converts the grant list, and reports on stderr what it cannot convert.
func WritePolicies(o PolicyOptions, stdin io.Reader, stdout, stderr io.Writer) error {
	data, err := policyfile.Read(o.From, stdin)
	if err != nil {
		return err
	}
	m, clusters, problem, err := o.convert(data, stderr)
	switch {
	case err != nil:
		return err
	case m.Role == "" && o.Cluster != "" && o.Dir != "":
		return usage.Errorf("--cluster-name and --dir exclude each other, except for a role")
	}
	return errors.Join(o.write(clusters, stdout), problem)
}

// convert reads the module and converts its list. problem reports entries that are in
// no policy, and with Strict also other things that are left out.
func (o *PolicyOptions) convert(data []byte, stderr io.Writer) (m grantlist.Module, clusters []grantlist.Cluster, problem, err error) {
	if m, err = grantlist.ParseModule(data, o.From); err != nil {
		return m, nil, nil, fmt.Errorf("%s: %w", o.From, err)
	}
	if len(m.Entries) == 0 {
		_, err := grantlist.Parse(data, o.From)
		return m, nil, nil, fmt.Errorf("%s: %w", o.From, err)
	}
	source := ""
	if m.Role != "" {
		if o.Cluster == "" {
			return m, nil, nil, usage.Errorf("%s describes a role and has no cluster name: name the cluster with "+
				"--cluster-name", o.From)
		}
		source = "the role " + m.Role
		for i := range m.Entries {
			m.Entries[i].Environment = o.Cluster
		}
	}
	if o.Workspace.IsZero() && m.Workspace != "" {
		if err := o.Workspace.UnmarshalText([]byte(m.Workspace)); err != nil {
			return m, nil, nil, fmt.Errorf("%s: arn: %w", o.From, err)
		}
	}
	if o.Workspace.IsZero() {
		return m, nil, nil, usage.Errorf("no workspace: name it with --workspace; it is the module's output arn")
	}
	if m.AccountID != "" && m.AccountID != o.Workspace.Account {
		return m, nil, nil, fmt.Errorf("%s: account_id is %s, and the workspace is in account %s: name the module's "+
			"own workspace",
			o.From, m.AccountID, o.Workspace.Account)
	}
	clusters, findings := grantlist.Convert(m.Entries, grantlist.Options{
		Workspace: o.Workspace, Destination: o.Destination, Tags: m.Tags, Source: source,
	})
	if m.Role != "" && len(clusters) == 1 && clusters[0].Name != o.Cluster {
		return m, nil, nil, usage.Errorf("--cluster-name %q: write a DNS label, such as %s", o.Cluster, clusters[0].Name)
	}
	lost := 0
	for _, f := range findings {
		if f.Lost {
			lost++
		}
		_, _ = fmt.Fprintln(stderr, f)
	}
	if m.Instance != "" {
		_, _ = fmt.Fprintf(
			stderr,
			"instance_name: note: %q names the module's roles; ampbridge's are named by cluster and destination\n",
			m.Instance,
		)
	}
	for _, name := range m.Unknown {
		_, _ = fmt.Fprintf(stderr, "%s: warning: is left out: its value is not known, or ampbridge has no use for it\n", name)
	}
	switch dropped := len(findings) + len(m.Unknown); {
	case lost > 0:
		problem = fmt.Errorf("%d of %d entries were not converted", lost, len(m.Entries))
	case o.Strict && dropped > 0:
		problem = fmt.Errorf("--strict: %d things are left out or expressed differently", dropped)
	}
	return m, clusters, problem, nil
}

// WriteRunbook prints the steps for a migration from the module to ampbridge.
func WriteRunbook(o PolicyOptions, module string, stdin io.Reader, stdout, stderr io.Writer) error {
	data, err := policyfile.Read(o.From, stdin)
	if err != nil {
		return err
	}
	m, clusters, problem, err := o.convert(data, stderr)
	if err != nil {
		return err
	}
	if problem != nil {
		return problem // after a runbook for only a part of the list, the rest would have no trust
	}
	switch {
	case m.Role == "" && o.Cluster != "":
		return usage.Errorf("--cluster-name is for the file of a role: the list of a module names its clusters")
	case m.Role != "" && module != "":
		return usage.Errorf("--module is for the file of a module")
	case module != "":
		m.Address = module
	}
	_, err = io.WriteString(stdout, grantlist.Runbook(m, clusters, grantlist.RunbookOptions{
		From: o.From, Workspace: o.Workspace, Destination: o.Destination, Dir: o.Dir, Cluster: o.Cluster,
	}))
	return err
}

func (o *PolicyOptions) write(clusters []grantlist.Cluster, stdout io.Writer) error {
	var names []string
	for _, c := range clusters {
		names = append(names, c.Name)
	}
	switch {
	case len(clusters) == 0:
		return nil // the findings give the reason
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
			"the list has the clusters %s, and a policy is for one: name one with --cluster-name, or a folder for all with --dir",
			strings.Join(names, ", "),
		)
	}
	for _, c := range clusters {
		if o.Cluster == "" || c.Name == o.Cluster {
			_, err := stdout.Write(c.Policy)
			return err
		}
	}
	return usage.Errorf("--cluster-name %s: the list has %s", o.Cluster, strings.Join(names, ", "))
}

// createFile writes a new file. It never replaces one, because the user may have edited
// the policy.
func createFile(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

package preview

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/pmezard/go-difflib/difflib"
	"gomodules.xyz/jsonpatch/v2"
	"sigs.k8s.io/yaml"

	"github.com/ampbridge/ampbridge/cmd/internal/doctor/report"
	"github.com/ampbridge/ampbridge/cmd/internal/output"
	"github.com/ampbridge/ampbridge/docs/examples"
	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/check"
	"github.com/ampbridge/ampbridge/policy/plan"
	"github.com/ampbridge/ampbridge/policy/promconfig"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// tryIssuer is the issuer of the example's cluster. It ends in a slash like the issuers of AKS.
const tryIssuer policy.Issuer = "https://westeurope.oic.prod-aks.azure.com/11111111-2222-3333-4444-555555555555/" +
	"66666666-7777-8888-9999-000000000000/"

// trySubject is the service account of the example's pod.
var trySubject = policy.Subject{Namespace: "monitoring", ServiceAccount: "prometheus"}

// Example is what [Try] shows, for other programs.
type Example struct {
	Policy string `json:"policy"`
	// Pod is the pod before and after its injection.
	Pod Change[json.RawMessage] `json:"pod"`
	// Configuration is Prometheus's, before and after.
	Configuration Change[string] `json:"configuration"`
	// Plan has the roles that sync creates.
	Plan plan.Plan `json:"plan"`
	// Report is what doctor reports of a mistake.
	Report json.RawMessage `json:"report"`
}

// Change is something before and after ampbridge changed it.
type Change[T any] struct {
	Before T `json:"before"`
	After  T `json:"after"`
}

// Try shows what ampbridge does with the examples of the documentation. It calls the functions of
// webhook, sidecar, sync and doctor. Only the input is invented.
func Try(image, format string, stdout io.Writer) error {
	p, err := policy.Parse(examples.Policy)
	if err != nil {
		return err
	}
	if format != output.Text {
		return tryForPrograms(p, image, format, stdout)
	}
	var b bytes.Buffer
	heading := func(format string, args ...any) { fmt.Fprintf(&b, "\n=== "+format+"\n\n", args...) }
	fmt.Fprintln(&b, "This is an example: no cluster and no AWS account are read or changed.\n"+
		"Lines with + are what ampbridge adds, lines with - what it replaces.")

	heading("1. The cluster admin writes a policy: which service accounts write where")
	b.Write(examples.Policy)
	for _, section := range []struct {
		heading string
		print   func(io.Writer, *policy.Policy) error
	}{
		{"2. The webhook gives each new Prometheus pod a sidecar and a token",
			func(w io.Writer, p *policy.Policy) error { return tryPod(w, p, image) }},
		{"3. The sidecar adds remote_write to the configuration that Prometheus reads", tryConfig},
		{"4. Sync creates the roles, which trust exactly this service account", tryRoles},
		{"5. Doctor finds what is wrong: here, the issuer lacks its slash at the end",
			func(w io.Writer, p *policy.Policy) error { return report.Printer{}.Text(w, tryReport(p)) }},
	} {
		heading("%s", section.heading)
		if err := section.print(&b, p); err != nil {
			return err
		}
	}
	heading("Next")
	b.WriteString("docs/start/quickstart.md: your own cluster. ampbridge inject, config and plan show all of this for " +
		"your own pods and policy.\n")
	_, err = stdout.Write(b.Bytes())
	return err
}

// tryForPrograms writes the same as JSON or YAML.
func tryForPrograms(p *policy.Policy, image, format string, stdout io.Writer) error {
	before, after, err := injectExample(p, image)
	if err != nil {
		return err
	}
	rendered, err := renderExample(p)
	if err != nil {
		return err
	}
	var checked bytes.Buffer
	if err := report.JSON(&checked, tryReport(p)); err != nil {
		return err
	}
	return output.Write(stdout, format, Example{
		Policy: string(examples.Policy),
		Pod:    Change[json.RawMessage]{before.json, after.json},
		Configuration: Change[string]{
			string(examples.Configuration), string(rendered),
		},
		Plan: tryPlan(p), Report: checked.Bytes(),
	})
}

// injectExample returns the pod before and after its injection.
func injectExample(p *policy.Policy, image string) (before, after document, err error) {
	documents, err := parseDocuments(examples.Pod)
	if err != nil {
		return before, after, err
	}
	before, after = documents[0], documents[0]
	r := injection{InjectOptions: InjectOptions{NamespaceLabel: string(policy.InjectionEnabled), Image: image}, policy: p}
	err = after.each(func(text []byte, header object) ([]jsonpatch.Operation, error) {
		operations, _, err := r.pod(&target{kind: header.Kind, text: text})
		return operations, err
	})
	return before, after, err
}

// tryPod prints the pod before and after its injection.
func tryPod(w io.Writer, p *policy.Policy, image string) error {
	before, after, err := injectExample(p, image)
	if err != nil {
		return err
	}
	was, err := yaml.JSONToYAML(before.json)
	if err != nil {
		return err
	}
	is, err := after.text(YAML)
	if err != nil {
		return err
	}
	return printDiff(w, was, is)
}

// renderExample returns the configuration that Prometheus reads, with the relay's blocks and
// port 0 in place of a running pod's port.
func renderExample(p *policy.Policy) ([]byte, error) {
	entitlement, _ := p.Entitled(trySubject)
	var blocks []policy.Block
	for _, d := range sidecarconfig.New(p, entitlement).Destinations {
		block, _ := d.For("").For(policy.Version{})
		blocks = append(blocks, block)
	}
	rendered, err := promconfig.Render(examples.Configuration, blocks, generation)
	return rendered.Config, err
}

// tryConfig prints the configuration before and after.
func tryConfig(w io.Writer, p *policy.Policy) error {
	rendered, err := renderExample(p)
	if err != nil {
		return err
	}
	return printDiff(w, examples.Configuration, rendered)
}

// tryRoles prints the plan for accounts without any resources.
func tryRoles(w io.Writer, p *policy.Policy) error {
	_, err := io.WriteString(w, tryPlan(p).String())
	return err
}

func tryPlan(p *policy.Policy) plan.Plan {
	return plan.Compute(plan.Input{
		Policy: p, Issuer: tryIssuer, Accounts: map[string]plan.Account{},
		ServiceAccounts: []plan.ServiceAccount{{
			Namespace: trySubject.Namespace, Injection: policy.InjectionEnabled, Name: trySubject.ServiceAccount,
		}},
	})
}

// tryReport returns doctor's report of a trust document with an issuer that lost its slash.
func tryReport(p *policy.Policy) check.Report {
	d := p.Destinations[0]
	role := p.Role(d)
	provider := tryIssuer.ProviderARN(role.Partition, role.Account)
	subjects := []policy.Subject{trySubject}
	right := policy.TrustDocument(provider, tryIssuer, p.Token.Audience, subjects).String()
	wrong := policy.TrustDocument(provider, policy.Issuer(strings.TrimSuffix(string(tryIssuer), "/")), p.Token.Audience, subjects).String()
	finding := check.Trust(wrong, check.WantedTrust{
		Provider: provider, Issuer: tryIssuer, Audience: p.Token.Audience, Subject: trySubject,
	}, check.NewFix("replace the trust document", check.Command{
		"aws", "iam", "update-assume-role-policy", "--role-name", role.RoleName(), "--policy-document", right,
	}))
	finding.About = check.About{Subject: trySubject.String(), Destination: d.Name, Account: role.Account}
	checks := check.Runner{Cluster: p.Cluster.Name}
	checks.Add(
		check.Passed(check.OIDCProvider, check.About{Account: role.Account}, "%s, audience %s", provider, p.Token.Audience),
		check.Passed(check.RoleExists, check.About{Destination: d.Name, Account: role.Account}, "%s", role),
		finding,
	)
	return checks.Report()
}

// printDiff prints all lines of after, with + before the new ones. It also prints the removed
// lines of before, with -.
func printDiff(w io.Writer, before, after []byte) error {
	a, b := difflib.SplitLines(string(before)), difflib.SplitLines(string(after))
	for _, part := range difflib.NewMatcher(a, b).GetOpCodes() {
		sign := "+ "
		if part.Tag == 'e' {
			sign = "  "
		} else if err := printLines(w, "- ", a[part.I1:part.I2]); err != nil {
			return err
		}
		if err := printLines(w, sign, b[part.J1:part.J2]); err != nil {
			return err
		}
	}
	return nil
}

func printLines(w io.Writer, sign string, lines []string) error {
	for _, line := range lines {
		if line = strings.TrimSuffix(line, "\n"); line == "" {
			continue
		}
		if _, err := fmt.Fprintln(w, sign+line); err != nil {
			return err
		}
	}
	return nil
}

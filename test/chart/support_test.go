package chart

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

const (
	chartDir  = "../../charts/ampbridge"
	release   = "ampbridge"
	namespace = "ampbridge-system"
)

// The chart's values for tests: the least, and everything.
var (
	minimal    = filepath.Join(chartDir, "ci", "minimal-values.yaml")
	everything = filepath.Join(chartDir, "ci", "everything-values.yaml")
)

// The versions of Helm that the chart is for. Helm 3 renders in the tests; Helm 4
// installs and upgrades, by server-side apply.
const (
	helm3 = "helm"
	helm4 = "helm4"
)

// helm runs the real Helm 3.
func helm(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	return runHelm(t, helm3, args...)
}

// runHelm runs the real program. Its files lie apart from the user's.
func runHelm(t *testing.T, program string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	home := t.TempDir()
	env := append(os.Environ(), "HELM_CACHE_HOME="+home, "HELM_CONFIG_HOME="+home, "HELM_DATA_HOME="+home)
	return execute(t, env, tools.Path(t, program), args...)
}

// execute runs a program that may fail.
func execute(t *testing.T, env []string, program string, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, args...)
	cmd.Env = env
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), err
}

func mustHelm(t *testing.T, args ...string) string {
	t.Helper()
	return mustRunHelm(t, helm3, args...)
}

func mustRunHelm(t *testing.T, program string, args ...string) string {
	t.Helper()
	out, errs, err := runHelm(t, program, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", program, strings.Join(args, " "), err, out, errs)
	}
	return out
}

// forms are the chart's forms that differ in more than a value.
var forms = map[string][]string{
	"minimal":    {"-f", minimal},
	"everything": {"-f", everything},
	// Every mapping and list of the user's has what the chart sets itself.
	"the chart's own keys": {"-f", everything, "-f", filepath.Join("testdata", "own-keys-values.yaml")},
	"a CronJob":            {"-f", everything, "--set", "sync.mode=cronJob"},
	"cert-manager":         {"-f", everything, "--set", "certificates.mode=certManager"},
	"cert-manager's CA": {"-f", minimal, "--set", "certificates.mode=certManager", "--set", "certificates.certManager.issuerRef.name=ca",
		"--set", "certificates.certManager.issuerRef.kind=ClusterIssuer"},
	"the user's own cert": {"-f", minimal, "--set", "certificates.mode=provided", "--set", "certificates.provided.secretName=own",
		"--set", "certificates.provided.caBundle=-----BEGIN CERTIFICATE-----"},
	"no sync": {"-f", minimal, "--set", "sync.enabled=false", "--set", "policy.trust.manage=none"},
	"the host network": {
		"-f",
		everything,
		"--set",
		"webhook.hostNetwork=true",
		"--set",
		"webhook.metricsPort=0",
		"--set",
		"webhook.healthPort=0",
	},
	"other names": {"-f", everything, "--set", "nameOverride=collector,namespaceOverride=other-system,webhook.serviceAccount.name=hook," +
		"sync.serviceAccount.name=keeper"},
	"the user's own accounts and rights": {"-f", everything, "--set", "rbac.create=false,webhook.serviceAccount.create=false," +
		"webhook.serviceAccount.name=hook,sync.serviceAccount.create=false,sync.serviceAccount.name=keeper"},
	"the user's own policy": {"-f", everything, "--set-json", "policy={}", "--set", "policyConfigMap.existing=own," +
		"policyConfigMap.auditRepair=evict"},
	"GKE": {"-f", minimal, "--set", "webhook.port=10250"},
}

// valuesFile writes values of the chart to a file.
func valuesFile(t *testing.T, text string) string {
	t.Helper()
	return testkit.TempFile(t, "values.yaml", text)
}

// chartFile returns the text of a file of the chart.
func chartFile(t *testing.T, name ...string) string {
	t.Helper()
	return testkit.ReadFile(t, filepath.Join(append([]string{chartDir}, name...)...))
}

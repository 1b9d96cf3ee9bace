package preview_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/cmd/internal/cli"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// failure is a command that ended with another status than 0.
type failure struct {
	status int
	stderr string
}

func (f *failure) Error() string { return f.stderr }

// usage reports whether the status says that the command line was wrong.
func (f *failure) usage() bool { return f != nil && f.status == cli.Usage }

// config runs `ampbridge config` with the test policy.
func config(t *testing.T, stdin string, args ...string) (stdout, stderr string, err *failure) {
	t.Helper()
	return command(t, stdin, append([]string{"config", "--policy", "testdata/config/policy.yaml"}, args...)...)
}

// injection runs `ampbridge inject` with the test policy.
func injection(t *testing.T, stdin string, args ...string) (stdout, stderr string, err *failure) {
	t.Helper()
	return command(t, stdin, append([]string{"inject", "--policy", "testdata/inject/policy.yaml"}, args...)...)
}

func command(t *testing.T, stdin string, args ...string) (stdout, stderr string, err *failure) {
	t.Helper()
	var out, errs bytes.Buffer
	if status := cli.Main(t.Context(), args, strings.NewReader(stdin), &out, &errs); status != cli.OK {
		err = &failure{status, errs.String()}
	}
	return out.String(), errs.String(), err
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	testkit.Golden(t, "testdata/"+name, got)
}

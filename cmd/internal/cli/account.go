package cli

import (
	"strings"

	"github.com/spf13/pflag"

	"github.com/ampbridge/ampbridge/cmd/internal/usage"
	"github.com/ampbridge/ampbridge/policy"
)

// accountName is the value of a flag that takes the name of a service account. People also paste
// the forms that ampbridge and Kubernetes print, which have the namespace too.
type accountName string

func registerServiceAccount(flags *pflag.FlagSet, name *string, text string) {
	flags.Var((*accountName)(name), "service-account", text)
}

// String implements [pflag.Value].
func (a *accountName) String() string { return string(*a) }

// Type implements [pflag.Value].
func (a *accountName) Type() string { return "string" }

// Set implements [pflag.Value].
func (a *accountName) Set(value string) error {
	subject, err := policy.ParseSubject(value)
	if namespace, name, pair := strings.Cut(value, "/"); pair {
		subject, err = policy.Subject{Namespace: namespace, ServiceAccount: name}, nil
	}
	switch {
	case err == nil:
		return usage.Errorf("--service-account %q has the namespace in it: write -n %s --service-account %s",
			value, subject.Namespace, subject.ServiceAccount)
	case strings.ContainsAny(value, ":*"):
		return usage.Errorf("--service-account %q is not a name: write the name alone, such as prometheus", value)
	}
	*a = accountName(value)
	return nil
}

package cli

import (
	"strings"
	"testing"
)

func TestPublishFlags(t *testing.T) {
	for args, want := range map[string]string{
		"":                              "--to is missing: write for example --to s3://",
		"--to x --discovery y":          "--discovery needs --keys",
		"--to x --keys y":               "--keys needs --discovery or --issuer",
		"--to x --ahead":                "--ahead needs --issuer",
		"--to x --retain 10m":           "--retain 10m0s is shorter than tokens are valid",
		"--to x --keys y --issuer ftp:": "",
	} {
		status, _, stderr := run(t, "", append([]string{"issuer", "publish"}, strings.Fields(args)...)...)
		if status == OK || !strings.Contains(stderr, want) || (want != "" && status != Usage) {
			t.Errorf("%q: status %d, %q, want %q", args, status, stderr, want)
		}
	}
}

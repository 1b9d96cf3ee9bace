//go:build linux && e2e

// Package release makes and verifies releases for tests, as docs/design/release.md tells people to.
package release

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
)

// documented matches the commands of docs/design/release.md by which people verify a release.
var documented = regexp.MustCompile("(?s)<!-- e2e: verify -->\n```sh\n(.*?)\n```\n")

// NewKey makes a publisher's key at that path. It returns the line that trusts it.
func NewKey(ctx context.Context, path string) (allowedSigner string, err error) {
	if out, err := exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f",
		path).CombinedOutput(); err != nil {
		return "", fmt.Errorf("ssh-keygen: %w\n%s", err, out)
	}
	public, err := os.ReadFile(path + ".pub")
	return `ampbridge-release namespaces="ampbridge-release" ` + string(public), err
}

// Make runs `make release` in the work tree root, with these variables of make.
func Make(ctx context.Context, root string, variables ...string) error {
	command := exec.CommandContext(ctx, "make", append([]string{"-C", root, "--no-print-directory", "release"}, variables...)...)
	if out, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("make release: %w\n%s", err, out)
	}
	return nil
}

// Verify runs the documented commands in dist, for somebody who trusts that signer.
func Verify(ctx context.Context, root, dist, allowedSigner string) error {
	page, err := os.ReadFile(filepath.Join(root, "docs", "design", "release.md"))
	if err != nil {
		return err
	}
	commands := documented.FindSubmatch(page)
	if commands == nil {
		return errors.New("docs/design/release.md has no block of commands that verifies a release")
	}
	if err := os.WriteFile(filepath.Join(dist, "allowed_signers"), []byte(allowedSigner), 0o600); err != nil {
		return err
	}
	verify := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", string(commands[1]))
	verify.Dir = dist
	if out, err := verify.CombinedOutput(); err != nil {
		return fmt.Errorf("verify %s: %w\n%s", dist, err, out)
	}
	return nil
}

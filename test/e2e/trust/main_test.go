// Package trust_test holds sync to its promises, with the built program, a real
// API server and AWS's double, which evaluates the policies of whoever calls:
//
//   - It needs the permissions that [policy.SyncPermissions] lists, all of them
//     and no others; and who steals its credentials gets nowhere with them.
//   - Trust is never wider than the policy, judged by an evaluator that shares no
//     code with what writes the documents.
//   - Trust is never lost where many clusters sync into one account at once, and
//     nothing of anybody else's is touched where their names collide.
//   - Killed after any of its calls, sync ends up where it would have been.
package trust_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/ampbridge/ampbridge/test/cluster"
)

// What all tests share: the program, and an API server. Tests keep apart by their
// namespaces' names.
var (
	ampbridge string
	kube      *cluster.Cluster
)

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "ampbridge-trust-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	ampbridge = filepath.Join(dir, "ampbridge")
	build := exec.CommandContext(ctx, "go", "build", "-o", ampbridge, "github.com/ampbridge/ampbridge/cmd/ampbridge")
	if out, err := build.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("build ampbridge: %w\n%s", err, out)
	}
	if kube, err = cluster.New(ctx, cluster.Options{}); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, kube.Close()) }()
	return m.Run(), nil
}

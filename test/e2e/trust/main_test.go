// Package trust_test checks sync's guarantees with the built program, a real API server and AWS's double,
// which evaluates the policies of each caller:
//
//   - Sync needs exactly the permissions in [policy.SyncPermissions]. An attacker with its
//     credentials cannot gain more.
//   - Trust is never wider than the policy. An evaluator that shares no code with the code that
//     writes the documents checks that.
//   - Trust is never lost if many clusters sync into one account at the same time, and sync
//     changes nothing of other owners if names collide.
//   - If sync is killed after any of its calls, the next run reaches the same state.
package trust_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/tools"
)

// All tests share the program and an API server. Each test has its own namespace names.
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
	if err := tools.GoBuild(ctx, ampbridge, "github.com/ampbridge/ampbridge/cmd/ampbridge"); err != nil {
		return 0, err
	}
	if kube, err = cluster.New(ctx, cluster.Options{}); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, kube.Close()) }()
	return m.Run(), nil
}

package relay_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/sidecar/relay"
)

func TestPortAndPasswordOutliveTheContainer(t *testing.T) {
	dir := t.TempDir()
	first, err := relay.Listen(dir)
	testkit.Must(t, err)
	secret, err := relay.Password(dir, 0o440)
	testkit.Must(t, err)
	if len(secret) != 64 {
		t.Errorf("a password of %d characters", len(secret))
	}
	address := first.Addr().String()
	if !strings.HasPrefix(address, "127.0.0.1:") {
		t.Errorf("listens on %s", address)
	}
	if info, err := os.Stat(relay.PasswordFile(dir)); err != nil || info.Mode().Perm() != 0o440 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	if l, err := relay.Listen(dir); err == nil {
		t.Errorf("a second relay listens on %s while the first one runs", l.Addr())
	}
	testkit.Must(t, first.Close())

	second, err := relay.Listen(dir)
	testkit.Must(t, err)
	defer func() { _ = second.Close() }()
	if again := second.Addr().String(); again != address {
		t.Errorf("listens on %s after a restart, on %s before", again, address)
	}
	if again, err := relay.Password(dir, 0o440); err != nil || again != secret {
		t.Errorf("another password after a restart: %v", err)
	}
	left, err := os.ReadDir(dir)
	testkit.Must(t, err)
	if len(left) != 2 {
		t.Errorf("files that are left: %v", left)
	}
}

func TestDamagedStateIsNamed(t *testing.T) {
	for _, name := range []string{"relay-port", "relay-password"} {
		for _, text := range []string{"", "0", "70000", "half", strings.Repeat("0", 5000)} {
			dir := t.TempDir()
			testkit.WriteFile(t, filepath.Join(dir, name), text)
			var err error
			if name == "relay-port" {
				_, err = relay.Listen(dir)
			} else {
				_, err = relay.Password(dir, 0o400)
			}
			if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, name)) || !strings.Contains(err.Error(), "create the pod again") {
				t.Errorf("%s %.10q: %v", name, text, err)
			}
		}
	}
}

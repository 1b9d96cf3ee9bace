package rotation_test

import (
	"io"
	"net"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

func TestStart(t *testing.T) {
	f := newFixture(t)
	t.Run("with another program's Secret", f.testForeignSecret)
	t.Run("with an empty Secret", f.testEmptySecret)
	t.Run("before the API server", f.testAPIServerIsLate)
}

// A Secret of another program stays unchanged.
func (f *fixture) testForeignSecret(t *testing.T) {
	const name = "foreign"
	f.register(t, name, name)
	f.createSecret(t, name, map[string][]byte{"password": []byte("1234")})
	before := f.secret(t, name)
	k, _ := startRotator(t, f.Config(), name)
	testkit.Eventually(t, "not ready, with the reason and the fix", func() bool {
		err := k.Ready()
		return err != nil &&
			strings.Contains(
				err.Error(),
				"the Secret foreign of namespace ampbridge-system has content, but not the annotation ampbridge.io/certificates",
			) &&
			strings.Contains(err.Error(), "name another one with --cert-secret")
	})
	if after := f.secret(t, name); after.ResourceVersion != before.ResourceVersion {
		t.Errorf("the Secret has changed: %v", after)
	}
	for _, entry := range f.configuration(t, name).Webhooks {
		if entry.ClientConfig.CABundle != nil {
			t.Errorf("entry %s was given a bundle", entry.Name)
		}
	}
}

// An empty Secret is filled. A chart can create one, so that it is removed with the chart.
func (f *fixture) testEmptySecret(t *testing.T) {
	const name = "empty"
	f.register(t, name, name)
	f.createSecret(t, name, nil)
	before := f.secret(t, name)
	k, _ := startRotator(t, f.Config(), name)
	testkit.Eventually(t, "ready", func() bool { return k.Ready() == nil && f.stable(t, name, name) })
	if after := f.secret(t, name); after.UID != before.UID || after.Labels["helm"] != "yes" {
		t.Errorf("the Secret is another, or has lost its labels: %v", after.ObjectMeta)
	}
}

// The webhook starts before it can reach the API server, and waits.
func (f *fixture) testAPIServerIsLate(t *testing.T) {
	const name = "late"
	f.register(t, name, name)
	config := f.Config()
	target := strings.TrimPrefix(config.Host, "https://")
	addr := testkit.FreeAddr(t)
	config.Host = "https://" + addr
	k, _ := startRotator(t, config, name)
	testkit.Eventually(t, "not ready, with the reason", func() bool {
		err := k.Ready()
		return err != nil && strings.Contains(err.Error(), "no serving certificate is loaded") &&
			strings.Contains(err.Error(), "connection refused")
	})
	listener, err := net.Listen("tcp", addr)
	testkit.Must(t, err)
	defer func() { _ = listener.Close() }()
	go forward(listener, target)
	testkit.Eventually(t, "ready", func() bool { return k.Ready() == nil })
}

// forward connects each client with the target until the listener is closed.
func forward(listener net.Listener, target string) {
	for {
		in, err := listener.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", target)
		if err != nil {
			_ = in.Close()
			continue
		}
		for _, pair := range [][2]net.Conn{{in, out}, {out, in}} {
			go func() {
				_, _ = io.Copy(pair[0], pair[1])
				_ = pair[0].Close()
			}()
		}
	}
}

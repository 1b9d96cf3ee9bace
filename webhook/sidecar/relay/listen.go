package relay

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/net/netutil"

	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// File names in the memory volume, which survives the sidecar's container.
const (
	portFile     = "relay-port"
	passwordFile = sidecarconfig.RelayPasswordFile
)

// Listen opens the relay's loopback port. dir is a volume that survives the container. The first
// start chooses a free port and stores its number there. Every later start
// takes the same port again, because Prometheus's configuration contains it. While another
// process has that port, Listen fails, and the caller tries again.
func Listen(dir string) (net.Listener, error) {
	file := filepath.Join(dir, portFile)
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		kernel, _ := os.ReadFile(kernelPorts) // if it cannot be read, Linux's usual range applies
		lowest, highest := choosePorts(string(kernel))
		return listenFirst(file, lowest, highest)
	case err != nil:
		return nil, err
	}
	port, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 16)
	if err != nil || port == 0 {
		return nil, fmt.Errorf("%s does not hold a port: create the pod again", file)
	}
	l, err := listen(int(port))
	if err != nil {
		return nil, fmt.Errorf("the relay needs port %d again, because the writing program is configured with it: "+
			"%w", port, err)
	}
	return l, nil
}

// KeepPort makes [Listen] use a port that was chosen before, because the writing program knows
// that port.
func KeepPort(dir string, port int) error {
	err := writeOnce(filepath.Join(dir, portFile), strconv.Itoa(port), 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// Address returns the relay's address if an earlier start has chosen a port.
func Address(dir string) (address string, ok bool) {
	text, err := os.ReadFile(filepath.Join(dir, portFile))
	return net.JoinHostPort("127.0.0.1", strings.TrimSpace(string(text))), err == nil
}

func listen(port int) (net.Listener, error) {
	return net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
}

// attempts is the number of ports that the first start tries.
const attempts = 50

// listenFirst opens a random port between lowest and highest.
func listenFirst(file string, lowest, highest int) (l net.Listener, err error) {
	for range attempts {
		l, err = listen(lowest + mathrand.IntN(highest-lowest+1))
		if !errors.Is(err, syscall.EADDRINUSE) {
			break
		}
	}
	if err != nil {
		return nil, fmt.Errorf("the relay found no free port from %d to %d: %w", lowest, highest, err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err == nil {
		err = writeOnce(file, port, 0o600)
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// kernelPorts has the first and the last port that Linux uses for outgoing connections.
const kernelPorts = "/proc/sys/net/ipv4/ip_local_port_range"

// choosePorts returns the range of ports for the relay. It is below the kernel's range, because
// otherwise an outgoing connection of the pod could get the relay's port while the container
// restarts. It is also above the ports of service meshes' proxies (15000 to 20200) and below the
// ports of Services on nodes (30000 to 32767). kernel is the text of [kernelPorts]. If that is
// empty, or leaves no ports below it, the usual range applies.
func choosePorts(kernel string) (lowest, highest int) {
	const first, last, unprivileged, fewest = 22000, 29999, 1024, 1000
	var start int
	if _, err := fmt.Sscan(kernel, &start); err != nil || start > last || start < unprivileged+fewest {
		return first, last
	}
	return max(unprivileged, min(first, start-fewest)), start - 1
}

// PasswordFile returns the path where Prometheus reads the password.
func PasswordFile(dir string) string { return filepath.Join(dir, passwordFile) }

// Password returns the pod's password: 32 random bytes in hex, created once and kept in
// dir. mode is the file's mode, because Prometheus may run as another user.
func Password(dir string, mode fs.FileMode) (string, error) {
	secret := make([]byte, 32)
	_, _ = rand.Read(secret) // never fails
	err := writeOnce(PasswordFile(dir), hex.EncodeToString(secret), mode)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	text, err := os.ReadFile(PasswordFile(dir))
	if err != nil {
		return "", err
	}
	if len(text) != hex.EncodedLen(len(secret)) {
		return "", fmt.Errorf("%s does not hold a password: create the pod again", PasswordFile(dir))
	}
	return string(text), nil
}

// writeOnce creates a file in one step, so that after a crash it is complete or missing. It
// returns [fs.ErrExist] if the file exists.
func writeOnce(file, text string, mode fs.FileMode) error {
	temporary, err := os.CreateTemp(filepath.Dir(file), "."+filepath.Base(file))
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temporary.Name()) }() // the link stays if it was created
	_, err = temporary.WriteString(text)
	err = errors.Join(err, temporary.Chmod(mode), temporary.Close())
	if err != nil {
		return err
	}
	return os.Link(temporary.Name(), file)
}

// Limits of the server.
const (
	// maxConnections is larger than Prometheus's number of shards. Others wait in the kernel.
	maxConnections = 256
	headerTimeout  = 10 * time.Second
	bodyTimeout    = time.Minute
	// idleTimeout is longer than Prometheus's own 5 minutes, so that Prometheus closes first. Otherwise
	// a write could be sent on a closed connection.
	idleTimeout = 6 * time.Minute
	maxHeader   = 16 << 10
)

// Serve serves on the listener until the context ends. Then it lets open
// writes finish, for at most drain.
func (r *Relay) Serve(ctx context.Context, l net.Listener, drain time.Duration) error {
	server := &http.Server{
		Handler:           r,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       bodyTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(netutil.LimitListener(l, maxConnections)) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	if err := server.Shutdown(stopping); err != nil {
		return errors.Join(err, server.Close())
	}
	return nil
}

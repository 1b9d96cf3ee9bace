package webhook

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"sync"
)

// maxClientCA limits the CA file, in bytes.
const maxClientCA = 256 << 10

// clientCA verifies that a client is an API server. The API server's AdmissionConfiguration names
// the client certificate that it uses for webhooks.
type clientCA struct {
	path   string
	names  []string
	logger *slog.Logger

	mu sync.Mutex
	// data is the file's content that pool was created from.
	data []byte
	pool *x509.CertPool
	// failed is the last error that was logged.
	failed string
}

func newClientCA(path string, names []string, logger *slog.Logger) (*clientCA, error) {
	c := &clientCA{path: path, names: names, logger: logger}
	return c, c.load()
}

// load reads the file. If the file is not valid, the last valid CA stays in use.
func (c *clientCA) load() error {
	file, err := os.Open(c.path)
	if err != nil {
		return fmt.Errorf("cannot read the CA of client certificates: %w", err)
	}
	defer func() { _ = file.Close() }()
	data, err := io.ReadAll(io.LimitReader(file, maxClientCA+1))
	if err != nil {
		return fmt.Errorf("cannot read the CA of client certificates: %w", err)
	}
	if len(data) > maxClientCA {
		return fmt.Errorf("the CA of client certificates, %s, has more than %d bytes", c.path, maxClientCA)
	}
	if c.pool != nil && bytes.Equal(data, c.data) {
		return nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data) {
		return fmt.Errorf("the CA of client certificates, %s, has no certificate in PEM", c.path)
	}
	c.data, c.pool = data, pool
	return nil
}

// require makes the server request a certificate from each client and verify it. The file is read
// at each handshake, because an API server makes only few.
func (c *clientCA) require(config *tls.Config) {
	base := config.Clone()
	base.ClientAuth = tls.RequireAndVerifyClientCert
	// A resumed session would still be verified with the CA of its first handshake.
	base.SessionTicketsDisabled = true
	base.VerifyConnection = c.verifyName
	config.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		current := base.Clone()
		current.ClientCAs = c.current()
		return current, nil
	}
}

func (c *clientCA) current() *x509.CertPool {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.load()
	switch {
	case err == nil:
		c.failed = ""
	case err.Error() != c.failed:
		c.failed = err.Error()
		c.logger.Error("cannot use the new CA of client certificates, keeping the last one", "error", c.failed)
	}
	return c.pool
}

func (c *clientCA) verifyName(state tls.ConnectionState) error {
	if len(c.names) == 0 {
		return nil
	}
	if len(state.PeerCertificates) == 0 {
		return errors.New("the client has no certificate")
	}
	leaf := state.PeerCertificates[0]
	for _, name := range append([]string{leaf.Subject.CommonName}, leaf.DNSNames...) {
		if slices.Contains(c.names, name) {
			return nil
		}
	}
	return fmt.Errorf("the client certificate of %q has none of the names %q", leaf.Subject.CommonName, c.names)
}

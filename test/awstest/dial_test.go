package awstest_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/ampbridge/ampbridge/test/awstest"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// What a program under test reaches is the very host that the double reads.
func TestDialIssuer(t *testing.T) {
	cloud := awstest.Start(t, awstest.Options{})
	const issuer = "https://oidc.example.com/a"
	if _, err := cloud.RegisterIssuer(issuer, awstest.NewSigner(issuer, jose.ES256), awstest.PublicCA); err != nil {
		t.Fatal(err)
	}
	conn, err := cloud.DialIssuer(t.Context(), "tcp", "oidc.example.com:443")
	testkit.Must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cloud.CA)
	client := tls.Client(conn, &tls.Config{ServerName: "oidc.example.com", RootCAs: roots, MinVersion: tls.VersionTLS12})
	if err := client.HandshakeContext(t.Context()); err != nil {
		t.Error(err)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	for _, address := range []string{"example.com:443", "oidc.example.com:80"} {
		if conn, err := cloud.DialIssuer(t.Context(), "tcp", address); err == nil {
			t.Errorf("%s is reached", address)
			_ = conn.Close()
		}
	}
}

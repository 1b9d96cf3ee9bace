package awstest_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// What a program under test reaches is the very host that the double reads.
func TestDialIssuer(t *testing.T) {
	cloud := newFixture(t).cloud
	const host = "oidc.eks.eu-west-1.amazonaws.com"
	conn, err := cloud.DialIssuer(t.Context(), "tcp", host+":443")
	testkit.Must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(cloud.CA)
	client := tls.Client(conn, &tls.Config{ServerName: host, RootCAs: roots, MinVersion: tls.VersionTLS12})
	if err := client.HandshakeContext(t.Context()); err != nil {
		t.Error(err)
	}
	if err := client.Close(); err != nil {
		t.Error(err)
	}
	for _, address := range []string{"example.com:443", host + ":80"} {
		if conn, err := cloud.DialIssuer(t.Context(), "tcp", address); err == nil {
			t.Errorf("%s is reached", address)
			_ = conn.Close()
		}
	}
}

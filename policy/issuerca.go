package policy

import (
	"crypto/sha1" //#nosec G505 -- IAM's thumbprints are SHA-1 sums
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// IssuerCA are certificates, PEM text, by which STS knows an issuer that no
// public authority vouches for: the topmost that the issuer's server shows, which
// is the highest intermediate authority's or the root's. Several are for the time
// of a change. Empty: the issuer's certificate is a public one.
type IssuerCA string

// maxThumbprints is how many IAM takes for a provider.
const maxThumbprints = 5

// Thumbprints are what IAM calls by that name: SHA-1 sums of the certificates in
// hex, sorted
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_create_oidc_verify-thumbprint.html).
// None where there are none.
func (c IssuerCA) Thumbprints() []string {
	certificates, err := c.certificates()
	if err != nil {
		return nil // [Parse] has refused it
	}
	var list []string
	for _, certificate := range certificates {
		sum := sha1.Sum(certificate) //#nosec G401 -- see above
		list = append(list, hex.EncodeToString(sum[:]))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// certificates are the PEM blocks' contents.
func (c IssuerCA) certificates() (list [][]byte, err error) {
	rest := []byte(strings.TrimSpace(string(c)))
	for len(rest) > 0 {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return nil, errors.New("holds something that is not PEM text: paste whole certificates, from -----BEGIN to END-----")
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("holds a %s: paste certificates alone", block.Type)
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("holds a certificate that cannot be read: %w", err)
		}
		list = append(list, block.Bytes)
		rest = []byte(strings.TrimSpace(string(rest)))
	}
	return list, nil
}

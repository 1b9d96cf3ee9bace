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

// IssuerCA holds PEM certificates for an issuer with a certificate that no public authority
// signed. STS needs the topmost certificate that the issuer's server sends: the highest
// intermediate authority's, or the root's. While a certificate is replaced there may be several.
// Empty means that a public authority signed the issuer's certificate.
type IssuerCA string

// maxThumbprints is the number of thumbprints that IAM accepts for a provider.
const maxThumbprints = 5

// Thumbprints returns IAM's thumbprints: the sorted SHA-1 sums of the certificates, in hex
// (https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_providers_create_oidc_verify-thumbprint.html).
// It returns none without certificates.
func (c IssuerCA) Thumbprints() []string {
	certificates, err := c.certificates()
	if err != nil {
		return nil // cannot happen: [Parse] refuses such a text
	}
	var list []string
	for _, certificate := range certificates {
		sum := sha1.Sum(certificate) //#nosec G401 -- see above
		list = append(list, hex.EncodeToString(sum[:]))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// certificates returns the content of each PEM block.
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

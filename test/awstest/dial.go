package awstest

import (
	"context"
	"net"
)

// DialIssuer connects to the host of a registered issuer as the double itself
// does (network "tcp", address host:443). It is for tested programs that read the
// issuer too: a proxy between them and the double calls it.
func (c *Cloud) DialIssuer(ctx context.Context, network, address string) (net.Conn, error) {
	return c.fetcher.dial(ctx, network, address)
}

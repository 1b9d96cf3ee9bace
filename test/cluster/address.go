package cluster

import (
	"errors"
	"net"
)

// Address returns an address of this machine that an endpoint or a pod can have. The API server refuses
// loopback addresses there and does not proxy to them.
func Address() (string, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return "", err
	}
	for _, a := range addresses {
		if ip, _, err := net.ParseCIDR(a.String()); err == nil && ip.To4() != nil && ip.IsGlobalUnicast() {
			return ip.String(), nil
		}
	}
	return "", errors.New(
		"endpoints and pods must not have loopback addresses, and this machine has no other address: ip address add 192.0.2.1/32 dev lo",
	)
}

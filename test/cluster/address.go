package cluster

import (
	"errors"
	"net"
)

// Address is one of this machine that an endpoint or a pod may have: the API
// server refuses loopback addresses there, and proxies to none.
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
		"endpoints and pods may not have loopback addresses, and this machine has no other: ip address add 192.0.2.1/32 dev lo",
	)
}

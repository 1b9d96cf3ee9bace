package testkit

import (
	"math/rand/v2"
	"net"
	"strconv"
	"testing"
)

// The kernel uses other ports for outgoing connections (net.ipv4.ip_local_port_range begins at
// 32768), so does Kubernetes for node ports (from 30000), and so do the relays of config sidecars
// (from 22000), which run on this machine in tests of other packages. So nothing takes a port
// between the check and its use.
const firstPort, lastPort = 12000, 21999

// UnusedAddr returns an address of the host, as host and port, on which no program listens.
// Tests use [FreeAddr] and [FreeAddrOn] instead.
func UnusedAddr(host string) (string, error) {
	var last error
	for range 100 {
		port := strconv.Itoa(firstPort + rand.IntN(lastPort-firstPort+1))
		l, err := net.Listen("tcp", net.JoinHostPort(host, port))
		if err != nil {
			last = err // in use, or the host has no such address
			continue
		}
		return l.Addr().String(), l.Close()
	}
	return "", last
}

// UnusedPort returns a loopback port on which no program listens. Tests use [FreePort] instead.
func UnusedPort() (int, error) {
	addr, err := UnusedAddr("127.0.0.1")
	if err != nil {
		return 0, err
	}
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(port)
}

// FreeAddr returns a loopback address, as host and port, on which no program listens.
func FreeAddr(t testing.TB) string {
	t.Helper()
	return FreeAddrOn(t, "127.0.0.1")
}

// FreeAddrOn returns an address of the host, as host and port, on which no program listens.
func FreeAddrOn(t testing.TB, host string) string {
	t.Helper()
	addr, err := UnusedAddr(host)
	Must(t, err)
	return addr
}

// FreePort returns a loopback port on which no program listens.
func FreePort(t testing.TB) int {
	t.Helper()
	port, err := UnusedPort()
	Must(t, err)
	return port
}

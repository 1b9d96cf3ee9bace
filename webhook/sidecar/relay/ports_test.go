package relay

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

func TestChoosePorts(t *testing.T) {
	for kernel, want := range map[string][2]int{
		"32768\t60999\n": {22000, 29999}, // Linux's own
		"":               {22000, 29999},
		"nonsense":       {22000, 29999},
		"30000 60999":    {22000, 29999},
		"25000 60999":    {22000, 24999},
		"22500 60999":    {21500, 22499},
		"10240 65535":    {9240, 10239},
		"2024 65535":     {1024, 2023},
		"1024 65535":     {22000, 29999}, // nothing is left
		"0 65535":        {22000, 29999},
		"-5 99":          {22000, 29999},
	} {
		if lowest, highest := choosePorts(kernel); [2]int{lowest, highest} != want {
			t.Errorf("%q: %d to %d, want %v", kernel, lowest, highest, want)
		}
	}
}

// TestFirstPortIsNoConnections: the port is one that no outgoing connection gets.
func TestFirstPortIsNoConnections(t *testing.T) {
	text := testkit.ReadFile(t, kernelPorts)
	var low, high int
	_, err := fmt.Sscan(text, &low, &high)
	testkit.Must(t, err)
	if low < 3000 {
		t.Fatalf("this machine's connections take all ports: %s", text)
	}
	seen := map[int]bool{}
	for range 20 {
		l, err := Listen(t.TempDir())
		testkit.Must(t, err)
		defer func() { _ = l.Close() }()
		port := portOf(t, l)
		if port >= low && port <= high {
			t.Errorf("port %d is within %s", port, text)
		}
		seen[port] = true
	}
	if len(seen) != 20 {
		t.Errorf("twenty relays share ports: %v", seen)
	}
}

// TestTakenPorts: a first start passes by the ports that are taken, and a later one names
// the port that it needs.
func TestTakenPorts(t *testing.T) {
	lowest := testkit.FreePort(t)
	taken, err := listen(lowest)
	testkit.Must(t, err)
	dir := t.TempDir()
	file := filepath.Join(dir, portFile)
	_, err = listenFirst(file, lowest, lowest)
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), strconv.Itoa(lowest)) {
		t.Fatalf("all ports are taken: %v", err)
	}
	// Of nine free ports and this one, fifty attempts take a free one.
	l, err := listenFirst(file, lowest, lowest+9)
	testkit.Must(t, err)
	testkit.Must(t, taken.Close())
	port := portOf(t, l)
	if port == lowest {
		t.Fatalf("port %d was taken", port)
	}
	// The container restarts, and another process has the port.
	testkit.Must(t, l.Close())
	other, err := listen(port)
	testkit.Must(t, err)
	if l, err := Listen(dir); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), fmt.Sprintf("port %d again", port)) {
		t.Errorf("the kept port is taken: %v %v", l, err)
	}
	testkit.Must(t, other.Close())
	again, err := Listen(dir)
	testkit.Must(t, err)
	if portOf(t, again) != port {
		t.Errorf("port %d, and %d before", portOf(t, again), port)
	}
	testkit.Must(t, again.Close())
}

func portOf(t *testing.T, l net.Listener) int {
	t.Helper()
	_, text, err := net.SplitHostPort(l.Addr().String())
	testkit.Must(t, err)
	port, err := strconv.Atoi(text)
	testkit.Must(t, err)
	return port
}

package cluster_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/test/cluster"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// parentVariable makes the test's own program, when it runs again, a parent that starts a cluster and then
// waits to be killed.
const parentVariable = "AMPBRIDGE_TEST_CLUSTER_PARENT"

// A killed parent cannot close its cluster, but the processes must end anyway.
func TestProcessesDieWithTheirParent(t *testing.T) {
	if os.Getenv(parentVariable) != "" {
		c := cluster.Start(t, cluster.Options{})
		fmt.Println("cluster at", c.URL)
		select {}
	}

	parent := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=5m")
	// The killed parent leaves its cluster's files in this directory, and TempDir removes them.
	parent.Env = append(os.Environ(), parentVariable+"=1", "TMPDIR="+t.TempDir())
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	testkit.Must(t, err)
	testkit.Must(t, parent.Start())
	var address string
	var said strings.Builder
	for lines := bufio.NewScanner(out); address == "" && lines.Scan(); {
		said.WriteString(lines.Text() + "\n")
		_, address, _ = strings.Cut(lines.Text(), "cluster at https://")
	}
	testkit.Must(t, parent.Process.Kill())
	_ = parent.Wait() // it was killed
	if address == "" {
		t.Fatalf("the parent started no cluster; its output:\n%s", &said)
	}

	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		connection, err := net.Dial("tcp", address)
		if err != nil {
			return
		}
		_ = connection.Close()
		if time.Now().After(deadline) {
			t.Fatalf("%s still takes connections a minute after its parent's death", address)
		}
	}
}

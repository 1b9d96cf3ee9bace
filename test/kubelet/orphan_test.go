package kubelet

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// If orphanEnv names a kubeconfig, the test binary runs its own pod until it is killed.
const (
	orphanEnv   = "PODRUN_TEST_ORPHAN"
	orphanProbe = "PODRUN_TEST_PROBE"
	orphanPod   = "PODRUN_TEST_POD"
)

func orphan(kubeconfig string) {
	fail := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	fail(err)
	client, err := kubernetes.NewForConfig(config)
	fail(err)
	ctx := context.Background()
	pod, err := client.CoreV1().Pods(namespace).Get(ctx, os.Getenv(orphanPod), metav1.GetOptions{})
	fail(err)
	p, err := Run(ctx, client, pod, Options{Dir: os.TempDir(), Images: Images{{
		Match: "tests/probe", Binaries: map[string]string{"/bin/probe": os.Getenv(orphanProbe)}, Entrypoint: []string{"/bin/probe"},
	}}})
	fail(err)
	fail(p.Eventually(ctx, "running", p.Ready))
	fmt.Println(p.Container("main").PID())
	select {}
}

// TestNoOrphans checks that containers end with the program that runs them, also if that program is killed.
func TestNoOrphans(t *testing.T) {
	pod := create(t, newPod(container("main", "sleep")))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(
		os.Environ(),
		"TMPDIR="+t.TempDir(),
		orphanEnv+"="+testbed.cluster.Kubeconfig(),
		orphanProbe+"="+testbed.probe,
		orphanPod+"="+pod.Name,
	)
	out, err := cmd.StdoutPipe()
	testkit.Must(t, err)
	testkit.Must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, convErr := strconv.Atoi(strings.TrimSpace(line))
	killErr := cmd.Process.Kill()
	_ = cmd.Wait() // it was killed
	testkit.Must(t, errors.Join(err, convErr, killErr))
	eventuallyGone(t, pid)
}

// eventuallyGone waits until the process has ended, or is a zombie that its parent has not read yet.
func eventuallyGone(t *testing.T, pid int) {
	t.Helper()
	testkit.EventuallyEmpty(t, func() string {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			return ""
		}
		return fmt.Sprintf("process %d is left: %s", pid, stat)
	})
}

//go:build linux

package node

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// debian names the package that holds each program which a node needs.
var debian = map[string]string{
	"containerd": "containerd", "ctr": "containerd", "containerd-shim-runc-v2": "containerd", "runc": "runc",
	"ip": "iproute2", "iptables": "iptables", "iptables-save": "iptables", "iptables-restore": "iptables",
}

// cniPlugins are the programs that the pods' network takes, and cniDirs where
// distributions keep them.
var (
	cniPlugins = []string{"bridge", "host-local", "loopback"}
	cniDirs    = []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"}
)

// Preflight tells everything that this machine lacks for a node at once, with
// the command that mends it. Needs are further programs, with their packages.
func Preflight(needs map[string]string) error {
	programs := maps.Clone(debian)
	maps.Copy(programs, needs)
	var missing, packages []string
	for _, program := range slices.Sorted(maps.Keys(programs)) {
		if _, err := exec.LookPath(program); err != nil {
			missing, packages = append(missing, program), append(packages, programs[program])
		}
	}
	if _, err := cniDir(); err != nil {
		missing, packages = append(missing, err.Error()), append(packages, "containernetworking-plugins")
	}
	var errs []error
	if os.Geteuid() != 0 {
		errs = append(errs, errors.New("not root: containers, their network and their mounts take root; run it with sudo, or leave it to CI"))
	}
	if len(missing) > 0 {
		slices.Sort(packages)
		errs = append(errs, fmt.Errorf("missing: %s; on Debian and Ubuntu: apt-get install -y --no-install-recommends %s",
			strings.Join(missing, ", "), strings.Join(slices.Compact(packages), " ")))
	}
	if filesystems, err := os.ReadFile("/proc/filesystems"); err == nil && !strings.Contains(string(filesystems), "\toverlay\n") {
		errs = append(errs, errors.New("the kernel does not know overlayfs: modprobe overlay"))
	}
	if len(cgroupRoots()) == 0 {
		errs = append(errs, fmt.Errorf("no cgroups at %s: mount them, or run the container with --privileged", cgroups))
	}
	return errors.Join(errs...)
}

// cniDir is where all the network plugins are.
func cniDir() (string, error) {
	for _, dir := range cniDirs {
		if !slices.ContainsFunc(cniPlugins, func(plugin string) bool {
			_, err := os.Stat(filepath.Join(dir, plugin))
			return err != nil
		}) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("the CNI plugins %s in one of %s", strings.Join(cniPlugins, ", "), strings.Join(cniDirs, ", "))
}

// Package preflight reports what a machine lacks for a test node (package node), and the command that fixes
// it. It has few imports, so it answers before anything else is built.
package preflight

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Install are the programs that make e2e needs in addition to the node's own, with their packages.
var Install = map[string]string{"make": "make", "buildah": "buildah", "aws": "awscli", "chromium": "chromium",
	"ssh-keygen": "openssh-client"}

// debian maps each program that a node needs to its package.
var debian = map[string]string{
	"containerd": "containerd", "ctr": "containerd", "containerd-shim-runc-v2": "containerd", "runc": "runc",
	"ip": "iproute2", "iptables": "iptables", "iptables-save": "iptables", "iptables-restore": "iptables",
}

// cniPlugins are the programs for the pods' network, and cniDirs are the directories in which distributions
// install them.
var (
	cniPlugins = []string{"bridge", "host-local", "loopback"}
	cniDirs    = []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"}
)

// Missing are the programs that the machine lacks, and the packages that contain them.
type Missing struct{ Programs, Packages []string }

// Find looks for the node's own programs and for those in needs, which maps more programs to their packages.
func Find(needs map[string]string) (m Missing) {
	programs := maps.Clone(debian)
	maps.Copy(programs, needs)
	for _, program := range slices.Sorted(maps.Keys(programs)) {
		if _, err := exec.LookPath(program); err != nil {
			m.Programs, m.Packages = append(m.Programs, program), append(m.Packages, programs[program])
		}
	}
	if _, err := CNIDir(); err != nil {
		m.Programs, m.Packages = append(m.Programs, err.Error()), append(m.Packages, "containernetworking-plugins")
	}
	slices.Sort(m.Packages)
	m.Packages = slices.Compact(m.Packages)
	return m
}

// Check returns one error with everything that the machine lacks.
func Check(needs map[string]string) error {
	var errs []error
	if runtime.GOOS != "linux" {
		return fmt.Errorf("a node needs Linux, but this is %s", runtime.GOOS)
	}
	if os.Geteuid() != 0 {
		errs = append(
			errs,
			errors.New("not root: containers, their network and their mounts need root; run it with sudo, or leave it to CI"),
		)
	}
	if m := Find(needs); len(m.Programs) > 0 {
		errs = append(errs, fmt.Errorf("missing: %s; on Debian and Ubuntu: apt-get install -y --no-install-recommends %s",
			strings.Join(m.Programs, ", "), strings.Join(m.Packages, " ")))
	}
	if filesystems, err := os.ReadFile("/proc/filesystems"); err == nil && !strings.Contains(string(filesystems), "\toverlay\n") {
		errs = append(errs, errors.New("the kernel does not know overlayfs: modprobe overlay"))
	}
	if len(CgroupRoots()) == 0 {
		errs = append(errs, fmt.Errorf("no cgroups at %s: mount them, or run the container with --privileged", cgroups))
	}
	return errors.Join(errs...)
}

const cgroups = "/sys/fs/cgroup"

// CgroupRoots returns the hierarchies: one for version 2, or one for each controller of version 1.
func CgroupRoots() []string {
	if _, err := os.Stat(filepath.Join(cgroups, "cgroup.controllers")); err == nil {
		return []string{cgroups}
	}
	roots, err := filepath.Glob(filepath.Join(cgroups, "*"))
	if err != nil {
		return nil
	}
	return roots
}

// CNIDir returns the directory with all the network plugins.
func CNIDir() (string, error) {
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

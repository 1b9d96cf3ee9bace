package main

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// pluginProgram is the program's name in an archive: kubectl runs it for `kubectl ampbridge`.
const pluginProgram = "kubectl-ampbridge"

// writeArchive writes a tar.gz of files, each given as NAME=FILE. It is what krew installs.
func writeArchive(w io.Writer, o options, files []string) error {
	zip := gzip.NewWriter(w)
	archive := tar.NewWriter(zip)
	for _, f := range files {
		name, path, ok := strings.Cut(f, "=")
		if !ok {
			return fmt.Errorf("%s: want NAME=FILE", f)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		mode := int64(0o644)
		if strings.HasPrefix(name, pluginProgram) {
			mode = 0o755
		}
		header := &tar.Header{
			Typeflag: tar.TypeReg, Name: name, Size: int64(len(content)), Mode: mode, ModTime: o.time(), Format: tar.FormatUSTAR,
		}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(content); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), zip.Close())
}

// writeKrew writes the manifest of the kubectl plugin for krew, with the archives of all
// platforms. The name of an archive ends in -OS-ARCH.tar.gz.
func writeKrew(w io.Writer, o options, archives []string) error {
	var b strings.Builder
	fmt.Fprintf(&b, `apiVersion: krew.googlecontainertools.github.com/v1alpha2
kind: Plugin
metadata:
  name: ampbridge
spec:
  version: %s
  homepage: %s
  shortDescription: Connect Prometheus to Amazon Managed Prometheus
  description: |
    ampbridge lets any Prometheus on any Kubernetes cluster write to Amazon Managed
    Service for Prometheus, without static credentials. The plugin finds the
    Prometheus pods of a cluster, shows how pods and configurations change,
    prepares the AWS accounts, and checks an installation from the cluster to the
    workspace.
  caveats: |
    For completion, put a program into the PATH:
      kubectl ampbridge completion kubectl > kubectl_complete-ampbridge
      chmod +x kubectl_complete-ampbridge
  platforms:
`, o.version, source)
	for _, path := range archives {
		parts := strings.Split(strings.TrimSuffix(filepath.Base(path), ".tar.gz"), "-")
		if len(parts) < 3 || !strings.HasSuffix(path, ".tar.gz") {
			return fmt.Errorf("%s: want a name that ends in -OS-ARCH.tar.gz", path)
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		target, arch, program := parts[len(parts)-2], parts[len(parts)-1], pluginProgram
		if target == "windows" {
			program += ".exe"
		}
		fmt.Fprintf(&b, `  - selector:
      matchLabels:
        os: %s
        arch: %s
    uri: %s/releases/download/%s/%s
    sha256: %x
    bin: %s
`, target, arch, source, o.version, filepath.Base(path), sha256.Sum256(content), program)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

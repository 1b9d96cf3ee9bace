package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// manifest is the part of krew's format that ampbridge uses; other fields are mistakes.
type manifest struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		Version, Homepage, ShortDescription, Description, Caveats string
		Platforms                                                 []struct {
			Selector struct {
				MatchLabels map[string]string `json:"matchLabels"`
			} `json:"selector"`
			URI    string `json:"uri"`
			SHA256 string `json:"sha256"`
			Bin    string `json:"bin"`
		} `json:"platforms"`
	} `json:"spec"`
}

// The manifest names each platform's archive with its checksum, and the archive has the
// program that the manifest names.
func TestKrew(t *testing.T) {
	dir := t.TempDir()
	program, license := filepath.Join(dir, "program"), filepath.Join(dir, "LICENSE")
	for _, path := range []string{program, license} {
		if err := os.WriteFile(path, []byte(filepath.Base(path)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sums := map[string]string{}
	var archives []string
	for suffix, name := range map[string]string{
		"linux-amd64": "kubectl-ampbridge", "darwin-arm64": "kubectl-ampbridge", "windows-amd64": "kubectl-ampbridge.exe",
	} {
		var first, second bytes.Buffer
		for _, w := range []io.Writer{&first, &second} {
			if err := writeArchive(w, testOptions, []string{name + "=" + program, "LICENSE=" + license}); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Error("two archives of the same files differ")
		}
		file := "ampbridge-0.1.0-" + suffix + ".tar.gz"
		sum := sha256.Sum256(first.Bytes())
		sums[file] = hex.EncodeToString(sum[:])
		archives = append(archives, filepath.Join(dir, file))
		if err := os.WriteFile(archives[len(archives)-1], first.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var text bytes.Buffer
	if err := writeKrew(&text, testOptions, archives); err != nil {
		t.Fatal(err)
	}
	var m manifest
	if err := yaml.UnmarshalStrict(text.Bytes(), &m); err != nil {
		t.Fatalf("%v\n%s", err, text.String())
	}
	if m.Kind != "Plugin" || m.Metadata.Name != "ampbridge" || m.Spec.Version != "v0.1.0" || len(m.Spec.Platforms) != 3 {
		t.Fatalf("%+v", m)
	}
	// krew's guide: a short description has no full stop, and at most 50 characters.
	if s := m.Spec.ShortDescription; len(s) > 50 || strings.HasSuffix(s, ".") {
		t.Errorf("short description %q of %d characters", s, len(s))
	}
	for _, p := range m.Spec.Platforms {
		file := "ampbridge-0.1.0-" + p.Selector.MatchLabels["os"] + "-" + p.Selector.MatchLabels["arch"] + ".tar.gz"
		if p.URI != source+"/releases/download/v0.1.0/"+file || p.SHA256 != sums[file] {
			t.Errorf("%+v, want %s of %s", p, sums[file], file)
		}
		modes := archiveModes(t, filepath.Join(dir, file))
		if modes[p.Bin] != 0o755 || modes["LICENSE"] != 0o644 || len(modes) != 2 {
			t.Errorf("%s has %v, want %s and LICENSE", file, modes, p.Bin)
		}
	}
	for _, wrong := range []string{"ampbridge.tar.gz", "ampbridge-0.1.0-linux-amd64.zip"} {
		err := writeKrew(io.Discard, testOptions, []string{filepath.Join(dir, wrong)})
		if err == nil || !strings.Contains(err.Error(), "-OS-ARCH") {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}

// archiveModes returns the modes of the files in an archive.
func archiveModes(t *testing.T, path string) map[string]int64 {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	zip, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	modes := map[string]int64{}
	for archive := tar.NewReader(zip); ; {
		header, err := archive.Next()
		if err == io.EOF {
			return modes
		}
		if err != nil {
			t.Fatal(err)
		}
		modes[header.Name] = header.Mode
	}
}

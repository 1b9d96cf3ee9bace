package main

import (
	"archive/tar"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

var testOptions = options{
	image: "ghcr.io/ampbridge/ampbridge:v0.1.0", version: "v0.1.0", revision: "0123456789abcdef0123456789abcdef01234567",
	builder: "https://example.com/builder", created: 1700000000,
}

// buildSelf builds this command, which is a program of many modules.
func buildSelf(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "release")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", path, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Chdir("../../..") // `make release` runs there
	return path
}

// schema is CycloneDX's own, out of the library's module.
func schema(t *testing.T) *jsonschema.Schema {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	const base = "http://cyclonedx.org/schema/"
	compiler := jsonschema.NewCompiler()
	for url, file := range map[string]string{
		"bom-1.6.schema.json": "bom-1.6.schema.json", "spdx.schema.json": "spdx.schema.json", "jsf-0.82.schema.json": "jsf-0.82.schemax.json",
	} {
		text, err := os.Open(filepath.Join(strings.TrimSpace(string(out)), "schema", file))
		if err != nil {
			t.Fatal(err)
		}
		document, err := jsonschema.UnmarshalJSON(text)
		if err := errors.Join(err, text.Close(), compiler.AddResource(base+url, document)); err != nil {
			t.Fatal(err)
		}
	}
	s, err := compiler.Compile(base + "bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSBOM(t *testing.T) {
	s := schema(t)
	program := buildSelf(t)
	var first, second bytes.Buffer
	for _, w := range []io.Writer{&first, &second} {
		if err := run([]string{"sbom", "-version", "v0.1.0", "-created", "1700000000", program}, w); err != nil {
			t.Fatal(err)
		}
	}
	if first.String() != second.String() {
		t.Error("two runs differ")
	}
	validate := func(text string) error {
		document, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		return s.Validate(document)
	}
	text := first.String()
	if err := validate(text); err != nil {
		t.Errorf("%v\n%.2000s", err, text)
	}
	for _, want := range []string{
		`"purl": "pkg:golang/github.com/google/go-containerregistry@v0.22.1"`, `"name": "stdlib"`, `"id": "BSD-3-Clause"`, `"id": "Apache-2.0"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s", want)
		}
	}
	for _, change := range [][2]string{
		{`"id": "BSD-3-Clause"`, `"id": "BSD-3-Claus"`}, {`"type": "library"`, `"type": "books"`}, {`"alg": "SHA-256"`, `"alg": "SHA-257"`},
	} {
		changed := strings.Replace(text, change[0], change[1], 1)
		if changed == text || validate(changed) == nil {
			t.Errorf("the schema takes %s", change[1])
		}
	}
}

func TestLicenses(t *testing.T) {
	program := buildSelf(t)
	var out bytes.Buffer
	if err := run([]string{"licenses", program}, &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"stdlib 1.", "(BSD-3-Clause)", "Copyright 2009 The Go Authors", "github.com/google/licensecheck v0.3.1 (BSD-3-Clause)",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q", want)
		}
	}
}

func TestReadLicense(t *testing.T) {
	own, err := os.ReadFile("../../../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	const isc = "Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted, " +
		"provided that the above copyright notice and this permission notice appear in all copies.\n\n" +
		"THE SOFTWARE IS PROVIDED \"AS IS\" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS SOFTWARE INCLUDING ALL IMPLIED " +
		"WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR ANY SPECIAL, DIRECT, INDIRECT, OR " +
		"CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM LOSS OF USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT, " +
		"NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF OR IN CONNECTION WITH THE USE OR PERFORMANCE OF THIS SOFTWARE.\n"
	for _, test := range []struct {
		name  string
		files map[string]string
		want  string // identifiers, or the error
	}{
		{"one", map[string]string{"LICENSE": string(own)}, "Apache-2.0"},
		{"two files", map[string]string{"LICENSE.txt": string(own), "COPYING": isc}, "Apache-2.0 ISC"},
		{"british", map[string]string{"LICENCE-ISC.md": isc}, "ISC"},
		{"none", map[string]string{"README": string(own), "license.go": isc}, "no licence file"},
		{"unknown", map[string]string{"LICENSE": "Ask the author before you use it, and wait for a long answer."}, "known licence"},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			for file, text := range test.files {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			l, err := readLicense(dir)
			got := strings.Join(l.ids, " ")
			if err != nil {
				got = err.Error()
			}
			if err == nil && got != test.want || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// TestImage pushes the image to a registry, and reads it there as a node would.
func TestImage(t *testing.T) {
	work := t.TempDir()
	args := []string{
		"image", "-image", testOptions.image, "-version", "v0.1.0", "-revision", testOptions.revision, "-created", "1700000000",
	}
	for _, arch := range []string{"amd64", "arm64"} {
		dir := filepath.Join(work, arch)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		for _, program := range programs {
			if err := os.WriteFile(filepath.Join(dir, program), []byte(program+" for "+arch), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		args = append(args, "linux/"+arch+"="+dir)
	}
	var first, second bytes.Buffer
	for _, w := range []io.Writer{&first, &second} {
		if err := run(args, w); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("two runs differ")
	}
	file := filepath.Join(work, "image.tar")
	if err := os.WriteFile(file, first.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}

	server := httptest.NewServer(registry.New(registry.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()
	reference := strings.TrimPrefix(server.URL, "http://") + "/ampbridge/ampbridge:v0.1.0"
	var out bytes.Buffer
	if err := run([]string{"push", file, reference}, &out); err != nil {
		t.Fatal(err)
	}
	tag, err := name.NewTag(reference)
	if err != nil {
		t.Fatal(err)
	}
	index, err := remote.Index(tag)
	if err != nil {
		t.Fatal(err)
	}
	digest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.TrimSpace(out.String()), tag.Context().Name()+"@"+digest.String(); got != want {
		t.Errorf("push printed %q, want %q", got, want)
	}
	if !bytes.Contains(first.Bytes(), []byte(digest.String())) {
		t.Errorf("digest %s in the registry is not that of the file", digest)
	}
	for _, arch := range []string{"amd64", "arm64"} {
		image, err := remote.Image(tag, remote.WithPlatform(v1.Platform{OS: "linux", Architecture: arch}))
		if err != nil {
			t.Fatal(err)
		}
		config, err := image.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if config.Architecture != arch || config.Config.User != "65532:65532" || strings.Join(config.Config.Entrypoint, " ") != "/ampbridge" {
			t.Errorf("got %+v", config)
		}
		if config.Config.Labels["org.opencontainers.image.revision"] != testOptions.revision {
			t.Errorf("got labels %v", config.Config.Labels)
		}
		got := map[string]string{}
		content := mutate.Extract(image)
		for files := tar.NewReader(content); ; {
			header, err := files.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(files)
			if err != nil {
				t.Fatal(err)
			}
			if header.Mode != 0o755 || header.Uid != 0 || header.ModTime.Unix() != testOptions.created {
				t.Errorf("%s: mode %o, user %d, time %s", header.Name, header.Mode, header.Uid, header.ModTime)
			}
			got[header.Name] = string(text)
		}
		_ = content.Close()
		if len(got) != 2 || got["ampbridge"] != "ampbridge for "+arch || got["config-sidecar"] != "config-sidecar for "+arch {
			t.Errorf("%s: got %v", arch, got)
		}
	}
}

func TestProvenance(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ampbridge-0.1.0-linux-amd64")
	if err := os.WriteFile(file, []byte("program"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		revision, builder string
		modified          bool
		want              string // of the error
	}{
		{revision: testOptions.revision, builder: testOptions.builder},
		{revision: testOptions.revision + "-dirty", builder: testOptions.builder, modified: true},
		{builder: testOptions.builder, want: "-revision"},
		{revision: testOptions.revision, want: "-builder"},
	} {
		var out bytes.Buffer
		err := run([]string{"provenance", "-version", "v0.1.0", "-revision", test.revision, "-builder", test.builder, file}, &out)
		if test.want != "" {
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		var statement struct {
			Type          string `json:"_type"`
			PredicateType string
			Subject       []struct {
				Name   string
				Digest map[string]string
			}
			Predicate struct {
				BuildDefinition struct {
					InternalParameters   struct{ Modified bool }
					ResolvedDependencies []struct{ Digest map[string]string }
				}
				RunDetails struct{ Builder struct{ ID string } }
			}
		}
		if err := json.Unmarshal(out.Bytes(), &statement); err != nil {
			t.Fatal(err)
		}
		const sum = "1310ca2c8932dbd118668bd97442558a3e1f546b5e15c69699dfbd6024f548d8" // of "program"
		build := statement.Predicate.BuildDefinition
		if statement.Type != "https://in-toto.io/Statement/v1" || statement.PredicateType != "https://slsa.dev/provenance/v1" ||
			len(statement.Subject) != 1 || statement.Subject[0].Name != filepath.Base(file) || statement.Subject[0].Digest["sha256"] != sum ||
			build.InternalParameters.Modified != test.modified || build.ResolvedDependencies[0].Digest["gitCommit"] != testOptions.revision ||
			statement.Predicate.RunDetails.Builder.ID != test.builder {
			t.Errorf("got %s", out.String())
		}
	}
}

//go:build linux && e2e

package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

const (
	reference = "ghcr.io/ampbridge/ampbridge:v0.0.0-test"
	// sizeBudget is of the uncompressed image, in bytes.
	sizeBudget = 64 << 20
)

// An archive is the image as a registry would get it.
type archive struct {
	digest string // of the manifest: of everything
	config struct {
		Architecture string
		Created      string
		Config       struct {
			User       string
			Entrypoint []string
			Cmd        []string
		}
	}
	size   int64 // of the files
	packed int64 // of the layers, as they are pulled
	files  map[string]*tar.Header
	sums   map[string]string // SHA-256
}

// checkout copies the commit's files, and what is changed beside them, to a
// directory of another name.
func checkout(t *testing.T, name string) string {
	t.Helper()
	root := tools.RootFor(t)
	files := testkit.Exec(t, "git", "-C", root, "ls-files", "-z")
	dir := filepath.Join(t.TempDir(), name)
	for file := range strings.SplitSeq(strings.Trim(files, "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join(root, file))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		testkit.Must(t, err)
		target := filepath.Join(dir, file)
		testkit.Must(t, os.MkdirAll(filepath.Dir(target), 0o700))
		// Stricter modes than git's: those of the image are the Dockerfile's.
		testkit.Must(t, os.WriteFile(target, content, 0o600))
	}
	return dir
}

// build runs make image in a directory, with a store of its own.
func build(t *testing.T, dir, arch string) archive {
	t.Helper()
	work := t.TempDir()
	file := filepath.Join(work, "image.tar")
	useStore(t, work)
	testkit.Exec(t, "make", "-C", dir, "image", "ENGINE=buildah", "ARCH="+arch, "VERSION=v0.0.0-test", "REVISION=0123abcd",
		"SOURCE_DATE_EPOCH=1700000000", "IMAGE="+reference, "ARCHIVE="+file)
	return read(t, file)
}

// useStore has buildah keep its images below the directory until the test ends.
func useStore(t *testing.T, dir string) {
	t.Helper()
	file := filepath.Join(dir, "storage.conf")
	config := fmt.Sprintf(
		"[storage]\ndriver = \"vfs\"\ngraphroot = %q\nrunroot = %q\n",
		filepath.Join(dir, "graph"),
		filepath.Join(dir, "run"),
	)
	testkit.WriteFile(t, file, config)
	t.Setenv("CONTAINERS_STORAGE_CONF", file)
}

func read(t *testing.T, file string) archive {
	t.Helper()
	blobs := map[string][]byte{}
	f, err := os.Open(file)
	testkit.Must(t, err)
	defer func() { _ = f.Close() }()
	each(t, f, func(header *tar.Header, content []byte) {
		blobs[strings.TrimPrefix(header.Name, "blobs/sha256/")] = content
	})

	type descriptor struct{ Digest string }
	var index struct{ Manifests []descriptor }
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	blob := func(d descriptor) []byte { return blobs[strings.TrimPrefix(d.Digest, "sha256:")] }
	a := archive{files: map[string]*tar.Header{}, sums: map[string]string{}}
	testkit.DecodeJSON(t, blobs["index.json"], &index)
	a.digest = index.Manifests[0].Digest
	testkit.DecodeJSON(t, blob(index.Manifests[0]), &manifest)
	testkit.DecodeJSON(t, blob(manifest.Config), &a.config)
	for _, layer := range manifest.Layers {
		a.packed += int64(len(blob(layer)))
		plain, err := gzip.NewReader(bytes.NewReader(blob(layer)))
		testkit.Must(t, err)
		each(t, plain, func(header *tar.Header, content []byte) {
			a.files[header.Name] = header
			a.sums[header.Name] = fmt.Sprintf("%x", sha256.Sum256(content))
			a.size += header.Size
		})
	}
	return a
}

func each(t *testing.T, r io.Reader, visit func(*tar.Header, []byte)) {
	t.Helper()
	for files := tar.NewReader(r); ; {
		header, err := files.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		testkit.Must(t, err)
		content, err := io.ReadAll(files)
		testkit.Must(t, err)
		visit(header, content)
	}
}

func TestImage(t *testing.T) {
	dir := checkout(t, "here")
	image := build(t, dir, "amd64")

	if got := slices.Sorted(maps.Keys(image.files)); !slices.Equal(got, []string{"ampbridge", "config-sidecar"}) {
		t.Errorf("the image holds %q, want the two programs alone", got)
	}
	for name, header := range image.files {
		if header.FileInfo().Mode().Perm() != 0o755 || header.Uid != 0 || header.Gid != 0 {
			t.Errorf(
				"%s is %o, of %d:%d: want 755, of 0:0, so that nobody in the container may change it",
				name,
				header.Mode,
				header.Uid,
				header.Gid,
			)
		}
	}
	if c := image.config.Config; c.User != "65532:65532" || !slices.Equal(c.Entrypoint, []string{"/ampbridge"}) || c.Cmd != nil {
		t.Errorf("got %+v, want user 65532:65532, entrypoint /ampbridge, no command", c)
	}
	if image.size > sizeBudget {
		t.Errorf("the image has %d bytes, want %d at most", image.size, sizeBudget)
	}
	sizes(t, image)

	t.Run("static, with CA roots", func(t *testing.T) {
		for name, sum := range image.sums {
			path := filepath.Join(dir, "bin", "linux-amd64", name)
			if content, err := os.ReadFile(path); err != nil || fmt.Sprintf("%x", sha256.Sum256(content)) != sum {
				t.Fatalf("%s is not what was built (%v)", name, err)
			}
			program, err := elf.Open(path)
			testkit.Must(t, err)
			for _, segment := range program.Progs {
				if segment.Type == elf.PT_INTERP || segment.Type == elf.PT_DYNAMIC {
					t.Errorf("%s is linked dynamically", name)
				}
			}
			_ = program.Close()
			info, err := buildinfo.ReadFile(path)
			testkit.Must(t, err)
			if text := info.String(); !strings.Contains(text, "golang.org/x/crypto/x509roots/fallback\t") {
				t.Errorf("%s carries no CA roots:\n%s", name, text)
			}
		}
	})

	t.Run("the same from another directory", func(t *testing.T) {
		again := build(t, checkout(t, "some/where/else"), "amd64")
		if again.digest != image.digest {
			t.Errorf("got image %s, want %s; files %v and %v", again.digest, image.digest, again.sums, image.sums)
		}
	})

	t.Run("for the other architecture", func(t *testing.T) {
		other := build(t, dir, "arm64")
		program, err := elf.Open(filepath.Join(dir, "bin", "linux-arm64", "config-sidecar"))
		testkit.Must(t, err)
		defer func() { _ = program.Close() }()
		if other.config.Architecture != "arm64" || program.Machine != elf.EM_AARCH64 {
			t.Errorf("got an image for %s with programs for %s, want arm64", other.config.Architecture, program.Machine)
		}
		if other.files["ampbridge"] == nil || other.files["config-sidecar"] == nil {
			t.Error("programs are missing")
		}
		sizes(t, other)
	})

	t.Run("bill of materials", func(t *testing.T) { billOfMaterials(t, filepath.Join(dir, "bin", "linux-amd64")) })
}

// billOfMaterials names every module of either program, and the toolchain's library.
func billOfMaterials(t *testing.T, bin string) {
	programs := []string{filepath.Join(bin, "ampbridge"), filepath.Join(bin, "config-sidecar")}
	root := tools.RootFor(t)
	t.Chdir(root) // the command reads the product's own licence there
	out := testkit.Exec(t, tools.Path(t, "release"), append([]string{
		"sbom", "-image", reference, "-version", "v0.0.0-test"}, programs...)...)
	var document struct {
		SpecVersion string
		Components  []struct {
			Name, Version string
			Licenses      []map[string]any
		}
		Dependencies []struct{ DependsOn []string }
	}
	testkit.DecodeJSON(t, out, &document)
	if document.SpecVersion != "1.6" {
		t.Errorf("got version %q", document.SpecVersion)
	}
	listed := map[string]bool{}
	for _, c := range document.Components {
		listed[c.Name+"@"+c.Version] = true
		if len(c.Licenses) != 1 {
			t.Errorf("%s@%s has licences %v, want one", c.Name, c.Version, c.Licenses)
		}
	}
	links := len(programs)
	for _, program := range programs {
		info, err := buildinfo.ReadFile(program)
		testkit.Must(t, err)
		links += len(info.Deps) + 1
		for _, m := range info.Deps {
			if !listed[m.Path+"@"+m.Version] {
				t.Errorf("%s@%s is not in the bill of materials", m.Path, m.Version)
			}
		}
		if library := "stdlib@" + strings.TrimPrefix(info.GoVersion, "go"); !listed[library] {
			t.Errorf("%s is not in the bill of materials", library)
		}
	}
	for _, d := range document.Dependencies {
		links -= len(d.DependsOn)
	}
	if links != 0 {
		t.Errorf("%d dependencies between image, programs and modules are missing", links)
	}
}

// sizes are the figures of docs/reference/image.md.
func sizes(t *testing.T, a archive) {
	mb := func(bytes int64) float64 { return float64(bytes) / 1e6 }
	t.Logf("%s: ampbridge %.1f MB, config-sidecar %.1f MB, image %.1f MB, packed %.1f MB",
		a.config.Architecture, mb(a.files["ampbridge"].Size), mb(a.files["config-sidecar"].Size), mb(a.size), mb(a.packed))
}

// TestBuilderContext compares what this package reads out of .dockerignore with
// what a builder copies.
func TestBuilderContext(t *testing.T) {
	dir, work := checkout(t, "here"), t.TempDir()
	recipe, file := filepath.Join(work, "Containerfile"), filepath.Join(work, "image.tar")
	testkit.WriteFile(t, recipe, "FROM scratch\nCOPY . /\n")
	useStore(t, work)
	testkit.Exec(t, "buildah", "build", "--file", recipe, "--tag", "context", dir)
	testkit.Exec(t, "buildah", "push", "context", "oci-archive:"+file+":context")
	var got []string
	for name, header := range read(t, file).files {
		if header.Typeflag == tar.TypeReg {
			got = append(got, name)
		}
	}
	ignore := testkit.ReadFile(t, filepath.Join(dir, ".dockerignore"))
	want, err := buildContext(dir, ignore)
	testkit.Must(t, err)
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("buildah copies %q, want %q", got, want)
	}
}

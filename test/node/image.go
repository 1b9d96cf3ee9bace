//go:build linux

package node

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/ampbridge/ampbridge/test/tools"
)

const pauseImage = "localhost/pause:1"

// An Image is a container image that contains only programs of this machine. It is for programs without a
// Dockerfile in this repository.
type Image struct {
	// Name is the reference that pods use, with registry and tag.
	Name string
	// Files maps paths in the image to files of this machine. The files keep their modes.
	Files map[string]string
	// Dirs are directories in which every user can write.
	Dirs []string
	// User, Entrypoint and WorkingDir are in the image's configuration.
	User, WorkingDir string
	Entrypoint       []string
}

// Write writes the image's archive in the OCI layout.
func (i Image) Write(path string) (err error) {
	// The layer goes to a file first, because its digest precedes it in the archive.
	layer, err := os.CreateTemp(filepath.Dir(path), "layer-")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(layer.Name()) }()
	defer func() { _ = layer.Close() }()
	sum := sha256.New()
	if err := i.writeLayer(io.MultiWriter(layer, sum)); err != nil {
		return fmt.Errorf("node: image %s: %w", i.Name, err)
	}
	digest := fmt.Sprintf("sha256:%x", sum.Sum(nil))
	size, err := layer.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	if _, err := layer.Seek(0, io.SeekStart); err != nil {
		return err
	}
	archive, err := os.Create(path)
	if err != nil {
		return err
	}
	w := ociWriter{tar: tar.NewWriter(archive)}
	w.put(blobPath(digest), size, layer)
	config := w.blob("application/vnd.oci.image.config.v1+json", map[string]any{
		"architecture": runtime.GOARCH, "os": runtime.GOOS,
		"config": map[string]any{"User": i.User, "Entrypoint": i.Entrypoint, "WorkingDir": i.WorkingDir},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{digest}},
	})
	manifest := w.blob("application/vnd.oci.image.manifest.v1+json", map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config,
		"layers": []any{map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size}},
	})
	manifest["annotations"] = map[string]string{"io.containerd.image.name": i.Name}
	w.file("index.json", map[string]any{"schemaVersion": 2, "manifests": []any{manifest}})
	w.file("oci-layout", map[string]any{"imageLayoutVersion": "1.0.0"})
	return w.close(archive)
}

func (i Image) writeLayer(w io.Writer) error {
	layer := tar.NewWriter(w)
	for _, dir := range i.Dirs {
		if err := layer.WriteHeader(&tar.Header{Name: dir[1:] + "/", Typeflag: tar.TypeDir, Mode: 0o1777}); err != nil {
			return err
		}
	}
	for name, source := range i.Files {
		if err := addFile(layer, name[1:], source); err != nil {
			return err
		}
	}
	return layer.Close()
}

func addFile(layer *tar.Writer, name, source string) error {
	file, err := os.Open(source)
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := layer.WriteHeader(&tar.Header{Name: name, Mode: int64(info.Mode().Perm()), Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(layer, file)
	return err
}

// An ociWriter stores the first error, and its close returns it.
type ociWriter struct {
	tar *tar.Writer
	err error
}

func blobPath(digest string) string { return "blobs/sha256/" + digest[len("sha256:"):] }

func (w *ociWriter) put(name string, size int64, content io.Reader) {
	if w.err == nil {
		w.err = w.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: size})
	}
	if w.err == nil {
		_, w.err = io.Copy(w.tar, content)
	}
}

func (w *ociWriter) file(name string, content any) {
	raw, err := json.Marshal(content)
	if w.err == nil {
		w.err = err
	}
	w.put(name, int64(len(raw)), bytes.NewReader(raw))
}

// blob writes a JSON document under its digest, and returns its descriptor.
func (w *ociWriter) blob(mediaType string, content any) map[string]any {
	raw, err := json.Marshal(content)
	if w.err == nil {
		w.err = err
	}
	digest := fmt.Sprintf("sha256:%x", sha256.Sum256(raw))
	w.put(blobPath(digest), int64(len(raw)), bytes.NewReader(raw))
	return map[string]any{"mediaType": mediaType, "digest": digest, "size": len(raw)}
}

func (w *ociWriter) close(archive *os.File) error {
	for _, end := range []func() error{w.tar.Close, archive.Close} {
		if err := end(); w.err == nil {
			w.err = err
		}
	}
	return w.err
}

// buildPause builds the image of the pods' first containers.
func buildPause(ctx context.Context, dir string) error {
	program := filepath.Join(dir, "pause")
	if err := tools.GoBuild(ctx, program, "-buildvcs=false", "-ldflags=-s -w", "github.com/ampbridge/ampbridge/test/node/pause"); err != nil {
		return err
	}
	return Image{
		Name:       pauseImage,
		Files:      map[string]string{"/pause": program},
		Entrypoint: []string{"/pause"},
		User:       "65535:65535",
	}.Write(
		pauseArchive(dir),
	)
}

func pauseArchive(dir string) string { return filepath.Join(dir, "pause.tar") }

//go:build linux && e2e

package image

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/release"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/test/tools"
)

// TestRelease makes a release of the same commit in two directories: every byte is the same, and what somebody changed
// afterwards is found by the documented commands.
func TestRelease(t *testing.T) {
	root := tools.RootFor(t)
	keys := t.TempDir()
	key := filepath.Join(keys, "publisher")
	trusted, err := release.NewKey(t.Context(), key)
	testkit.Must(t, err)
	stranger, err := release.NewKey(t.Context(), filepath.Join(keys, "stranger"))
	testkit.Must(t, err)
	// Of other platforms than the machine's too; all of them take minutes.
	build := func(dir string) (dist string) {
		dist = filepath.Join(t.TempDir(), "dist")
		if err := release.Make(t.Context(), dir, "DIST="+dist, "VERSION=v0.1.0", "REVISION=0123456789abcdef0123456789abcdef01234567",
			"SOURCE_DATE_EPOCH=1700000000", "SIGNING_KEY="+key, "PLATFORMS=linux/amd64 linux/arm64"); err != nil {
			t.Fatal(err)
		}
		return dist
	}
	dist, again := build(checkout(t, "here")), build(checkout(t, "some/where/else"))
	for _, file := range []string{"SHA256SUMS", "SHA256SUMS.sig"} {
		first, second := testkit.ReadFile(t, filepath.Join(dist, file)), testkit.ReadFile(t, filepath.Join(again, file))
		if first != second {
			t.Errorf("%s of two builds differ:\n%s\n%s", file, first, second)
		}
	}
	testkit.Must(t, release.Verify(t.Context(), root, dist, trusted))
	if err := release.Verify(t.Context(), root, dist, stranger); err == nil {
		t.Error("a stranger's signature is taken")
	}

	sums := testkit.ReadFile(t, filepath.Join(dist, "SHA256SUMS"))
	for _, want := range []string{
		"ampbridge-0.1.0-linux-amd64", "ampbridge-0.1.0-linux-arm64", "ampbridge-0.1.0-image.tar", "ampbridge-0.1.0.tgz",
		"ampbridge-0.1.0-linux-amd64.cdx.json", "ampbridge-0.1.0-image-linux-arm64.cdx.json", "ampbridge-0.1.0-notes.md",
		"ampbridge-0.1.0-provenance.intoto.json", "ampbridge-0.1.0-third-party-licenses.txt",
		"ampbridge-0.1.0-linux-amd64.tar.gz", "ampbridge-0.1.0-krew.yaml",
	} {
		if !strings.Contains(sums, "  "+want+"\n") {
			t.Errorf("no checksum of %s", want)
		}
	}
	out := testkit.Exec(t, filepath.Join(dist, "ampbridge-0.1.0-linux-amd64"), "--version")
	if !strings.HasPrefix(out, "ampbridge v0.1.0 ") {
		t.Errorf("the program says %q", out)
	}
	for _, file := range []string{"ampbridge-0.1.0.tgz", "ampbridge-0.1.0-image.tar", "SHA256SUMS"} {
		path := filepath.Join(dist, file)
		content := testkit.ReadFile(t, path)
		changed := []byte(content)
		changed[len(changed)/2] ^= 1
		for _, text := range []string{string(changed), content} {
			testkit.WriteFile(t, path, text)
			err := release.Verify(t.Context(), root, dist, trusted)
			if (err == nil) != (text == content) {
				t.Errorf("%s changed: %t, verified: %v", file, err == nil, err)
			}
		}
	}
}

package tools

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha512"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// TestDownload has setup-envtest download from an index of the test's own, as it does from the internet's.
func TestDownload(t *testing.T) {
	root := RootFor(t)
	var archive bytes.Buffer
	compressed := gzip.NewWriter(&archive)
	files := tar.NewWriter(compressed)
	for _, name := range []string{"etcd", "kube-apiserver", "kubectl"} {
		content := "#!/bin/sh\necho downloaded " + name + "\n"
		err := files.WriteHeader(&tar.Header{Name: "controller-tools/envtest/" + name, Mode: 0o755, Size: int64(len(content)),
			Typeflag: tar.TypeReg})
		if err == nil {
			_, err = files.Write([]byte(content))
		}
		testkit.Must(t, err)
	}
	testkit.Must(t, errors.Join(files.Close(), compressed.Close()))
	sum := fmt.Sprintf("%x", sha512.Sum512(archive.Bytes()))
	index := func(version, sum string) string {
		name := fmt.Sprintf("envtest-%s-%s-%s.tar.gz", version, runtime.GOOS, runtime.GOARCH)
		return fmt.Sprintf("releases:\n  %s:\n    %s:\n      hash: %s\n      selfLink: http://HOST/archive\n", version, name, sum)
	}

	for _, test := range []struct {
		name, index string
		status      int
		want        string // of the error; empty: downloaded
	}{
		{name: "another patch release", index: index("v1.36.0", sum)},
		{name: "another minor version", index: index("v1.30.0", sum), want: "setup-envtest"},
		{name: "another checksum", index: index("v1.36.0", strings.Repeat("0", len(sum))), want: "setup-envtest"},
		{name: "no index", status: http.StatusNotFound, want: "404"},
	} {
		t.Run(test.name, func(t *testing.T) {
			cache := t.TempDir()
			t.Setenv("AMPBRIDGE_TOOLS", cache)
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/archive" {
					_, _ = w.Write(archive.Bytes())
					return
				}
				if test.status != 0 {
					w.WriteHeader(test.status)
				}
				_, _ = fmt.Fprint(w, strings.ReplaceAll(test.index, "HOST", r.Host))
			}))
			defer server.Close()
			t.Setenv(envtestVariable, server.URL)
			for _, name := range []string{"etcd", "kube-apiserver"} {
				tool, err := lookup(name)
				testkit.Must(t, err)
				path := filepath.Join(cache, name)
				err = tool.download(t.Context(), root, path, t.Output())
				if test.want != "" {
					if err == nil || !strings.Contains(err.Error(), test.want) {
						t.Errorf("%s: got %v, want %q", name, err, test.want)
					}
					continue
				}
				testkit.Must(t, err)
				content, err := os.ReadFile(path)
				if err != nil || !executable(path) || !strings.Contains(string(content), "downloaded "+name+"\n") {
					t.Errorf("%s: got %q, %v", name, content, err)
				}
			}
		})
	}
}

// TestNoDownload has no index to ask.
func TestNoDownload(t *testing.T) {
	for _, test := range []struct{ tool, index string }{{"etcd", "none"}, {"kube-controller-manager", ""}, {"prometheus", ""}} {
		t.Setenv(envtestVariable, test.index)
		tool, err := lookup(test.tool)
		testkit.Must(t, err)
		if err := tool.download(t.Context(), "", "", t.Output()); !errors.Is(err, errNoDownload) {
			t.Errorf("%s from %q: got %v", test.tool, test.index, err)
		}
	}
}

// TestDownloadHangs: a firewall may swallow the question.
func TestDownloadHangs(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer server.Close()
	t.Setenv(envtestVariable, server.URL)
	tool, err := lookup("etcd")
	testkit.Must(t, err)
	if err := tool.download(t.Context(), "", "", t.Output()); err == nil || errors.Is(err, errNoDownload) {
		t.Errorf("got %v, want that the index does not answer", err)
	}
}

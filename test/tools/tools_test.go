package tools

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// A tool's line in the table and the module that pins it must not drift apart.
func TestTableMatchesModules(t *testing.T) {
	root := RootFor(t)
	seen := make(map[string]bool)
	pinned := make(map[string]bool)
	for _, tool := range Tools() {
		t.Run(tool.Name, func(t *testing.T) {
			if seen[tool.Name] {
				t.Errorf("name %q appears twice", tool.Name)
			}
			seen[tool.Name], pinned[tool.Dir] = true, true
			content := testkit.ReadFile(t, filepath.Join(tool.moduleDir(root), "go.mod"))
			module, version, ok := strings.Cut(tool.Source, "@")
			own := tool.Package == ownModules+tool.Dir
			if !ok || !own && !strings.HasPrefix(tool.Package, module) {
				t.Errorf("Source %q: want module@version, the module of package %s", tool.Source, tool.Package)
			}
			patterns := map[string]string{
				"requires no": `(?m)^(require)?\s+` + regexp.QuoteMeta(module+" "+version) + `( //.*)?$`,
				"has no tool": `(?m)^(tool)?\s+` + regexp.QuoteMeta(tool.Package) + `$`,
			}
			if own {
				delete(patterns, "has no tool")
			}
			for what, pattern := range patterns {
				if !regexp.MustCompile(pattern).MatchString(content) {
					t.Errorf("%s/go.mod %s line that matches %s", tool.Dir, what, pattern)
				}
			}
			if tool.Version == "" || tool.ColdBuild == 0 {
				t.Errorf("Version %q and ColdBuild %s: want both", tool.Version, tool.ColdBuild)
			}
		})
	}

	for _, name := range []string{
		"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy",
		"prometheus", "prometheus-config-reloader", "prometheus-operator", "golangci-lint",
	} {
		if !seen[name] {
			t.Errorf("no tool %q", name)
		}
	}
	modules, err := filepath.Glob(filepath.Join(root, "test", "tools", "*", "go.mod"))
	testkit.Must(t, err)
	for _, module := range modules {
		if dir := filepath.Base(filepath.Dir(module)); !pinned[dir] {
			t.Errorf("module %s pins no tool", dir)
		}
	}
}

func TestUnknownTool(t *testing.T) {
	_, err := Find(t.Context(), "kube-apiservr", t.Output())
	if err == nil || !strings.Contains(err.Error(), `no tool "kube-apiservr": want one of etcd, kube-apiserver,`) {
		t.Errorf("got %v, want the names that there are", err)
	}
}

func TestCacheNameFollowsWhatIsBuilt(t *testing.T) {
	t.Setenv("AMPBRIDGE_TOOLS", t.TempDir())
	module := map[string]string{"go.mod": "module m\n", "go.sum": "sum\n"}
	tool := Tool{Name: "hello", Dir: "hello", Package: "m/hello", Version: "v1"}
	name := func(t *testing.T, tool Tool, module map[string]string) string {
		root := t.TempDir()
		writeModule(t, root, tool, module)
		path, err := tool.cached(root)
		testkit.Must(t, err)
		return path
	}
	first := name(t, tool, module)
	if base := filepath.Base(first); !regexp.MustCompile(`^hello-v1-[0-9a-f]{12}$`).MatchString(base) {
		t.Errorf("got %q, want hello-v1- and twelve hexadecimal digits", base)
	}

	for _, test := range []struct {
		name   string
		change func(*Tool, map[string]string)
		same   bool
	}{
		{"nothing", func(*Tool, map[string]string) {}, true},
		{"a note in the table", func(tool *Tool, _ map[string]string) { tool.ColdBuild++ }, true},
		{"go.mod", func(_ *Tool, module map[string]string) { module["go.mod"] = "module m // \n" }, false},
		{"go.sum", func(_ *Tool, module map[string]string) { module["go.sum"] = "other\n" }, false},
		{"a line moved between files", func(_ *Tool, module map[string]string) {
			module["go.mod"], module["go.sum"] = "module m\nsum\n", ""
		}, false},
		{"linker flags", func(tool *Tool, _ map[string]string) { tool.LDFlags = "-s" }, false},
		{"package", func(tool *Tool, _ map[string]string) { tool.Package = "m/other" }, false},
		{"version", func(tool *Tool, _ map[string]string) { tool.Version = "v2" }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			changed, files := tool, map[string]string{"go.mod": module["go.mod"], "go.sum": module["go.sum"]}
			test.change(&changed, files)
			if got := name(t, changed, files); (got == first) != test.same {
				t.Errorf("got %s after %s, want the same: %t", got, first, test.same)
			}
		})
	}
}

func TestInstalled(t *testing.T) {
	for _, test := range []struct {
		name, tool string
		assets     string // what the tool in $KUBEBUILDER_ASSETS says; empty: it has none
		path       string // what the tool on PATH says; empty: it has none
		want       string // assets, path, or nothing
	}{
		{name: "nowhere", tool: "etcd"},
		{name: "any etcd on PATH", tool: "etcd", path: "etcd Version: 3.4.0", want: "path"},
		{name: "assets before PATH", tool: "kube-apiserver", assets: "Kubernetes v1.30.0", path: "Kubernetes v1.29.0", want: "assets"},
		{name: "assets without the tool", tool: "kube-apiserver", path: "Kubernetes v1.30.0", want: "path"},
		{name: "assets are the control plane's", tool: "prometheus", assets: "prometheus, version 3.15.0 (branch: HEAD)"},
		{name: "prometheus that signs", tool: "prometheus", path: "prometheus, version 3.5.0 (branch: HEAD, revision: 1)", want: "path"},
		{name: "later minor is more than one digit", tool: "prometheus", path: "prometheus, version 3.15.0 (branch: HEAD)", want: "path"},
		{name: "later major", tool: "prometheus", path: "prometheus, version 4.0.0 (branch: HEAD)", want: "path"},
		{name: "prometheus of the older SDK", tool: "prometheus", path: "prometheus, version 3.4.2 (branch: HEAD)"},
		{name: "prometheus that does not sign", tool: "prometheus", path: "prometheus, version 2.42.0+ds (branch: debian/sid)"},
		{name: "a version of its own", tool: "prometheus-3.1", path: "prometheus, version 3.1.0 (branch: HEAD, revision: 1)"},
		{name: "another prometheus", tool: "prometheus", path: "usage: prometheus MODEL"},
		{name: "older linter", tool: "golangci-lint", path: "golangci-lint has version 1.64.8 built with go1.24"},
		{name: "linter", tool: "golangci-lint", path: "golangci-lint has version v2.15.0 built with go1.26", want: "path"},
	} {
		t.Run(test.name, func(t *testing.T) {
			assets, path := t.TempDir(), t.TempDir()
			t.Setenv("KUBEBUILDER_ASSETS", assets)
			t.Setenv("PATH", path)
			places := map[string]string{"": ""}
			for place, said := range map[string][2]string{"assets": {assets, test.assets}, "path": {path, test.path}} {
				places[place] = filepath.Join(said[0], test.tool)
				if said[1] != "" {
					writeScript(t, places[place], "echo '"+said[1]+"'")
				}
			}
			tool, err := lookup(test.tool)
			testkit.Must(t, err)
			got, ok := tool.installed(t.Context())
			if got != places[test.want] || ok != (test.want != "") {
				t.Errorf("got %q, %t, want %q of %v", got, ok, test.want, places)
			}
		})
	}
}

func TestInstalledButBroken(t *testing.T) {
	path := t.TempDir()
	t.Setenv("PATH", path)
	writeScript(t, filepath.Join(path, "prometheus"), "echo 'prometheus, version 3.15.0'; exit 1")
	tool, err := lookup("prometheus")
	testkit.Must(t, err)
	if got, ok := tool.installed(t.Context()); ok {
		t.Errorf("got %s, whose --version fails", got)
	}
}

// hello is a tool that builds at once and needs no module but its own.
var (
	hello       = Tool{Name: "hello", Dir: "hello", Package: "example.com/hello", Version: "v1"}
	helloModule = map[string]string{
		"go.mod":  "module example.com/hello\n\ngo 1.26\n",
		"go.sum":  "",
		"main.go": "package main\n\nfunc main() {}\n",
	}
)

func TestBuild(t *testing.T) {
	root, cache := t.TempDir(), t.TempDir()
	t.Setenv("GOFLAGS", "-mod=vendor") // the caller's, which must not reach the build
	writeModule(t, root, hello, helloModule)
	path := filepath.Join(cache, "tools", "hello-v1")

	// Two at once: one builds, the other waits and takes what the first has built.
	var progress [2]bytes.Buffer
	results := make(chan error)
	for i := range progress {
		go func() { results <- hello.build(t.Context(), root, path, &progress[i]) }()
	}
	for range progress {
		testkit.Must(t, <-results)
	}
	said := progress[0].String() + progress[1].String()
	if got := strings.Count(said, "tools: built hello in"); got != 1 {
		t.Errorf("got %d builds, want 1; progress:\n%s", got, said)
	}
	if !executable(path) {
		t.Errorf("%s is not there", path)
	}
	wantFiles(t, filepath.Dir(path), "build.lock", "hello-v1")
}

func TestBuildFails(t *testing.T) {
	root, cache := t.TempDir(), t.TempDir()
	module := map[string]string{"go.mod": helloModule["go.mod"], "go.sum": "", "main.go": "package main\n\nfunc main() { oops() }\n"}
	writeModule(t, root, hello, module)
	err := hello.build(t.Context(), root, filepath.Join(cache, "hello-v1"), t.Output())
	if err == nil || !strings.Contains(err.Error(), "undefined: oops") {
		t.Errorf("got %v, want what the compiler said", err)
	}
	wantFiles(t, cache, "build.lock")
}

func TestLockHeld(t *testing.T) {
	path := filepath.Join(t.TempDir(), "build.lock")
	unlock, err := lock(t.Context(), path, func() { t.Error("a free lock is waited for") })
	testkit.Must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	// The second waits, says so, and gives up with its context.
	if _, err := lock(ctx, path, cancel); !errors.Is(err, context.Canceled) {
		t.Errorf("a held lock: got %v, want %v", err, context.Canceled)
	}
	unlock()
	unlock, err = lock(t.Context(), path, func() { t.Error("a freed lock is waited for") })
	testkit.Must(t, err)
	unlock()
}

func TestRootFromAnotherDirectory(t *testing.T) {
	t.Chdir("cmd")
	root := RootFor(t)
	content := testkit.ReadFile(t, filepath.Join(root, "go.mod"))
	if !strings.HasPrefix(content, "module github.com/ampbridge/ampbridge\n") {
		t.Errorf("%s holds another module:\n%.100s", root, content)
	}
}

func writeModule(t *testing.T, root string, tool Tool, files map[string]string) {
	t.Helper()
	dir := tool.moduleDir(root)
	testkit.Must(t, os.MkdirAll(dir, 0o750))
	for name, content := range files {
		testkit.WriteFile(t, filepath.Join(dir, name), content)
	}
}

func writeScript(t *testing.T, path, command string) {
	t.Helper()
	testkit.Must(t, os.WriteFile(path, []byte("#!/bin/sh\n"+command+"\n"), 0o700))
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	testkit.Must(t, err)
	var got []string
	for _, entry := range entries {
		got = append(got, entry.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("%s holds %q, want %q", dir, got, want)
	}
}

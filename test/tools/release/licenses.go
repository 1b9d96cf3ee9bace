package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/google/licensecheck"
	gomodule "golang.org/x/mod/module"
)

// covered is how much of a licence file must be text of known licences, in percent: the rest is copyright lines.
const covered = 75

// A module is one that is linked into a program; the standard library is one too.
type module struct{ path, version string }

// A license is what a module's licence files say.
type license struct {
	ids  []string // SPDX identifiers
	text string
}

var licenseFile = regexp.MustCompile(`(?i)^(licen[cs]e|copying)([-._].*)?$`)

// goEnv returns where the Go toolchain and the modules are.
var goEnv = sync.OnceValues(func() ([]string, error) {
	out, err := exec.Command("go", "env", "GOROOT", "GOMODCACHE").Output()
	return strings.Split(strings.TrimSpace(string(out)), "\n"), err
})

// license reads the module's licence files, which are beside the sources that were compiled.
func (m module) license() (license, error) {
	env, err := goEnv()
	if err != nil || len(env) != 2 {
		return license{}, fmt.Errorf("go env GOROOT GOMODCACHE: %q, %w", env, err)
	}
	dir := env[0]
	if m.path != "stdlib" {
		path, pathErr := gomodule.EscapePath(m.path)
		version, versionErr := gomodule.EscapeVersion(m.version)
		if err := errors.Join(pathErr, versionErr); err != nil {
			return license{}, err
		}
		dir = filepath.Join(env[1], filepath.FromSlash(path)+"@"+version)
	}
	l, err := readLicense(dir)
	if err != nil {
		return license{}, fmt.Errorf("the licence of %s %s: %w", m.path, m.version, err)
	}
	return l, nil
}

func ownLicense() (license, error) { return readLicense(".") }

func readLicense(dir string) (license, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return license{}, err
	}
	ids, text := map[string]bool{}, ""
	for _, entry := range entries {
		if entry.IsDir() || !licenseFile.MatchString(entry.Name()) || filepath.Ext(entry.Name()) == ".go" {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			return license{}, err
		}
		coverage := licensecheck.Scan(content)
		if coverage.Percent < covered {
			return license{}, fmt.Errorf("%s: only %.0f %% of it is a known licence", filepath.Join(dir, entry.Name()), coverage.Percent)
		}
		for _, match := range coverage.Match {
			if !match.IsURL {
				ids[match.ID] = true
			}
		}
		text += strings.TrimSpace(string(content)) + "\n\n"
	}
	if len(ids) == 0 {
		return license{}, fmt.Errorf("%s has no licence file", dir)
	}
	return license{ids: slices.Sorted(maps.Keys(ids)), text: text}, nil
}

// writeLicenses writes the texts that the licences want to go with the programs, each module's once.
func writeLicenses(w io.Writer, paths []string) error {
	modules := map[module]bool{}
	for _, path := range paths {
		program, err := os.Open(path)
		if err != nil {
			return err
		}
		list, err := modulesOf(program)
		if err := errors.Join(err, program.Close()); err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for _, m := range list {
			modules[m] = true
		}
	}
	sorted := slices.SortedFunc(maps.Keys(modules), func(a, b module) int { return strings.Compare(a.path, b.path) })
	for _, m := range sorted {
		l, err := m.license()
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(w, "%s %s (%s)\n\n%s%s\n\n", m.path, m.version, strings.Join(l.ids, " AND "), l.text,
			strings.Repeat("-", 80)); err != nil {
			return err
		}
	}
	return nil
}

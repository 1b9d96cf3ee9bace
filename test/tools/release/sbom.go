package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"
)

// writeSBOM lists what is in Go programs. They say it themselves: the Go toolchain notes every module, with its
// version, in what it builds (go version -m).
func writeSBOM(w io.Writer, o options, paths []string) error {
	components := map[string]cdx.Component{}
	dependencies := map[string][]string{}
	own, err := ownLicense()
	if err != nil {
		return err
	}
	const root = "release"
	all := sha256.New()
	for _, path := range paths {
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		sum := fmt.Sprintf("%x", sha256.Sum256(content))
		_, _ = fmt.Fprintln(all, filepath.Base(path), sum)
		program := "program:" + filepath.Base(path)
		components[program] = cdx.Component{
			BOMRef: program, Type: cdx.ComponentTypeApplication, Name: base(path), Version: o.version, Licenses: choice(own.ids),
			Hashes: &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: sum}},
		}
		dependencies[root] = append(dependencies[root], program)
		modules, err := modulesOf(bytes.NewReader(content))
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for _, m := range modules {
			license, err := m.license()
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			purl := "pkg:golang/" + m.path + "@" + m.version
			components[purl] = cdx.Component{
				BOMRef: purl, Type: cdx.ComponentTypeLibrary, Name: m.path, Version: m.version, PackageURL: purl, Licenses: choice(license.ids),
			}
			dependencies[program] = append(dependencies[program], purl)
		}
	}

	id := all.Sum(nil)[:16]
	id[6], id[8] = id[6]&0x0f|0x80, id[8]&0x3f|0x80 // a UUID of version 8: of the maker's own choice
	bom := cdx.NewBOM()
	bom.SerialNumber = fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
	bom.Metadata = &cdx.Metadata{
		Timestamp: o.time().Format(time.RFC3339),
		Tools: &cdx.ToolsChoice{Components: &[]cdx.Component{
			{Type: cdx.ComponentTypeApplication, Name: "ampbridge make release", Version: o.version}}},
		Component: &cdx.Component{BOMRef: root, Type: cdx.ComponentTypeApplication, Name: "ampbridge", Version: o.version,
			Licenses: choice(own.ids), ExternalReferences: &[]cdx.ExternalReference{{Type: cdx.ERTypeVCS, URL: source}}},
	}
	if o.image != "" {
		repository, tag, _ := strings.Cut(o.image, ":")
		bom.Metadata.Component.Type, bom.Metadata.Component.Name = cdx.ComponentTypeContainer, o.image
		bom.Metadata.Component.PackageURL = "pkg:oci/" + filepath.Base(repository) + "?repository_url=" + repository + "&tag=" + tag
	}
	var list []cdx.Component
	var graph []cdx.Dependency
	for _, ref := range slices.Sorted(maps.Keys(components)) {
		list = append(list, components[ref])
	}
	for _, ref := range slices.Sorted(maps.Keys(dependencies)) {
		graph = append(graph, cdx.Dependency{Ref: ref, Dependencies: new(dependencies[ref])})
	}
	bom.Components, bom.Dependencies = &list, &graph
	return cdx.NewBOMEncoder(w, cdx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false).EncodeVersion(bom, cdx.SpecVersion1_6)
}

// choice is one licence, or an expression of several.
func choice(ids []string) *cdx.Licenses {
	if len(ids) == 1 {
		return &cdx.Licenses{{License: &cdx.License{ID: ids[0]}}}
	}
	return &cdx.Licenses{{Expression: strings.Join(ids, " AND ")}}
}

// modulesOf returns every module of a program, the standard library first.
func modulesOf(program io.ReaderAt) ([]module, error) {
	info, err := buildinfo.Read(program)
	if err != nil {
		return nil, err
	}
	modules := []module{{path: "stdlib", version: strings.TrimPrefix(info.GoVersion, "go")}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		modules = append(modules, module{path: m.Path, version: m.Version})
	}
	return modules, nil
}

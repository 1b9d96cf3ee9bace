// Command sbom writes the bill of materials of an image that is made of Go
// programs and nothing else, as SPDX 2.3 in JSON. What is in the programs they
// say themselves: the Go toolchain notes every module, with its version, in what
// it builds (go version -m).
//
//	sbom -name IMAGE -version VERSION [-created UNIXTIME] PROGRAM...
//
// The document depends on its input alone. It is read back and validated before
// it is printed.
package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spdx/tools-golang/json"
	"github.com/spdx/tools-golang/spdx"
	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdxlib"
)

// unknown is SPDX's word for what this program does not find out: licences are
// in the modules' sources, which are not read.
const unknown = "NOASSERTION"

func main() {
	name := flag.String("name", "", "the image's `NAME`, without a tag")
	version := flag.String("version", "", "its `VERSION`")
	created := flag.Int64("created", 0, "`SECONDS` since 1970 to note as the document's time")
	flag.Parse()
	if err := run(os.Stdout, *name, *version, time.Unix(*created, 0), flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "sbom:", err)
		os.Exit(1)
	}
}

func run(w io.Writer, name, version string, created time.Time, programs []string) error {
	if name == "" || version == "" || len(programs) == 0 {
		return errors.New("want -name IMAGE -version VERSION [-created UNIXTIME] and the paths of the image's programs")
	}
	b := builder{packages: map[common.ElementID]*spdx.Package{}}
	image := b.add("image", name, version, "CONTAINER", "pkg:oci/"+filepath.Base(name)+"?repository_url="+name+"&tag="+version)
	b.relate("DOCUMENT", common.TypeRelationshipDescribe, image)
	all := sha256.New()
	for _, path := range programs {
		sum, err := b.program(image, path)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		_, _ = fmt.Fprintln(all, filepath.Base(path), sum)
	}
	document := &spdx.Document{
		SPDXVersion: spdx.Version, DataLicense: spdx.DataLicense, SPDXIdentifier: "DOCUMENT", DocumentName: name + ":" + version,
		// Unique by the programs' own sums.
		DocumentNamespace: fmt.Sprintf("https://github.com/ampbridge/ampbridge/spdx/%x", all.Sum(nil)),
		CreationInfo: &spdx.CreationInfo{
			Created: created.UTC().Format(time.RFC3339), Creators: []common.Creator{{CreatorType: "Tool", Creator: "ampbridge-sbom"}},
		},
		Relationships: b.relationships,
	}
	for _, id := range slices.Sorted(maps.Keys(b.packages)) {
		document.Packages = append(document.Packages, b.packages[id])
	}
	var text bytes.Buffer
	if err := json.Write(document, &text, json.Indent("  ")); err != nil {
		return err
	}
	again, err := json.Read(bytes.NewReader(text.Bytes()))
	if err == nil {
		err = spdxlib.ValidateDocument(again)
	}
	if err != nil {
		return fmt.Errorf("the document is not valid SPDX: %w", err)
	}
	_, err = w.Write(text.Bytes())
	return err
}

// A builder collects packages, each once, and how they hang together.
type builder struct {
	packages      map[common.ElementID]*spdx.Package
	relationships []*spdx.Relationship
}

// program adds what a program consists of, and returns its sum.
func (b *builder) program(image common.ElementID, path string) (sum string, err error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	info, err := buildinfo.Read(bytes.NewReader(content))
	if err != nil {
		return "", err
	}
	sum = fmt.Sprintf("%x", sha256.Sum256(content))
	program := b.add("program", filepath.Base(path), sum[:12], "APPLICATION", "")
	b.packages[program].PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: sum}}
	b.relate(image, common.TypeRelationshipContains, program)
	goVersion := strings.TrimPrefix(info.GoVersion, "go")
	b.relate(program, common.TypeRelationshipStaticLink, b.add("module", "stdlib", goVersion, "LIBRARY", "pkg:golang/stdlib@"+goVersion))
	for _, module := range info.Deps {
		if module.Replace != nil {
			module = module.Replace
		}
		b.relate(program, common.TypeRelationshipStaticLink, b.module(module))
	}
	return sum, nil
}

func (b *builder) module(m *debug.Module) common.ElementID {
	id := b.add("module", m.Path, m.Version, "LIBRARY", "pkg:golang/"+m.Path+"@"+m.Version)
	b.packages[id].PackageSourceInfo = "go.sum: " + m.Sum
	return id
}

var notInIDs = regexp.MustCompile(`[^A-Za-z0-9.-]+`)

func (b *builder) add(kind, name, version, purpose, purl string) common.ElementID {
	id := common.ElementID(notInIDs.ReplaceAllString(kind+"-"+name+"-"+version, "-"))
	if b.packages[id] != nil {
		return id
	}
	p := &spdx.Package{
		PackageName: name, PackageSPDXIdentifier: id, PackageVersion: version, PrimaryPackagePurpose: purpose,
		PackageDownloadLocation: unknown, PackageLicenseConcluded: unknown, PackageLicenseDeclared: unknown, PackageCopyrightText: unknown,
	}
	if purl != "" {
		p.PackageExternalReferences = []*spdx.PackageExternalReference{{Category: "PACKAGE-MANAGER", RefType: "purl", Locator: purl}}
	}
	b.packages[id] = p
	return id
}

func (b *builder) relate(a common.ElementID, how string, to common.ElementID) {
	b.relationships = append(b.relationships, &spdx.Relationship{
		RefA: common.MakeDocElementID("", string(a)), RefB: common.MakeDocElementID("", string(to)), Relationship: how,
	})
}

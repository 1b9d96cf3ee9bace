// Command release writes the files of a release that need more than a compiler: the container image for several
// platforms, the bill of materials with licences, the licence texts, and the provenance. `make release` calls it.
//
// Each file depends on its input alone, so that two runs give the same bytes.
package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// source is where the project is published.
const source = "https://github.com/ampbridge/ampbridge"

const usage = `usage:
  release image -image NAME:TAG [options] OS/ARCH=DIRECTORY...   the image's OCI layout as a tar file
  release sbom [options] PROGRAM...                              CycloneDX 1.6, one for these programs
  release licenses [options] PROGRAM...                          the texts of all licences
  release provenance [options] FILE...                           an in-toto statement, SLSA provenance v1
  release archive [options] NAME=FILE...                         a tar.gz of these files, for krew
  release krew [options] ARCHIVE...                              krew's manifest of the kubectl plugin
  release push FILE NAME:TAG                                     pushes that tar file, and prints the digest
Output goes to standard output.

options:`

// options are common to all commands.
type options struct {
	image, version, revision, builder string
	created                           int64
}

func (o options) time() time.Time { return time.Unix(o.created, 0).UTC() }

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}

func run(args []string, w io.Writer) error {
	var o options
	flags := flag.NewFlagSet("release", flag.ExitOnError)
	flags.StringVar(&o.image, "image", "", "the image's `NAME:TAG`")
	flags.StringVar(&o.version, "version", "", "the release, such as `v0.1.0`")
	flags.StringVar(&o.revision, "revision", "", "the `COMMIT`, with -dirty if files are changed beside it")
	flags.StringVar(&o.builder, "builder", "", "`URL` of what builds the release")
	flags.Int64Var(&o.created, "created", 0, "`SECONDS` since 1970, the time of everything")
	flags.Usage = func() {
		_, _ = fmt.Fprintln(flags.Output(), usage)
		flags.PrintDefaults()
	}
	if len(args) == 0 {
		flags.Usage()
		os.Exit(2)
	}
	_ = flags.Parse(args[1:]) // exits on an error
	rest := flags.Args()
	if len(rest) == 0 {
		return fmt.Errorf("%s: no file is named; see release -h", args[0])
	}
	switch args[0] {
	case "image":
		return writeImage(w, o, rest)
	case "sbom":
		return writeSBOM(w, o, rest)
	case "licenses":
		return writeLicenses(w, rest)
	case "provenance":
		return writeProvenance(w, o, rest)
	case "archive":
		return writeArchive(w, o, rest)
	case "krew":
		return writeKrew(w, o, rest)
	case "push":
		if len(rest) != 2 {
			return fmt.Errorf("push: want FILE and NAME:TAG, got %q", rest)
		}
		return push(w, rest[0], rest[1])
	}
	return fmt.Errorf("no command %q: want image, sbom, licenses, provenance, archive, krew or push", args[0])
}

// base is the name of a file as it stands in the release.
func base(path string) string { return strings.TrimSuffix(filepath.Base(path), ".exe") }

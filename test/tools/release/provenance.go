package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	provenance "github.com/in-toto/attestation/go/predicates/provenance/v1"
	intoto "github.com/in-toto/attestation/go/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	predicateType = "https://slsa.dev/provenance/v1"
	// buildType is explained at that place.
	buildType = source + "/blob/main/docs/design/release.md#build-type"
)

// writeProvenance says from which commit, with which parameters and by what the files were built. It has no time of
// the build, which would differ between two runs.
func writeProvenance(w io.Writer, o options, files []string) error {
	commit, modified := strings.CutSuffix(o.revision, "-dirty")
	if commit == "" || o.version == "" || o.builder == "" {
		return fmt.Errorf("provenance: -version, -revision and -builder are needed")
	}
	external, err := structpb.NewStruct(map[string]any{"version": o.version})
	if err != nil {
		return err
	}
	internal, err := structpb.NewStruct(map[string]any{"go": strings.TrimPrefix(runtime.Version(), "go"), "modified": modified})
	if err != nil {
		return err
	}
	predicate := &provenance.Provenance{
		BuildDefinition: &provenance.BuildDefinition{
			BuildType: buildType, ExternalParameters: external, InternalParameters: internal,
			ResolvedDependencies: []*intoto.ResourceDescriptor{{
				Uri: "git+" + source + "@refs/tags/" + o.version, Digest: map[string]string{"gitCommit": commit},
			}},
		},
		RunDetails: &provenance.RunDetails{Builder: &provenance.Builder{Id: o.builder}},
	}
	if err := predicate.Validate(); err != nil {
		return err
	}
	text, err := protojson.Marshal(predicate)
	if err != nil {
		return err
	}
	statement := &intoto.Statement{Type: intoto.StatementTypeUri, PredicateType: predicateType, Predicate: &structpb.Struct{}}
	if err := protojson.Unmarshal(text, statement.Predicate); err != nil {
		return err
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		statement.Subject = append(statement.Subject, &intoto.ResourceDescriptor{
			Name: filepath.Base(file), Digest: map[string]string{"sha256": fmt.Sprintf("%x", sha256.Sum256(content))},
		})
	}
	if err := statement.Validate(); err != nil {
		return err
	}
	if text, err = protojson.Marshal(statement); err != nil {
		return err
	}
	// protojson varies its spaces on purpose.
	var indented bytes.Buffer
	if err := json.Indent(&indented, text, "", "  "); err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, indented.String())
	return err
}

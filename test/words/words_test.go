package words

import (
	"go/scanner"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// root is the repository.
const root = "../.."

// prose returns the comments and strings of a Go file. Comments that follow each other become
// one text, because a phrase can go over a line break.
func prose(source []byte) (texts []string) {
	var s scanner.Scanner
	files := token.NewFileSet()
	s.Init(files.AddFile("", -1, len(source)), source, nil, scanner.ScanComments)
	var last token.Token
	for {
		_, tok, literal := s.Scan()
		switch {
		case tok == token.EOF:
			return texts
		case tok == token.COMMENT && last == token.COMMENT:
			texts[len(texts)-1] += "\n" + literal
		case tok == token.COMMENT, tok == token.STRING:
			texts = append(texts, literal)
		}
		last = tok
	}
}

func TestShippedTextIsPlain(t *testing.T) {
	var read int
	testkit.Must(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, _ := filepath.Rel(root, path)
		if entry.IsDir() {
			if slices.Contains([]string{".git", "bin", "dist", "docs", "test"}, name) || entry.Name() == "testdata" {
				return filepath.SkipDir
			}
			return nil
		}
		isGo := strings.HasSuffix(name, ".go")
		configuration := slices.Contains([]string{"charts", ".ci", ".github", "Makefile"}, strings.Split(name, string(filepath.Separator))[0])
		if strings.HasSuffix(name, "_test.go") || (!isGo && !configuration) {
			return nil
		}
		texts := []string{testkit.ReadFile(t, path)}
		read++
		if isGo {
			texts = prose([]byte(texts[0]))
		}
		for _, text := range texts {
			for _, problem := range Find(text) {
				t.Errorf("%s: %s\n%.300s", name, problem, text)
			}
		}
		return nil
	}))
	if read < 200 {
		t.Errorf("only %d files were read", read)
	}
}

func TestFind(t *testing.T) {
	for text, want := range map[string]int{
		"// IsZero tells whether no ARN was given.":     1,
		"// IsZero tells\n// whether no ARN was given.": 1,
		"# it begins Anew":                              1,
		"it was mended":                                 1,
		"amend, recommend, wrung":                       0,
		"in steps, not body":                            0,
		"nobody is trusted":                             1,
		"nobody is the user 65534":                      0,
		"runs as the user nobody":                       0,
	} {
		if got := Find(text); len(got) != want {
			t.Errorf("%q: %q, want %d", text, got, want)
		}
	}
	source := "package p\n\n// Whoever reads.\nvar nobody = 1 // anew\nconst s = `in step`\n"
	if got := strings.Join(prose([]byte(source)), "|"); got != "// Whoever reads.|// anew|`in step`" {
		t.Errorf("prose: %q", got)
	}
}

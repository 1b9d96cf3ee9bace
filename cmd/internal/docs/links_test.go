package docs

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const repository = "https://github.com/ampbridge/ampbridge/blob/main/"

// resolve returns what is wrong with a reference to a file of the repository.
func resolve(t *testing.T, target, anchor string) string {
	t.Helper()
	if _, err := os.Stat(filepath.Join(root, target)); err != nil {
		return "there is no " + target
	}
	if anchor != "" && strings.HasSuffix(target, ".md") && !anchors(read(t, target))[anchor] {
		return target + " has no heading with the anchor #" + anchor
	}
	return ""
}

func TestLinksOfPages(t *testing.T) {
	link := regexp.MustCompile(`\]\(<?([^)\s>]+)>?\)|(?:src|srcset|href)="([^"]+)"|^\[[^]]+\]: (\S+)$`)
	count := 0
	for _, page := range pages(t) {
		for _, l := range lines(read(t, page)) {
			if l.code {
				continue
			}
			for _, found := range link.FindAllStringSubmatch(l.text, -1) {
				target, anchor, _ := strings.Cut(found[1]+found[2]+found[3], "#")
				file, own := strings.CutPrefix(target, repository)
				switch {
				case own:
				case strings.Contains(target, ":"):
					continue
				case target == "":
					file = page
				default:
					file = path.Join(path.Dir(page), target)
				}
				count++
				if wrong := resolve(t, file, anchor); wrong != "" {
					t.Errorf("%s:%d: %s", page, l.number, wrong)
				}
			}
		}
	}
	if count < 100 {
		t.Errorf("only %d links", count)
	}
}

// Code, chart, workflows and tests name pages by their path from the root.
func TestLinksOfSources(t *testing.T) {
	named := regexp.MustCompile(`([\w:/.-]*)\bdocs/([\w./-]+\.md)(?:\\?#([\w-]+))?`)
	count := 0
	all := sources(t, ".go", ".yaml", ".yml", ".json", ".tpl", ".tf", ".txt", ".md", ".sh", ".template")
	for _, file := range append(all, "Makefile", "Dockerfile", ".github/CODEOWNERS") {
		if _, err := os.Stat(filepath.Join(root, file)); err != nil || strings.HasPrefix(file, "cmd/internal/docs/") {
			continue
		}
		for number, text := range strings.Split(read(t, file), "\n") {
			for _, found := range named.FindAllStringSubmatch(text, -1) {
				if strings.Contains(found[1], "://") && !strings.Contains(found[1], "ampbridge/ampbridge") {
					continue
				}
				count++
				if wrong := resolve(t, "docs/"+found[2], found[3]); wrong != "" {
					t.Errorf("%s:%d: %s", file, number+1, wrong)
				}
			}
		}
	}
	if count < 50 {
		t.Errorf("only %d references", count)
	}
}

// Every page is in the index.
func TestIndexIsComplete(t *testing.T) {
	index := read(t, "docs/README.md")
	for _, page := range pages(t) {
		name, isDoc := strings.CutPrefix(page, "docs/")
		if isDoc && name != "README.md" && !strings.Contains(index, "]("+name+")") {
			t.Errorf("docs/README.md does not list %s", name)
		}
	}
}

func TestAnchors(t *testing.T) {
	text := "# A `code` heading: with, marks\n```\n# no heading\n```\n## Twice\n## Twice\n### [AmpbridgeX](a.md#b)\n"
	got := anchors(text)
	for _, want := range []string{"a-code-heading-with-marks", "twice", "twice-1", "ampbridgex"} {
		if !got[want] {
			t.Errorf("no %q in %v", want, got)
		}
	}
	if len(got) != 4 {
		t.Errorf("%v", got)
	}
}

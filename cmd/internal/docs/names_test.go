package docs

import (
	"go/ast"
	"regexp"
	"slices"
	"testing"
)

// named returns a function that reports whether a constant's name, with its type behind
// it, matches the expression.
func named(expression string) func(string) bool { return regexp.MustCompile(expression).MatchString }

// constants returns the values of the string constants of a package that match the
// expression.
func constants(t *testing.T, dir, expression string, name func(string) bool) []string {
	t.Helper()
	form := regexp.MustCompile("^(?:" + expression + ")$")
	var found []string
	for _, file := range parse(t, dir) {
		for _, declaration := range file.Decls {
			general, ok := declaration.(*ast.GenDecl)
			if !ok {
				continue
			}
			for _, spec := range general.Specs {
				value, ok := spec.(*ast.ValueSpec)
				if !ok {
					continue
				}
				for i, v := range value.Values {
					kind, _ := value.Type.(*ast.Ident)
					selected, _ := value.Type.(*ast.SelectorExpr)
					described := value.Names[i].Name
					switch {
					case kind != nil:
						described += " " + kind.Name
					case selected != nil:
						described += " " + selected.Sel.Name
					}
					if text := constant(v); form.MatchString(text) && name(described) {
						found = append(found, text)
					}
				}
			}
		}
	}
	return found
}

// rows returns the names in code at the beginning of a page's table rows, and of sentences
// such as "`Name` is …".
func rows(text, form string) []string {
	var found []string
	for _, m := range regexp.MustCompile("(?m)^\\| `("+form+")` \\|").FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	for _, m := range regexp.MustCompile("(?m)(?:^|\\. )`("+form+")` (?:of|is) ").FindAllStringSubmatch(text, -1) {
		found = append(found, m[1])
	}
	return found
}

func equal(t *testing.T, page string, documented, declared []string) {
	t.Helper()
	for _, name := range declared {
		if !slices.Contains(documented, name) {
			t.Errorf("%s lacks %s", page, name)
		}
	}
	for _, name := range documented {
		if !slices.Contains(declared, name) {
			t.Errorf("%s has %s, which the code does not", page, name)
		}
	}
}

func TestAnnotationsAndTags(t *testing.T) {
	const form = `(?:ampbridge\.io|eks\.amazonaws\.com)/[a-z-]+`
	var declared []string
	for _, dir := range []string{"policy", "webhook/inject", "webhook/certificates"} {
		declared = append(declared, constants(t, dir, form, named("^(?:[Aa]nnotation|Label|Tag)"))...)
	}
	if len(declared) < 20 {
		t.Errorf("%d names: %v", len(declared), declared)
	}
	page := "docs/reference/annotations.md"
	equal(t, page, rows(read(t, page), form), declared)
}

func TestEventsAndReasons(t *testing.T) {
	const form = `[A-Z][A-Za-z]+`
	var declared []string
	for _, dir := range []string{"policy", "webhook", "webhook/inject", "webhook/breaker", "webhook/audit"} {
		declared = append(declared, constants(t, dir, form, named(" Reason$"))...)
	}
	declared = append(declared, constants(t, "policy/plan", form, named(" State$"))...)
	declared = append(declared, constants(t, "webhook/audit", form, named("^event"))...)
	declared = append(declared,
		constants(t, "policy/check", form, named("^(?:SessionNotTaken|MovedToRelay|NoSession|WritesRefused)$"))...)
	if len(declared) < 50 {
		t.Errorf("%d reasons: %v", len(declared), declared)
	}
	page := "docs/reference/events.md"
	equal(t, page, rows(read(t, page), form), declared)
}

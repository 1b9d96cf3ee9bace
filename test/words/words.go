// Package words finds the words that this project replaces by plainer ones. Its test checks the
// comments and strings of shipped Go files, and the chart; others check the help and the
// documentation.
package words

import (
	"regexp"
	"strings"
)

// replaced are the words, each with a better one.
var replaced = []struct {
	pattern *regexp.Regexp
	better  string
}{
	{word(`tells? whether`), "reports whether"},
	{word(`mend(s|ed|ing)?`), "fix"},
	{word(`whoever`), "name the person, or the program"},
	{word(`anew`), "again"},
	{word(`in step`), "in sync"},
	{word(`looked at`), "checked, or read"},
	{word(`rungs?`), "check"},
	{word(`says? so`), "name what is reported, and where"},
	{word(`nobody`), "no subject, no user, or the passive"},
}

// word matches whole words in both cases, also over a line break.
func word(pattern string) *regexp.Regexp {
	return regexp.MustCompile(`(?i)\b` + strings.ReplaceAll(pattern, " ", `[\s/#*]+`) + `\b`)
}

// userNobody are the uses of nobody as a user's name.
var userNobody = regexp.MustCompile("(?i)[`'\"]nobody[`'\"]|\\bnobody is the user\\b|\\buser nobody\\b")

// Find returns each replaced word in a text, with the better one.
func Find(text string) (found []string) {
	text = userNobody.ReplaceAllString(text, "")
	for _, r := range replaced {
		for _, match := range r.pattern.FindAllString(text, -1) {
			found = append(found, strings.Join(strings.Fields(match), " ")+": write "+r.better)
		}
	}
	return found
}

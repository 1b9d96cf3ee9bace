package report

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/ampbridge/ampbridge/policy/check"
)

// few is how many results with one outcome are printed one by one.
const few = 3

// fold groups the findings of one check by their outcome, the worst outcome first.
func fold(findings []check.Finding) [][]check.Finding {
	var groups [][]check.Finding
	index := map[string]int{}
	for _, f := range findings {
		key := outcome(f)
		i, found := index[key]
		if !found {
			i = len(groups)
			index[key] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], f)
	}
	slices.SortStableFunc(groups, func(a, b []check.Finding) int {
		switch x, y := a[0].Status, b[0].Status; {
		case x.Worse(y):
			return -1
		case y.Worse(x):
			return 1
		}
		return 0
	})
	return groups
}

// outcome returns the same text for findings that differ only in the names of their objects.
func outcome(f check.Finding) string {
	parts := []string{string(f.ID), string(f.Status), string(f.BlockedBy), fmt.Sprint(f.Excluded), template(f, f.Message)}
	if f.Fix != nil {
		parts = append(parts, template(f, f.Fix.Summary))
	}
	return strings.Join(parts, "\n")
}

var (
	// volatile matches what differs without a meaning: IDs of requests, spans of time, and
	// numbers of samples.
	volatile = regexp.MustCompile(`[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|` +
		`\b[0-9.]+ ?(ms|s|seconds?|minutes?|hours?|days?|samples?|were)\b`)
	// ownRole matches the ARN of a role, which each service account may have of its own.
	ownRole = regexp.MustCompile(`\barn:[a-z-]+:iam::[^:\s]*:role/[^\s,;:()]+`)
	// detail matches a word with a digit, a slash or a colon inside: a name, an address
	// or a number. In the message of a check that passed it is a detail.
	detail = regexp.MustCompile(`[^\s,;()]*([0-9]|[/:][^\s,;()])[^\s,;()]*`)
)

// template returns a text of the finding without the names of its object.
func template(f check.Finding, text string) string {
	for _, name := range names(f.About) {
		text = replaceWord(text, name, "§")
	}
	text = volatile.ReplaceAllString(text, "§")
	if f.About.Subject != "" {
		text = ownRole.ReplaceAllString(text, "§")
	}
	if f.Status == check.Pass {
		return detail.ReplaceAllString(text, "§")
	}
	return text
}

// names returns the names of an object, the longest forms first.
func names(a check.About) []string {
	list := []string{a.Subject}
	if _, subject, found := strings.Cut(a.Subject, "serviceaccount:"); found {
		namespace, account, _ := strings.Cut(subject, ":")
		list = append(list, namespace+"/"+account, account, namespace)
	}
	if namespace, pod, found := strings.Cut(a.Pod, "/"); found {
		list = append([]string{a.Pod, pod}, append(list, namespace)...)
	}
	list = append(list, a.Account, a.Destination)
	return slices.DeleteFunc(list, func(name string) bool { return name == "" })
}

// replaceWord replaces a name where it is not a part of a longer word.
func replaceWord(text, name, by string) string {
	var b strings.Builder
	for {
		at := strings.Index(text, name)
		if at < 0 {
			return b.String() + text
		}
		end := at + len(name)
		replaced := by
		if at > 0 && letter(text[at-1]) || end < len(text) && letter(text[end]) {
			replaced = name
		}
		b.WriteString(text[:at] + replaced)
		text = text[end:]
	}
}

func letter(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-'
}

// objects returns how many objects the findings are about, with their kind, such as "61
// service accounts".
func objects(findings []check.Finding) string {
	n := len(findings)
	distinct := func(member func(check.About) string) int {
		seen := map[string]bool{}
		for _, f := range findings {
			if name := member(f.About); name != "" {
				seen[name] = true
			}
		}
		return len(seen)
	}
	subjects := distinct(func(a check.About) string { return a.Subject })
	destinations := distinct(func(a check.About) string { return a.Destination })
	switch n {
	case distinct(func(a check.About) string { return a.Pod }):
		return fmt.Sprintf("%d pods", n)
	case subjects:
		return fmt.Sprintf("%d service accounts", n)
	case destinations:
		return fmt.Sprintf("%d destinations", n)
	case distinct(func(a check.About) string { return a.Account }):
		return fmt.Sprintf("%d accounts", n)
	}
	if subjects > 1 && destinations > 1 {
		return fmt.Sprintf("%d pairs of %d service accounts and %d destinations", n, subjects, destinations)
	}
	return fmt.Sprintf("%d results", n)
}

// about returns the object of a line. For several findings it is their number and the first
// object as an example. It is empty if the line is about everything.
func about(group []check.Finding) string {
	if len(group) == 1 {
		return group[0].About.String()
	}
	text := objects(group)
	if example := group[0].About.String(); example != "" {
		text += ", such as " + example
	}
	return text
}

// lines returns the groups to print. It splits a group that is too small to fold.
func lines(findings []check.Finding) [][]check.Finding {
	var list [][]check.Finding
	for _, group := range fold(findings) {
		if len(group) > few {
			list = append(list, group)
			continue
		}
		for i := range group {
			list = append(list, group[i:i+1])
		}
	}
	return list
}

package kubelet

import "strings"

// expand replaces $(NAME) in s by the value from lookup, by the rules of the Kubernetes API: an unknown
// reference stays unchanged, and $$ becomes one $, so $$(NAME) becomes the text $(NAME).
func expand(s string, lookup func(name string) (string, bool)) string {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "$")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		s = rest
		if strings.HasPrefix(rest, "$") {
			b.WriteByte('$')
			s = rest[1:]
			continue
		}
		name, after, closed := strings.Cut(strings.TrimPrefix(rest, "("), ")")
		if !strings.HasPrefix(rest, "(") || !closed {
			b.WriteByte('$') // not a reference; the rest is read as text
			continue
		}
		if value, ok := lookup(name); ok {
			b.WriteString(value)
		} else {
			b.WriteString("$(" + name + ")")
		}
		s = after
	}
}

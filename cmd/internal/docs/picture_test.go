package docs

import (
	"fmt"
	"html"
	"math"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// The pictures have a background of their own, so that they look the same on a light and
// on a dark page.
const (
	background = "#14181f"
	ink        = "#d7dde5"
)

// inks are the colours by the first character of a line.
var inks = map[string]string{
	"✓": "#6fd08c", "✗": "#ff8f87", "!": "#f2c14e", "–": "#aab4c0", "→": "#8fc7ff", "$": "#8fc7ff",
}

const (
	pictureColumns = 112
	charWidth      = 8
	lineHeight     = 19
	margin         = 16
)

// picture draws lines of text as an SVG. A longer line is cut, as less -S cuts it.
func picture(title, text string) string {
	all := strings.Split(strings.TrimRight(text, "\n"), "\n")
	width, height := pictureColumns*charWidth+2*margin, len(all)*lineHeight+2*margin
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img" aria-label="%s">`+"\n",
		width, height, title)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" rx="8" fill="%s"/>`+"\n", background)
	fmt.Fprintf(&b, `<g fill="%s" font-family="%s" font-size="13">`+"\n", ink,
		"ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace")
	for i, l := range all {
		runes := []rune(l)
		if len(runes) > pictureColumns {
			runes = append(runes[:pictureColumns-1:pictureColumns-1], '…')
		}
		if len(runes) == 0 {
			continue
		}
		// Spaces that do not break, because browsers fold others.
		shown := html.EscapeString(strings.ReplaceAll(string(runes), " ", "\u00a0"))
		if first, _, _ := strings.Cut(strings.TrimSpace(l), " "); inks[first] != "" {
			shown = strings.Replace(shown, first, fmt.Sprintf(`<tspan fill="%s">%s</tspan>`, inks[first], first), 1)
		}
		fmt.Fprintf(&b, `<text x="%d" y="%d" textLength="%d">%s</text>`+"\n",
			margin, margin+(i+1)*lineHeight-6, len(runes)*charWidth, shown)
	}
	b.WriteString("</g>\n</svg>\n")
	return b.String()
}

// shorten leaves out the head of a report, and all but the first of three or more lines in a
// row that passed, so that the picture fits on a screen beside the text around it.
func shorten(report string) string {
	verdict, rest, _ := strings.Cut(report, "\n\n")
	_, checks, _ := strings.Cut(rest, "\n\n")
	short := []string{verdict, ""}
	var passed []string
	end := func() {
		if n := len(passed) - 1; n > 1 {
			passed = []string{passed[0], fmt.Sprintf("  … %d more lines of checks that passed", n)}
		}
		short = append(short, passed...)
		passed = nil
	}
	for l := range strings.SplitSeq(strings.TrimRight(checks, "\n"), "\n") {
		if strings.HasPrefix(l, "✓") {
			passed = append(passed, l)
			continue
		}
		end()
		short = append(short, l)
	}
	end()
	return strings.Join(short, "\n") + "\n"
}

func TestShorten(t *testing.T) {
	got := shorten("✗ a\n\n  head\n\n✓ b\n✓ c\n✓ d\n✗ e\n  why\n✓ f\n– g\n✓ h\n✓ i\n")
	want := "✗ a\n\n✓ b\n  … 2 more lines of checks that passed\n✗ e\n  why\n✓ f\n– g\n✓ h\n✓ i\n"
	if got != want {
		t.Errorf("%s", got)
	}
}

// The README's picture of a report is doctor's own text.
func TestPictureOfAReport(t *testing.T) {
	text := shorten(read(t, "cmd/internal/doctor/report/testdata/sample.txt"))
	drawn := picture("a report of ampbridge doctor, shortened", text)
	testkit.Golden(t, filepath.Join(root, "docs/images/doctor.svg"), drawn)
	if !strings.Contains(read(t, "README.md"), "docs/images/doctor.svg") {
		t.Error("the README does not show the picture")
	}
}

// WCAG's level AA asks for 4.5.
func TestContrastOfPictures(t *testing.T) {
	for sign, colour := range inks {
		if c := contrast(t, colour, background); c < 4.5 {
			t.Errorf("%s: contrast %.1f", sign, c)
		}
	}
	if c := contrast(t, ink, background); c < 7 {
		t.Errorf("text: contrast %.1f", c)
	}
}

// contrast returns the ratio of https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio.
func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	luminance := func(colour string) float64 {
		total := 0.0
		for i, weight := range []float64{.2126, .7152, .0722} {
			n, err := strconv.ParseUint(colour[1+2*i:3+2*i], 16, 8)
			testkit.Must(t, err)
			channel := float64(n) / 255
			if channel <= .04045 {
				channel /= 12.92
			} else {
				channel = math.Pow((channel+.055)/1.055, 2.4)
			}
			total += weight * channel
		}
		return total
	}
	light, dark := luminance(a), luminance(b)
	return (max(light, dark) + .05) / (min(light, dark) + .05)
}

package page

import (
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// Every ink is readable on every ground, in light and in dark: WCAG 2.2 asks for a
// contrast of 4.5 for text (AA, 1.4.3). An ink also fills marks, on which --paper is the
// ink. test/browser measures the pairs that a browser shows.
func TestContrast(t *testing.T) {
	const enough = 4.5
	light, dark := palettes(t)
	for scheme, palette := range map[string]palette{"light": light, "dark": dark} {
		if len(palette.inks) != 6 || len(palette.grounds) != 8 {
			t.Fatalf("%s: %d inks, %d grounds", scheme, len(palette.inks), len(palette.grounds))
		}
		lowest, pair := math.Inf(1), ""
		for ink, a := range palette.inks {
			for ground, b := range palette.grounds {
				c := contrast(a, b)
				if c < enough {
					t.Errorf("%s: %s on %s has a contrast of %.2f, want %.1f", scheme, ink, ground, c, enough)
				}
				if c < lowest {
					lowest, pair = c, ink+" on "+ground
				}
			}
		}
		t.Logf("%s: %d pairs, the lowest contrast is %.2f: %s", scheme, len(palette.inks)*len(palette.grounds), lowest, pair)
	}
}

// The formula gives the values of the standard's own examples.
func TestContrastOfKnownColours(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want float64
	}{{"#000000", "#ffffff", 21}, {"#ffffff", "#ffffff", 1}, {"#777777", "#ffffff", 4.48}, {"#767676", "#ffffff", 4.54}} {
		if got := contrast(c.a, c.b); math.Abs(got-c.want) > 0.005 {
			t.Errorf("%s on %s: %.3f, want %.2f", c.a, c.b, got, c.want)
		}
	}
}

// No rule has a colour of its own, so that the palettes above have all of them, and the
// colours of text are inks.
func TestRulesUseThePalettes(t *testing.T) {
	_, style, _ := strings.Cut(head, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	rules := paletteRule.ReplaceAllString(style, "")
	if literal := regexp.MustCompile(`#[0-9a-fA-F]{3,8}\b|rgba?\(|hsla?\(|opacity`).FindString(rules); literal != "" {
		t.Errorf("a rule has %s", literal)
	}
	light, _ := palettes(t)
	for _, use := range regexp.MustCompile(`[{; ](color|fill|background): *([^;}]+)`).FindAllStringSubmatch(rules, -1) {
		property, value := use[1], strings.TrimSpace(use[2])
		name := strings.TrimSuffix(strings.TrimPrefix(value, "var("), ")")
		_, ink := light.inks[name]
		_, ground := light.grounds[name]
		switch {
		case value == "none" || value == "inherit":
		case property != "background" && (ink || name == "--paper"):
		case property == "background" && (ground || ink):
		default:
			t.Errorf("%s: %s is no colour of the palettes for that", property, value)
		}
	}
}

type palette struct{ inks, grounds map[string]string }

var (
	paletteRule = regexp.MustCompile(`:root \{\s*/\* inks \*/([^/]*)/\* grounds \*/([^/]*)/\* decoration \*/[^}]*\}`)
	variable    = regexp.MustCompile(`(--[a-z-]+): (#[0-9a-f]{6});`)
)

func palettes(t *testing.T) (light, dark palette) {
	t.Helper()
	found := paletteRule.FindAllStringSubmatch(head, -1)
	if len(found) != 2 {
		t.Fatalf("the page has %d palettes, want 2", len(found))
	}
	read := func(text string) map[string]string {
		colours := map[string]string{}
		for _, v := range variable.FindAllStringSubmatch(text, -1) {
			colours[v[1]] = v[2]
		}
		return colours
	}
	return palette{read(found[0][1]), read(found[0][2])}, palette{read(found[1][1]), read(found[1][2])}
}

// contrast returns the contrast of two colours as WCAG 2.2 defines it.
func contrast(a, b string) float64 {
	x, y := luminance(a), luminance(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

func luminance(colour string) float64 {
	var sum float64
	for i, weight := range []float64{0.2126, 0.7152, 0.0722} {
		n, err := strconv.ParseUint(colour[1+2*i:3+2*i], 16, 8)
		if err != nil {
			panic(fmt.Sprintf("%s: %v", colour, err))
		}
		if c := float64(n) / 255; c <= 0.04045 {
			sum += weight * c / 12.92
		} else {
			sum += weight * math.Pow((c+0.055)/1.055, 2.4)
		}
	}
	return sum
}

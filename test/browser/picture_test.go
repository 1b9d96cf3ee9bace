//go:build e2e

package browser

import (
	"fmt"
	"net/url"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// drawn is what the browser measures of a picture.
type drawn struct {
	Texts   int     `json:"texts"`
	Scroll  int     `json:"scroll"`
	Outside int     `json:"outside"`
	Width   float64 `json:"width"`
}

const measurePicture = `(() => {
  const svg = document.querySelector('svg'), frame = svg.getBoundingClientRect();
  const texts = [...svg.querySelectorAll('text')];
  const outside = texts.filter(e => {
    const r = e.getBoundingClientRect();
    return r.left < frame.left || r.right > frame.right + 0.5 || r.bottom > frame.bottom + 0.5;
  });
  const scroll = document.documentElement.scrollWidth || innerWidth;
  return {texts: texts.length, scroll: scroll, outside: outside.length, width: frame.width};
})()`

// The pictures of the documentation fit the window, and their texts fit the picture.
func TestPictures(t *testing.T) {
	browser := open(t)
	files, err := filepath.Glob(filepath.Join("..", "..", "docs", "images", "*.svg"))
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		path, err := filepath.Abs(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, width := range []int64{390, 768, 1280, 1920} {
			for _, scheme := range []string{"light", "dark"} {
				t.Run(fmt.Sprintf("%s, %d px, %s", filepath.Base(file), width, scheme), func(t *testing.T) {
					tab, cancel := chromedp.NewContext(browser)
					defer cancel()
					if _, err := chromedp.Call(tab, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
						Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
					}); err != nil {
						t.Fatal(err)
					}
					at := (&url.URL{Scheme: "file", Path: path}).String()
					if err := chromedp.Do(tab, chromedp.EmulateViewport(width, 844), chromedp.Navigate(at)); err != nil {
						t.Fatal(err)
					}
					s, err := chromedp.Run(tab, chromedp.Evaluate[drawn](measurePicture))
					if err != nil {
						t.Fatal(err)
					}
					if s.Texts < 10 || s.Outside > 0 || s.Scroll > int(width) || s.Width > float64(width) {
						t.Errorf("%+v", s)
					}
				})
			}
		}
	}
}

package sidecar

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
	"github.com/ampbridge/ampbridge/webhook/sidecar/session"
)

func due(t testing.TB) []wanted {
	t.Helper()
	d := policy.Destination{Name: "central"}
	testkit.Must(t, d.Workspace.UnmarshalText([]byte("arn:aws:aps:eu-west-1:111122223333:workspace/ws-central")))
	return []wanted{{name: d.Name, signing: new(d.Block("dev")), session: session.Session{AccessKeyID: "ASIA"}}}
}

func zip(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	testkit.Must(t, w.Close())
	return b.Bytes()
}

// TestRenderPassesThrough: a configuration that cannot be edited is returned byte for byte, with
// the reason.
func TestRenderPassesThrough(t *testing.T) {
	long := "x: [" + strings.Repeat("a,", 1<<19) + "]\n" // 1 MiB
	whole := zip(t, "a: 1\n")
	const wantLimit = "(1.0 MB) needs about 139 MiB of memory to be edited, and has 25 MiB of the sidecar's 64 MiB: " +
		"set sidecar.resources.limits.memory to 256Mi"
	for name, tc := range map[string]struct {
		content []byte
		want    string
	}{
		"broken YAML":             {[]byte("a: ["), "not YAML"},
		"gzip cut off":            {whole[:len(whole)-4], "gzip: unexpected EOF"},
		"gzip of broken YAML":     {zip(t, "a: ["), "not YAML"},
		"not gzip after all":      {[]byte{0x1f, 0x8b, 0, 0}, "gzip: "},
		"too long":                {[]byte(long), wantLimit},
		"gzip of what is long":    {zip(t, long), wantLimit},
		"merge keys that explode": {mergeKeys(t), "excessive aliasing"},
		"gzip bomb":               {zip(t, strings.Repeat("\n", maxUnzipped+1)), "larger than 3225 KiB, the most that can be edited"},
	} {
		t.Run(name, func(t *testing.T) {
			got := render(tc.content, due(t), policy.Version{}, 64<<20)
			if !bytes.Equal(got.content, tc.content) || got.result != "passed_through" || !strings.Contains(got.lastError, tc.want) {
				t.Errorf("%s: %s", got.result, got.lastError)
			}
		})
	}
}

// TestRenderIsDeterministic: the same input gives the same bytes. Otherwise reloaders would reload
// without a reason.
func TestRenderIsDeterministic(t *testing.T) {
	for _, content := range [][]byte{[]byte("a: 1\n"), zip(t, "a: 1\n")} {
		one, two := render(content, due(t), policy.Version{}, 64<<20), render(content, due(t), policy.Version{}, 64<<20)
		if one.result != "rendered" || !bytes.Equal(one.content, two.content) {
			t.Errorf("%s, then %s: %q and %q", one.result, two.result, one.content, two.content)
		}
	}
}

func TestWithinSurvivesAPanic(t *testing.T) {
	_, err := within([]byte("a"), 1, func([]byte) ([]byte, error) { panic(errors.New("boom")) })
	if err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("error %v", err)
	}
}

// TestTooLargeNamesTheLimit: a configuration that needs too much memory is returned unchanged, and
// the error names the limit to set.
func TestTooLargeNamesTheLimit(t *testing.T) {
	text := "rule_files:\n" + strings.Repeat("- a.yml\n", 100_000)
	for name, content := range map[string][]byte{"plain": []byte(text), "gzipped": zip(t, text)} {
		refused := render(content, due(t), policy.Version{}, 64<<20)
		if refused.result != "passed_through" || !bytes.Equal(refused.content, content) ||
			refused.size != int64(len(text)) || refused.need < 21<<20 {
			t.Fatalf("%s: %s, size %d, need %d", name, refused.result, refused.size, refused.need)
		}
		var limit int64
		_, rest, _ := strings.Cut(refused.lastError, "set sidecar.resources.limits.memory to ")
		if _, err := fmt.Sscanf(rest, "%dMi or more", &limit); err != nil {
			t.Fatalf("%s: %v: %q", name, err, refused.lastError)
		}
		if got := render(content, due(t), policy.Version{}, limit<<20); got.result != "rendered" {
			t.Errorf("%s: with %d MiB: %s", name, limit, got.lastError)
		}
	}
}

// TestGzipBombWithoutALimit: without a memory limit of the container, there is a limit too.
func TestGzipBombWithoutALimit(t *testing.T) {
	bomb := zip(t, strings.Repeat("\n", maxUnzipped+1))
	got := render(bomb, due(t), policy.Version{}, 0)
	if !strings.Contains(got.lastError, "larger than 32 MiB") || !bytes.Equal(got.content, bomb) {
		t.Errorf("%s: %s", got.result, got.lastError)
	}
}

// mergeKeys returns a short text with 12^16 paths through its merge keys.
func mergeKeys(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile("../../policy/promconfig/testdata/merge-keys.yaml")
	testkit.Must(t, err)
	return text
}

// TestGap adds up the time without the block.
func TestGap(t *testing.T) {
	at := func(seconds int) time.Time { return time.Unix(int64(seconds), 0) }
	d := &destination{out: at(0)}
	d.trackGap(at(2), false)
	d.trackGap(at(3), true)
	d.trackGap(at(10), true)
	d.trackGap(at(20), false)
	d.skipped = "the user's own"
	d.trackGap(at(25), false)
	if got := d.missing(at(30)); got != 8*time.Second {
		t.Errorf("a gap of %v, want 8s", got)
	}
	d.skipped = ""
	d.trackGap(at(30), false)
	if got := d.missing(at(31)); got != 9*time.Second {
		t.Errorf("a gap of %v, want 9s", got)
	}
}

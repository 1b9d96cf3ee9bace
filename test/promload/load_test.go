package promload

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/prometheus/config"
	_ "github.com/prometheus/prometheus/discovery/file" // so that file_sd_configs load
	"go.yaml.in/yaml/v4"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/promconfig"
	"github.com/ampbridge/ampbridge/test/testkit"
)

var (
	cases = flag.Int("cases", 100_000, "how many configurations TestLoads makes")
	seed  = flag.Uint64("seed", 0, "the first one's seed")
)

// TestLoads makes configurations, and checks of each that Prometheus understands
// the rendered one as it does the user's, with the blocks after the user's own
// remote_writes, and that taking the blocks out gives the user's again.
func TestLoads(t *testing.T) {
	blocks := newBlocks(t)
	// Much garbage, little that lives.
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	var next, refused, skipped, verbatim atomic.Int64
	var workers sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for {
				i := next.Add(1) - 1
				if i >= int64(*cases) || t.Failed() {
					return
				}
				in := generate(*seed + uint64(i))
				if *cases == 1 {
					t.Logf("the configuration:\n%s", in)
				}
				outcome, err := check([]byte(in), blocks)
				if errors.Is(err, errNotRendered) && strings.Contains(err.Error(), "merge key") {
					refused.Add(1) // the only one that is left alone
					continue
				}
				if err != nil {
					t.Errorf("seed %d: %v\nof\n%s", *seed+uint64(i), err, in)
					return
				}
				if outcome.skipped > 0 {
					skipped.Add(1)
				}
				if outcome.verbatim {
					verbatim.Add(1)
				}
			}
		})
	}
	workers.Wait()
	t.Logf(
		"%d configurations: the user's text came back to the byte in %d, a block was left out for the user's own in %d, and %d were left alone",
		*cases,
		verbatim.Load(),
		skipped.Load(),
		refused.Load(),
	)
}

// FuzzLoads: whatever Prometheus loads, and is not refused, means what it meant.
func FuzzLoads(f *testing.F) {
	inputs, err := filepath.Glob("../../policy/promconfig/testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		f.Fatal("no goldens", err)
	}
	for _, input := range inputs {
		in, err := os.ReadFile(input)
		testkit.Must(f, err)
		f.Add(in)
	}
	blocks := newBlocks(f)
	defer debug.SetGCPercent(debug.SetGCPercent(800)) // as in TestLoads
	f.Fuzz(func(t *testing.T, in []byte) {
		_, err := check(in, blocks)
		if err != nil && !errors.Is(err, errNotLoaded) && !errors.Is(err, errNotRendered) {
			t.Errorf("%v\nof\n%q", err, in)
		}
	})
}

var (
	// errNotLoaded: what was made is no configuration.
	errNotLoaded = errors.New("not loaded by Prometheus")
	// errNotRendered: it would be served without the blocks, which is safe, and
	// a loss.
	errNotRendered = errors.New("not rendered")
)

// outcome is what was remarkable about a rendering.
type outcome struct {
	skipped  int
	verbatim bool
}

// check renders a configuration that loads, and says what is wrong with the
// result.
func check(in []byte, blocks []block) (outcome, error) {
	before, err := load(in)
	if err != nil {
		return outcome{}, fmt.Errorf("%w: %w", errNotLoaded, err)
	}
	asked := make([]policy.Block, len(blocks))
	for i, b := range blocks {
		asked[i] = b.Block
	}
	result, err := promconfig.Render(in, asked, "1")
	if err != nil {
		return outcome{}, fmt.Errorf("%w: %w", errNotRendered, err)
	}
	blocks = slices.DeleteFunc(slices.Clone(blocks), func(b block) bool {
		return slices.ContainsFunc(result.Skipped, func(s promconfig.Skipped) bool { return s.Name == b.Name+b.ID }) // one of the two is set
	})
	if err := compare(before, result.Config, blocks); err != nil {
		return outcome{}, fmt.Errorf("%w\nin\n%s", err, result.Config)
	}
	if bytes.Contains(result.Config, []byte("$(")) {
		// The operator's reloader comes between the two.
		expanded, err := load(expand(in))
		if err == nil {
			err = compare(expanded, expand(result.Config), blocks)
		}
		if err != nil {
			return outcome{}, fmt.Errorf("expanded: %w\nin\n%s", err, result.Config)
		}
	}
	back, err := promconfig.Remove(result.Config)
	if err != nil {
		return outcome{}, fmt.Errorf("not removed: %w\n%s", err, result.Config)
	}
	if err := compare(before, back, nil); err != nil {
		return outcome{}, fmt.Errorf("block in, block out: %w\nin\n%s\nvia\n%s", err, back, result.Config)
	}
	return outcome{len(result.Skipped), bytes.Equal(in, back)}, nil
}

// compare loads what was made of a configuration: the same, with the blocks
// after the user's own remote_writes.
func compare(before *config.Config, out []byte, blocks []block) error {
	after, err := load(out)
	if err != nil {
		return fmt.Errorf("it does not load: %w", err)
	}
	rest, restAfter := *before, *after
	rest.RemoteWriteConfigs, restAfter.RemoteWriteConfigs = nil, nil
	if !reflect.DeepEqual(rest, restAfter) {
		return fmt.Errorf("the rest means something else: %s", difference(rest, restAfter))
	}
	own, all := before.RemoteWriteConfigs, after.RemoteWriteConfigs
	if len(all) != len(own)+len(blocks) {
		return fmt.Errorf("%d remote_writes became %d", len(own), len(all))
	}
	// No list and a list of none are the same to Prometheus.
	if first := all[:len(own)]; len(own) > 0 && !reflect.DeepEqual(own, first) {
		return fmt.Errorf("the user's own remote_writes changed: %s", difference(own, first))
	}
	for i, added := range all[len(own):] {
		want := *blocks[i].loaded
		// A suffix tells it from a user's of that name.
		if want.Name = added.Name; !strings.HasPrefix(added.Name, blocks[i].Name) || !reflect.DeepEqual(&want, added) {
			return fmt.Errorf("block %s means something else: %s", blocks[i].Name, difference(&want, added))
		}
	}
	return nil
}

// variable is what prometheus-config-reloader expands in a configuration
// (pkg/reloader/reloader.go of thanos-io/thanos, which it uses).
var variable = regexp.MustCompile(`\$\(([a-zA-Z_0-9]+)\)`)

func expand(text []byte) []byte { return variable.ReplaceAll(text, []byte("value-of-$1")) }

// directory is where the configuration lies, as far as relative paths go.
const directory = "/etc/prometheus"

// load is what Prometheus does with a configuration file.
func load(text []byte) (*config.Config, error) {
	c, err := config.Load(string(text), slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, err
	}
	if c.GlobalConfig.ScrapeInterval == 0 {
		// Prometheus makes no defaults of a document that is null, but nothing is
		// scraped or evaluated with such a configuration either.
		return load([]byte("{}"))
	}
	c.SetDirectory(directory)
	return c, nil
}

// difference shows where two values differ; that they do is for the caller.
func difference(a, b any) string {
	return cmp.Diff(a, b, cmp.Exporter(func(reflect.Type) bool { return true }))
}

// block is one with what Prometheus makes of it alone.
type block struct {
	policy.Block
	loaded *config.RemoteWriteConfig
}

// newBlocks are those of three destinations: one with a name that looks like an
// expansion, and one that writes to the relay.
func newBlocks(tb testing.TB) []block {
	var blocks []block
	for _, name := range []string{"central", "backup", "relayed"} {
		d := policy.Destination{Name: name}
		testkit.Must(tb, d.Workspace.UnmarshalText([]byte("arn:aws:aps:eu-west-1:111122223333:workspace/ws-"+name)))
		b := block{Block: d.Block("dev")}
		if name == "backup" {
			b.Block = b.WithReplica("prometheus-$(POD)-0")
		}
		if name == "relayed" { // as for a version that is not known
			b.Block, _ = b.ByRelay("127.0.0.1:39999", "/var/run/password").For(policy.Version{})
		}
		alone, err := yaml.Marshal(map[string]any{"remote_write": []policy.Block{b.Block}})
		testkit.Must(tb, err)
		loaded, err := load(alone)
		testkit.Must(tb, err)
		b.loaded = loaded.RemoteWriteConfigs[0]
		blocks = append(blocks, b)
	}
	return blocks
}

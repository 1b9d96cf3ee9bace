package sidecar

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/promconfig"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// rendered is a configuration file as it is served.
type rendered struct {
	content []byte
	// result is the value for the metric: rendered, plain (no block was due) or
	// passed_through (the configuration could not be edited).
	result string
	// lastError is why it was passed through.
	lastError string
	// destinations are those with a block in the configuration, and skipped is why others have none.
	destinations []string
	skipped      map[string]string
	// signing are the destinations with a block with sigv4 in the configuration.
	signing []string
	// omitted are the fields that were removed from a block.
	omitted map[string][]policy.Omission
	// size is the configuration's size, unzipped, and need the memory that its edit may need, in bytes.
	size, need int64
}

// render puts the due blocks into a configuration file, in the form that this version of
// Prometheus can read. A file that cannot be edited is returned unchanged, so that Prometheus
// itself reports a broken configuration. limit is the container's memory limit in bytes; 0 means none.
func render(content []byte, due []wanted, version policy.Version, limit int64) rendered {
	out := rendered{content: content, result: "plain", skipped: map[string]string{}, omitted: map[string][]policy.Omission{}}
	if len(due) == 0 {
		return out
	}
	var blocks []policy.Block
	for _, w := range due {
		for _, b := range []*policy.Block{w.signing, w.relaying} {
			if b != nil {
				readable, omitted := b.For(version)
				out.omitted[w.name] = omitted
				blocks = append(blocks, readable)
			}
		}
	}
	var result promconfig.Result
	memory := sidecarconfig.BudgetOf(limit).Edit
	edit := func(config []byte) ([]byte, error) {
		if len(config) > maxUnzipped {
			return nil, errTooLong
		}
		out.size, out.need = int64(len(config)), promconfig.Needs(config)
		var err error
		result, err = promconfig.RenderWithin(memory, config, blocks, generation(due))
		if large := (*promconfig.TooLargeError)(nil); errors.As(err, &large) {
			out.need = large.Need
			err = sidecarconfig.TooLarge(large.Config, large.Need, limit)
		}
		return result.Config, err
	}
	unzipped := int64(maxUnzipped)
	if memory > 0 {
		unzipped = min(unzipped, promconfig.Most(memory))
	}
	edited, err := within(content, unzipped, edit)
	if err != nil {
		failed := passedThrough(content, err.Error())
		failed.size, failed.need = out.size, out.need
		return failed
	}
	reasons := map[string]string{}
	for _, skip := range result.Skipped {
		reasons[skip.Name] = skip.Reason
	}
	for _, w := range due {
		// If the user already writes to a workspace, both of its blocks are skipped.
		if reason := reasons[w.id()]; reason != "" {
			out.skipped[w.name] = reason
			delete(out.omitted, w.name)
			continue
		}
		out.destinations = append(out.destinations, w.name)
		if w.signing != nil {
			out.signing = append(out.signing, w.name)
		}
	}
	if len(out.destinations) > 0 {
		out.content, out.result = edited, "rendered"
	}
	return out
}

// id returns the name of one of the blocks.
func (w wanted) id() string {
	if w.signing != nil {
		return w.signing.Name
	}
	return w.relaying.Name
}

// passedThrough returns a configuration that is served unchanged, with the reason.
func passedThrough(content []byte, lastError string) rendered {
	return rendered{content: content, result: "passed_through", lastError: lastError, skipped: map[string]string{}}
}

// maxUnzipped is the largest configuration that is edited, after it was unzipped, in bytes.
const maxUnzipped = 32 << 20

var errTooLong = errors.New("the configuration is larger than 32 MiB")

var gzipMagic = []byte{0x1f, 0x8b}

// within edits content. If the content is gzipped, it edits the unzipped text, which may have at
// most unzipped bytes. It recognizes gzip by the first bytes and not by the file's name. The same
// text always gives the same bytes.
func within(content []byte, unzipped int64, edit func([]byte) ([]byte, error)) (edited []byte, err error) {
	survived(func() { edited, err = unwrapped(content, unzipped, edit) }, func(recovered any, _ []byte) {
		err = fmt.Errorf("editing the configuration panicked: %v", recovered)
	})
	return edited, err
}

func unwrapped(content []byte, unzipped int64, edit func([]byte) ([]byte, error)) ([]byte, error) {
	if !bytes.HasPrefix(content, gzipMagic) {
		return edit(content)
	}
	reader, err := gzip.NewReader(bytes.NewReader(content))
	if err != nil {
		return nil, fmt.Errorf("gzip: %w", err)
	}
	text, err := io.ReadAll(io.LimitReader(reader, unzipped+1))
	if err != nil {
		return nil, fmt.Errorf("gzip: %w", err)
	}
	switch {
	case int64(len(text)) <= unzipped:
	case unzipped == maxUnzipped:
		return nil, fmt.Errorf("gzip: %w", errTooLong)
	default:
		return nil, fmt.Errorf("gzip: the configuration is larger than %d KiB, the most that can be edited in the "+
			"sidecar's memory: raise sidecar.resources.limits.memory in the policy", unzipped>>10)
	}
	if text, err = edit(text); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	writer := gzip.NewWriter(&out)
	_, err = writer.Write(text)
	err = errors.Join(err, writer.Close())
	return out.Bytes(), err
}

// fields returns the names of omitted fields, with the versions that they need.
func fields(omitted []policy.Omission) []string {
	var names []string
	for _, o := range omitted {
		names = append(names, o.Field+" (Prometheus "+o.Since.String()+")")
	}
	return names
}

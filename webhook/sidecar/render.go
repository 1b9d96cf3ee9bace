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
	// result is for the metric: rendered, plain (no block was due) or
	// passed_through (the configuration could not be edited).
	result string
	// lastError says why it was passed through.
	lastError string
	// destinations are those whose block is in, skipped why others are not.
	destinations []string
	skipped      map[string]string
	// signing are those of destinations whose block with sigv4 is in.
	signing []string
	// omitted are the fields that a block had to do without.
	omitted map[string][]policy.Omission
	// size is the configuration's, unzipped, and need what its edit may need, in bytes.
	size, need int64
}

// render puts the blocks that are due, as that version of Prometheus can read them, into a
// configuration file. What cannot be edited comes back as it was: a broken configuration
// is Prometheus's to report. limit is the container's, in bytes of memory; 0: none.
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
		// A workspace that the user writes to is skipped by both blocks.
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

// id is the name of one of the blocks.
func (w wanted) id() string {
	if w.signing != nil {
		return w.signing.Name
	}
	return w.relaying.Name
}

// passedThrough is a configuration that is served as it is, for a reason.
func passedThrough(content []byte, lastError string) rendered {
	return rendered{content: content, result: "passed_through", lastError: lastError, skipped: map[string]string{}}
}

// maxUnzipped bounds what is edited at all, and what a gzipped configuration
// may grow to, in bytes.
const maxUnzipped = 32 << 20

var errTooLong = errors.New("the configuration is larger than 32 MiB")

var gzipMagic = []byte{0x1f, 0x8b}

// within edits content, inside its gzip wrapping where it has one, unless it is longer than
// unzipped bytes without that. The first
// bytes tell, not the file's name. The same text always gives the same bytes.
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
		return nil, fmt.Errorf("gzip: the configuration is larger than %d KiB, the most that can be edited in the sidecar's memory: "+
			"raise sidecar.resources.limits.memory in the policy", unzipped>>10)
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

// fields are the names of omitted fields, with what they need.
func fields(omitted []policy.Omission) []string {
	var names []string
	for _, o := range omitted {
		names = append(names, o.Field+" (Prometheus "+o.Since.String()+")")
	}
	return names
}

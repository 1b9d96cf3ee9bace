package promconfig

import (
	"bytes"
	"fmt"
	"runtime"
)

// The memory that an edit needs at its peak, in bytes, per piece of structure, per byte, and
// per node that is written at a time. [TestEstimate] compares it with measurements.
const (
	splicePiece, spliceByte   = 260, 8
	rewritePiece, rewriteByte = 430, 16
	writtenNode               = 1100
	// flowPiece is the value for a root in flow style: package v4 reads all of it before it
	// creates the first node.
	flowPiece = 1700
)

// TooLargeError means that an edit may need more memory than is available.
type TooLargeError struct {
	Config, Need, Have int64 // in bytes
}

// Error implements error.
func (e *TooLargeError) Error() string {
	return fmt.Sprintf(
		"an edit of the configuration (%d KiB) may need %d MiB of memory, and has %d MiB",
		e.Config>>10,
		e.Need>>20,
		e.Have>>20,
	)
}

// Needs returns an estimate of the memory, in bytes, that an edit of the configuration needs if the
// blocks can be put into its text.
func Needs(config []byte) int64 { return needs(config, splice, 0) }

// Most returns the size in bytes of the longest configuration that can be edited in that much
// memory. A longer one needs more, whatever its content.
func Most(memory int64) int64 { return memory / spliceByte }

func needs(config []byte, m strategy, written int) int64 {
	perPiece, perByte := int64(splicePiece), int64(spliceByte)
	if m != splice {
		perPiece, perByte = rewritePiece, rewriteByte
	}
	if hasFlowRoot(config) {
		perPiece = flowPiece
	}
	return pieces(config)*perPiece + int64(len(config))*perByte + int64(written)*writtenNode
}

// enough returns an error if an edit with that strategy may need more than memory bytes. written
// is the number of nodes that are written at a time. With memory 0 there is no limit.
func enough(config []byte, m strategy, written int, memory int64) error {
	if memory == 0 {
		return nil
	}
	if need := needs(config, m, written); need > memory {
		return &TooLargeError{int64(len(config)), need, memory}
	}
	return nil
}

// hasFlowRoot reports whether the first document's content begins with a flow collection.
func hasFlowRoot(config []byte) bool {
	for line := range bytes.Lines(bytes.TrimPrefix(config, bom)) {
		line = bytes.TrimSpace(bytes.TrimPrefix(line, []byte("---")))
		for len(line) > 0 && (line[0] == '&' || line[0] == '!') { // an anchor, or a tag
			_, line, _ = bytes.Cut(line, []byte(" "))
			line = bytes.TrimSpace(line)
		}
		if len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return line[0] == '{' || line[0] == '['
		}
	}
	return false
}

// pieces returns an upper limit for the number of fields and entries.
func pieces(config []byte) (n int64) {
	for _, c := range []string{",", ":", "[", "{", "\n", "#", "- ", "-\t", "-\n", "-\r"} {
		n += int64(bytes.Count(config, []byte(c)))
	}
	return n
}

// collect frees unused memory between two trees of a large configuration. Without it, the garbage
// collector would run only after the second tree has grown beside the first.
func collect(config []byte) {
	if len(config) > 256<<10 {
		runtime.GC()
	}
}

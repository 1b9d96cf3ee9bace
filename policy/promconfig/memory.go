package promconfig

import (
	"bytes"
	"fmt"
	"runtime"
)

// What an edit needs at its peak, in bytes, for each piece of structure, each byte, and
// each node that is written at a time. [TestEstimate] compares with what it takes.
const (
	splicePiece, spliceByte   = 260, 8
	rewritePiece, rewriteByte = 430, 16
	writtenNode               = 1100
	// flowPiece is that of a root in flow style: package v4 reads all of it before it
	// makes the first node.
	flowPiece = 1700
)

// TooLargeError says that an edit may need more memory than there is.
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

// Needs returns how many bytes of memory an edit of the configuration may need, as far as
// that can be told before it: where the blocks can be put into its text.
func Needs(config []byte) int64 { return needs(config, splice, 0) }

// Most returns how long a configuration may be, in bytes, that can be edited in so much
// memory: one that is longer needs more, whatever is in it.
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

// enough returns an error where an edit with that strategy, which writes so many nodes at
// a time, may need more than memory; 0 bounds nothing.
func enough(config []byte, m strategy, written int, memory int64) error {
	if memory == 0 {
		return nil
	}
	if need := needs(config, m, written); need > memory {
		return &TooLargeError{int64(len(config)), need, memory}
	}
	return nil
}

// hasFlowRoot reports whether the first document's content opens a flow collection.
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

// pieces is at least as large as the number of fields and entries.
func pieces(config []byte) (n int64) {
	for _, c := range []string{",", ":", "[", "{", "\n", "#", "- ", "-\t", "-\n", "-\r"} {
		n += int64(bytes.Count(config, []byte(c)))
	}
	return n
}

// collect frees what is no longer used, between two trees of a large configuration: the
// collector would wait until the second one has grown beside the first.
func collect(config []byte) {
	if len(config) > 256<<10 {
		runtime.GC()
	}
}

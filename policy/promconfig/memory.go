package promconfig

import (
	"bytes"
	"fmt"
)

// What an edit needs at its peak, in bytes, measured with configurations of
// nothing but short lists, empty fields or nested lists: so much for each piece
// of structure, and for each byte. Writing a tree out takes most.
const (
	splicePiece, rewritePiece = 450, 2200
	perByte                   = 16
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

// enough returns an error where an edit with that strategy may need more than memory;
// 0 bounds nothing.
func enough(config []byte, m strategy, memory int64) error {
	if memory == 0 {
		return nil
	}
	perPiece := int64(splicePiece)
	if m != splice {
		perPiece = rewritePiece
	}
	if need := pieces(config)*perPiece + int64(len(config))*perByte; need > memory {
		return &TooLargeError{int64(len(config)), need, memory}
	}
	return nil
}

// pieces is at least as large as the number of fields and entries.
func pieces(config []byte) (n int64) {
	for _, c := range []string{",", ":", "[", "{", "\n", "- ", "-\t", "-\n", "-\r"} {
		n += int64(bytes.Count(config, []byte(c)))
	}
	return n
}

package awstest

import (
	"bytes"
	"strings"
	"testing"
)

// The encodings are from the format's description, element by element.
func TestUnsnap(t *testing.T) {
	long := strings.Repeat("0123456789", 7)
	tests := []struct {
		name, in, want string
	}{
		{"empty", "\x00", ""},
		{"literal", "\x05\x10hello", "hello"},
		{"literal with a length byte", "\x46\xf0\x45" + long, long},
		{"literal with two length bytes", "\x46\xf4\x45\x00" + long, long},
		{"copy, one byte of offset", "\x08\x0cabcd\x01\x04", "abcdabcd"},
		{"copy, two bytes of offset", "\x08\x0cabcd\x0e\x04\x00", "abcdabcd"},
		{"copy, four bytes of offset", "\x08\x0cabcd\x0f\x04\x00\x00\x00", "abcdabcd"},
		{"copy that overlaps itself", "\x06\x04ab\x0e\x02\x00", "ababab"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := unsnap([]byte(test.in))
			if err != nil || !bytes.Equal(got, []byte(test.want)) {
				t.Errorf("unsnap() = %q, %v, want %q", got, err, test.want)
			}
		})
	}
	for _, broken := range []string{"", "\x05", "\x05\x10hell", "\x04\x10hello", "\x08\x0cabcd\x01\x05", "\x08\x0cabcd\x01\x00",
		"\xff\xff\xff\xff\x0f", "\x05\xf0"} {
		if got, err := unsnap([]byte(broken)); err == nil {
			t.Errorf("unsnap(%q) = %q, want an error", broken, got)
		}
	}
}

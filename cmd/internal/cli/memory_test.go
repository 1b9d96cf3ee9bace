package cli

import (
	"testing"
	"testing/fstest"
)

func TestContainerLimit(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	for _, test := range []struct {
		name   string
		cgroup fstest.MapFS
		want   int64
	}{
		{"version 2", fstest.MapFS{"memory.max": file("134217728\n")}, 128 << 20},
		{"version 2, no limit", fstest.MapFS{"memory.max": file("max\n")}, 0},
		{"version 1", fstest.MapFS{"memory/memory.limit_in_bytes": file("134217728\n")}, 128 << 20},
		{"version 1, no limit", fstest.MapFS{"memory/memory.limit_in_bytes": file("9223372036854771712\n")}, 0},
		{"not to be read", fstest.MapFS{"memory.max": file("lots")}, 0},
		{"negative", fstest.MapFS{"memory.max": file("-1")}, 0},
		{"none", fstest.MapFS{}, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := containerLimit(test.cgroup); got != test.want {
				t.Errorf("got %d, want %d", got, test.want)
			}
		})
	}
}

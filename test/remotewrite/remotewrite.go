// Package remotewrite encodes requests of Prometheus's remote write 1.0
// (https://prometheus.io/docs/specs/prw/remote_write_spec/), for tests that need no
// Prometheus to send them.
package remotewrite

import (
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Sample returns the body of a request with one sample of a series that has no label
// but its name. The name must be short: the body must have at most 60 bytes.
func Sample(name string, value float64, at time.Time) []byte {
	label := field(field(nil, 1, []byte("__name__")), 2, []byte(name))
	sample := protowire.AppendFixed64(protowire.AppendTag(nil, 1, protowire.Fixed64Type), math.Float64bits(value))
	sample = protowire.AppendVarint(protowire.AppendTag(sample, 2, protowire.VarintType), uint64(at.UnixMilli()))
	return snappy(field(nil, 1, field(field(nil, 1, label), 2, sample)))
}

func field(b []byte, number protowire.Number, message []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, number, protowire.BytesType), message)
}

// snappy returns a block that is not compressed: the length, and one literal of up to
// 60 bytes (https://github.com/google/snappy/blob/main/format_description.txt).
func snappy(data []byte) []byte {
	if len(data) > 60 {
		panic("longer than a short literal")
	}
	return append([]byte{byte(len(data)), byte(len(data)-1) << 2}, data...)
}

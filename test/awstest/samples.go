package awstest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// maxSampleAge is the age of the oldest sample that AMP accepts.
const maxSampleAge = time.Hour

// batch is what the double reads of a remote write request.
type batch struct {
	samples int // samples and histograms
	oldest  time.Time
}

// Fields of a remote write 1.0 request.
// https://github.com/prometheus/prometheus/blob/main/prompb/types.proto
const (
	requestSeries      protowire.Number = 1
	seriesSamples      protowire.Number = 2
	seriesHistograms   protowire.Number = 4
	sampleTimestamp    protowire.Number = 2 // milliseconds since the epoch
	histogramTimestamp protowire.Number = 15
)

// readBatch parses the compressed body of a remote write request.
func readBatch(body []byte) (batch, error) {
	b := batch{oldest: time.UnixMilli(math.MaxInt64)}
	err := EachSample(body, func(at int64) {
		b.samples++
		if t := time.UnixMilli(at); t.Before(b.oldest) {
			b.oldest = t
		}
	})
	return b, err
}

// EachSample calls visit with the time of each sample and histogram in the compressed body
// of a remote write 1.0 request, in milliseconds since the epoch.
func EachSample(body []byte, visit func(at int64)) error {
	message, err := unsnap(body)
	if err != nil {
		return err
	}
	return eachField(message, func(field protowire.Number, series []byte, _ uint64) error {
		if field != requestSeries {
			return nil
		}
		return eachField(series, func(field protowire.Number, sample []byte, _ uint64) error {
			timestamp := sampleTimestamp
			switch field {
			case seriesSamples:
			case seriesHistograms:
				timestamp = histogramTimestamp
			default:
				return nil
			}
			return eachField(sample, func(field protowire.Number, _ []byte, value uint64) error {
				if field == timestamp {
					visit(int64(value))
				}
				return nil
			})
		})
	})
}

// eachField calls visit with each field of a message: its bytes, or its value if it is a number.
func eachField(message []byte, visit func(field protowire.Number, content []byte, value uint64) error) error {
	for len(message) > 0 {
		field, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		var content []byte
		var value uint64
		switch kind {
		case protowire.BytesType:
			content, n = protowire.ConsumeBytes(message)
		case protowire.VarintType:
			value, n = protowire.ConsumeVarint(message)
		case protowire.Fixed64Type:
			value, n = protowire.ConsumeFixed64(message)
		default:
			n = protowire.ConsumeFieldValue(field, kind, message)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		message = message[n:]
		if err := visit(field, content, value); err != nil {
			return err
		}
	}
	return nil
}

var errSnappy = errors.New("the body is not snappy")

// maxUnsnapped is the size of the largest request after decompression, in bytes.
const maxUnsnapped = 64 << 20

// unsnap decodes a snappy block.
// https://github.com/google/snappy/blob/main/format_description.txt
func unsnap(in []byte) ([]byte, error) {
	size, n := binary.Uvarint(in)
	if n <= 0 {
		return nil, errSnappy
	}
	if size > maxUnsnapped {
		return nil, fmt.Errorf("%d bytes are more than a request may unpack to", size)
	}
	in = in[n:]
	out := make([]byte, 0, size)
	for len(in) > 0 {
		tag := in[0]
		in = in[1:]
		length, extra := int(tag>>2)+1, 0 // the number, and the bytes that follow the tag
		switch tag & 3 {
		case 0:
			if length > 60 {
				extra = length - 60
			}
		case 1:
			length, extra = int(tag>>2&7)+4, 1
		case 2:
			extra = 2
		case 3:
			extra = 4
		}
		if len(in) < extra {
			return nil, errSnappy
		}
		number := 0
		for i := range extra {
			number |= int(in[i]) << (8 * i)
		}
		in = in[extra:]
		if tag&3 == 0 {
			if extra > 0 {
				length = number + 1
			}
			if length > len(in) {
				return nil, errSnappy
			}
			out, in = append(out, in[:length]...), in[length:]
			continue
		}
		if tag&3 == 1 {
			number |= int(tag>>5) << 8
		}
		if number == 0 || number > len(out) || uint64(len(out)+length) > size {
			return nil, errSnappy
		}
		for range length { // a copy may overlap the part that it writes
			out = append(out, out[len(out)-number])
		}
	}
	if uint64(len(out)) != size {
		return nil, errSnappy
	}
	return out, nil
}

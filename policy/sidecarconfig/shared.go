package sidecarconfig

import (
	"encoding/json"
	"strconv"
	"strings"
)

// Shared encodes the configs of pods with the same policy and entitlement. The parts
// that depend only on these two are encoded once.
type Shared struct {
	// head is the text before the name of the file, middle the text up to
	// [Config.Private], and tail the text from [Config.Token] to [Config.Destinations].
	head, middle, tail string
}

// NewShared returns an encoder for configs that differ from c only in the pod's own
// members: File, Private, Prometheus, MountPoints, MetricsPort.
func NewShared(c Config) *Shared {
	c.File, c.Private, c.Prometheus, c.MountPoints, c.MetricsPort = "", false, Prometheus{}, nil, 0
	var s Shared
	// Neither text can be inside a JSON string, because a quotation mark has a backslash there.
	head, rest, _ := strings.Cut(c.Encode(), `"file":""`)
	middle, tail, _ := strings.Cut(rest, `,"token":`)
	s.head, s.middle, s.tail = head+`"file":`, middle, `,"token":`+strings.TrimSuffix(tail, "}")
	return &s
}

// Size returns the encoder's size in bytes.
func (s *Shared) Size() int { return len(s.head) + len(s.middle) + len(s.tail) }

// Append appends the text that [Config.Encode] returns for c.
func (s *Shared) Append(b []byte, c Config) []byte {
	b = appendString(append(b, s.head...), c.File)
	b = append(b, s.middle...)
	if c.Private {
		b = append(b, `,"private":true`...)
	}
	b = append(b, s.tail...)
	if c.Prometheus != (Prometheus{}) {
		b = c.Prometheus.append(append(b, `,"prometheus":`...))
	}
	for i, m := range c.MountPoints {
		if i == 0 {
			b = append(b, `,"mountPoints":[`...)
		} else {
			b = append(b, ',')
		}
		b = m.append(b)
	}
	if len(c.MountPoints) > 0 {
		b = append(b, ']')
	}
	if c.MetricsPort != 0 {
		b = strconv.AppendInt(append(b, `,"metricsPort":`...), int64(c.MetricsPort), 10)
	}
	return append(b, '}')
}

func (p Prometheus) append(b []byte) []byte {
	b = appendString(append(b, `{"address":`...), p.Address)
	if p.Prefix != "" {
		b = appendString(append(b, `,"prefix":`...), p.Prefix)
	}
	if p.TLS {
		b = append(b, `,"tls":true`...)
	}
	if p.Version != "" {
		b = appendString(append(b, `,"version":`...), p.Version)
	}
	return append(b, '}')
}

func (m MountPoint) append(b []byte) []byte {
	b = appendString(append(b, `{"name":`...), m.Name)
	if m.File {
		b = append(b, `,"file":true`...)
	}
	return append(b, '}')
}

// appendString quotes s as encoding/json does.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || strings.IndexByte(`"\<>&`, c) >= 0 {
			text, err := json.Marshal(s)
			if err != nil {
				panic(err) // cannot happen: strings always encode
			}
			return append(b, text...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

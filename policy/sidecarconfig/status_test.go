package sidecarconfig

import (
	"strings"
	"testing"
	"time"
)

func TestGap(t *testing.T) {
	at := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name   string
		status DestinationStatus
		want   time.Duration
	}{
		{"none", DestinationStatus{}, 0},
		{"over", DestinationStatus{GapSeconds: 2.5}, 2500 * time.Millisecond},
		{"goes on", DestinationStatus{GapSince: at.Add(-time.Minute)}, time.Minute},
		{"the second one goes on", DestinationStatus{GapSeconds: 30, GapSince: at.Add(-time.Minute)}, 90 * time.Second},
		{"the reader's clock is behind", DestinationStatus{GapSeconds: 30, GapSince: at.Add(time.Minute)}, 30 * time.Second},
	} {
		if got := c.status.Gap(at); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestDecodeStatus(t *testing.T) {
	s, err := DecodeStatus(
		[]byte(`{"started":"2026-01-01T00:00:00Z","error":"no","destinations":[{"name":"a","gapSeconds":1}],"later":{}}`),
	)
	if err != nil || s.Error != "no" || len(s.Destinations) != 1 {
		t.Errorf("with a field of a later version: %+v, %v", s, err)
	}
	for text, want := range map[string]string{"": "unexpected end", "[]": "cannot unmarshal", "{}": "started is missing"} {
		if _, err := DecodeStatus([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("DecodeStatus(%q) = %v, want %q", text, err, want)
		}
	}
}

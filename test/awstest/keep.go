package awstest

import (
	"fmt"
	"maps"
	"math"
	"net/http"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
)

// Kept is a sample from a remote write request.
type Kept struct {
	Sample
	// Stored is true if the workspace accepted it. If a request is refused because of one sample, the others are
	// stored.
	Stored bool
	// Status is the HTTP status of the answer; 0 if the
	// connection was cut.
	Status int
	// Code is the error's code, such as AccessDeniedException; empty for success.
	Code string
}

// Kept returns every sample of the metric that remote write requests have sent to the workspace
// (its ID) so far. [Options.Keep] must name the metric. Refused samples are included, and a
// repeated sample is included each time.
func (c *Cloud) Kept(workspace, metric string) []Kept {
	c.kept.mu.Lock()
	defer c.kept.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.kept.samples[workspace]), func(k Kept) bool { return k.Metric["__name__"] != metric })
}

// keeper keeps samples of some metrics, by workspace.
type keeper struct {
	mu      sync.Mutex
	samples map[string][]Kept
	// newest is the latest accepted sample of each series, by workspace and labels.
	newest map[string]Sample
}

// take checks the samples as a workspace's store does, if there is no Prometheus: times in a series must grow.
// It returns which of them it accepted, and an error if it did not accept all.
func (k *keeper) take(workspace string, samples []Sample) (stored []bool, refused error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.newest == nil {
		k.newest = map[string]Sample{}
	}
	for _, s := range samples {
		key := fmt.Sprint(workspace, s.Metric)
		last, known := k.newest[key]
		fresh := !known || s.Time.After(last.Time)
		if fresh {
			k.newest[key] = s
		}
		took := fresh || s.Time.Equal(last.Time) && s.Value == last.Value
		if !took {
			refused = apiErrf(http.StatusBadRequest, "ValidationException", "out of order sample of %v", s.Metric)
		}
		stored = append(stored, took)
	}
	return stored, refused
}

// add stores the samples of a request after it was answered.
func (k *keeper) add(a *ampCall, metrics []string) {
	samples, _ := samplesOf(a.body, metrics) // a body that cannot be parsed has none
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.samples == nil {
		k.samples = map[string][]Kept{}
	}
	for i, s := range samples {
		stored := a.record.Status/100 == 2
		if len(a.stored) == len(samples) {
			stored = a.stored[i]
		}
		k.samples[a.workspace] = append(k.samples[a.workspace], Kept{s, stored, a.record.Status, a.record.Code})
	}
}

// Fields of a remote write 1.0 request, in addition to those in samples.go.
const (
	seriesLabels protowire.Number = 1
	labelName    protowire.Number = 1
	labelValue   protowire.Number = 2
	sampleValue  protowire.Number = 1
)

// samplesOf returns the samples of those metrics in the compressed body of a remote write request.
func samplesOf(body []byte, metrics []string) ([]Sample, error) {
	message, err := unsnap(body)
	if err != nil {
		return nil, err
	}
	var found []Sample
	err = eachField(message, func(field protowire.Number, series []byte, _ uint64) error {
		if field != requestSeries {
			return nil
		}
		labels := map[string]string{}
		var samples []Sample
		err := eachField(series, func(field protowire.Number, content []byte, _ uint64) error {
			switch field {
			case seriesLabels:
				var name, value string
				err := eachField(content, func(field protowire.Number, text []byte, _ uint64) error {
					switch field {
					case labelName:
						name = string(text)
					case labelValue:
						value = string(text)
					}
					return nil
				})
				labels[name] = value
				return err
			case seriesSamples:
				var s Sample
				err := eachField(content, func(field protowire.Number, _ []byte, number uint64) error {
					switch field {
					case sampleValue:
						s.Value = math.Float64frombits(number)
					case sampleTimestamp:
						s.Time = time.UnixMilli(int64(number))
					}
					return nil
				})
				samples = append(samples, s)
				return err
			}
			return nil
		})
		if !slices.Contains(metrics, labels["__name__"]) {
			return err
		}
		for _, s := range samples {
			s.Metric = maps.Clone(labels)
			found = append(found, s)
		}
		return err
	})
	return found, err
}

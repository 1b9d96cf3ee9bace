//go:build collectors

package snippets

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/grafana/grafana-plugin-sdk-go/backend"
	"github.com/grafana/grafana-plugin-sdk-go/backend/httpclient"
)

// TestGrafanaSDK: the code that Grafana's data sources read their settings with finds how
// to sign in them, with the identity of the pod.
func TestGrafanaSDK(t *testing.T) {
	source := provisioned(t)
	settings := backend.DataSourceInstanceSettings{
		Name: source.Name, Type: source.Type, URL: source.URL, JSONData: source.JSONData,
	}
	options, err := settings.HTTPClientOptions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := &httpclient.SigV4Config{AuthType: "default", Region: "eu-west-1"}
	if diff := cmp.Diff(want, options.SigV4); diff != "" {
		t.Errorf("SigV4 (-want +got):\n%s", diff)
	}
	if options.BasicAuth != nil {
		t.Errorf("basic authentication: %+v", options.BasicAuth)
	}
	// A name that the SDK does not know is left out.
	settings.JSONData = json.RawMessage(strings.Replace(string(source.JSONData), "sigV4Auth\"", "sigv4Auth\"", 1))
	options, err = settings.HTTPClientOptions(t.Context())
	if err != nil || options.SigV4 != nil {
		t.Errorf("a misspelled sigV4Auth: %+v, %v", options.SigV4, err)
	}
}

package snippets

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"
)

// provisioning is a file of Grafana's folder provisioning/datasources, with the fields
// that Grafana documents
// (https://grafana.com/docs/grafana/latest/administration/provisioning/#data-sources).
type provisioning struct {
	APIVersion        int
	Prune             bool
	DeleteDatasources []any
	Datasources       []datasource
}

type datasource struct {
	Name            string
	Type            string
	Access          string
	OrgID           int64
	UID             string
	URL             string
	User            string
	Database        string
	BasicAuth       bool
	BasicAuthUser   string
	WithCredentials bool
	IsDefault       bool
	JSONData        json.RawMessage
	SecureJSONData  map[string]string
	Version         int
	Editable        bool
}

// provisioned returns the only data source of the snippet.
func provisioned(t *testing.T) datasource {
	t.Helper()
	goldens(t, "grafana.", 1)
	var file provisioning
	if err := yaml.UnmarshalStrict([]byte(read(t, "grafana.collector")), &file); err != nil {
		t.Fatal(err)
	}
	if file.APIVersion != 1 || len(file.Datasources) != 1 {
		t.Fatalf("%+v", file)
	}
	return file.Datasources[0]
}

// TestGrafana: the snippet has the documented fields and no others.
func TestGrafana(t *testing.T) {
	got := provisioned(t)
	// The fields of jsonData that the Prometheus data source and SigV4 have.
	var settings struct {
		HTTPMethod    string
		SigV4Auth     bool
		SigV4AuthType string
		SigV4Region   string
	}
	if err := yaml.UnmarshalStrict(got.JSONData, &settings); err != nil {
		t.Error(err)
	}
	if settings.HTTPMethod != "POST" {
		t.Errorf("httpMethod is %q, want POST: long queries do not fit into a URL", settings.HTTPMethod)
	}
	got.JSONData = nil
	if diff := cmp.Diff(datasource{
		Name: "reader", Type: "grafana-amazonprometheus-datasource", Access: "proxy",
		URL: "https://aps-workspaces.eu-west-1.amazonaws.com/workspaces/ws-0001/",
	}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

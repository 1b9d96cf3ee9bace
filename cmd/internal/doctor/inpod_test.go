package doctor

import (
	"testing"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/policy/sidecarconfig"
)

// In a pod, doctor uses the STS, external ID, proxy and CA that the sidecar config has for
// each destination.
func TestReadSidecarConfig(t *testing.T) {
	const role = "arn:aws:iam::111122223333:role/one"
	c := sidecarconfig.Config{
		Version: sidecarconfig.VersionRelay, Cluster: "dev", Source: "s", Target: "t", File: "f", Credentials: "c", Token: "token",
		STS: sidecarconfig.STS{Endpoint: "https://sts.example", ProxyURL: "http://proxy.example"},
		Destinations: []sidecarconfig.Destination{
			{Name: "central", Role: role, Region: "eu-west-1", Delivery: policy.DeliveryRelay},
			{
				Name: "far", Role: role, AssumeRole: "arn:aws:iam::444455556666:role/two", ExternalID: "id", Region: "us-east-1",
				Delivery: policy.DeliverySigV4, STS: &sidecarconfig.STS{Endpoint: "https://far.example"},
				AMP: sidecarconfig.AMP{ProxyURL: "http://amp-proxy.example"},
			},
		},
	}
	got, err := readSidecarConfig(map[string]string{sidecarconfig.Variable: c.Encode()})
	if err != nil || got.config == nil || len(got.destinations) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	central, far := got.destinations[0], got.destinations[1]
	if central.sts.Endpoint != "https://sts.example" || central.sts.ProxyURL != "http://proxy.example" || central.externalID != "" ||
		!central.assumeRole.IsZero() || central.amp.ProxyURL != "" {
		t.Errorf("central: %+v", central)
	}
	if far.sts.Endpoint != "https://far.example" || far.sts.ProxyURL != "" || far.externalID != "id" || far.assumeRole.IsZero() ||
		far.amp.ProxyURL != "http://amp-proxy.example" || far.region != "us-east-1" {
		t.Errorf("far: %+v", far)
	}
}

func TestHTTPClientNamesWhatIsWrong(t *testing.T) {
	for _, c := range []struct{ proxy, ca, want string }{
		{"", "", ""}, {"http://proxy.example:3128", "", ""}, {"http://[", "", "proxyURL is not a URL"},
		{"", "not PEM", "caBundle contains no certificate"},
	} {
		_, err := httpClient(c.proxy, c.ca)
		if err == nil && c.want != "" || err != nil && err.Error() != c.want {
			t.Errorf("%q %q: %v, want %q", c.proxy, c.ca, err, c.want)
		}
	}
}

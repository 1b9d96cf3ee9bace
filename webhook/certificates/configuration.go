package certificates

import (
	"encoding/json"
	"fmt"

	admissionv1 "k8s.io/api/admissionregistration/v1"
)

// placesOf are the places of the entries that call the Service; all others are
// somebody else's.
func placesOf(configuration *admissionv1.MutatingWebhookConfiguration, namespace, service string) (places []int) {
	if configuration == nil {
		return nil
	}
	for i, w := range configuration.Webhooks {
		if s := w.ClientConfig.Service; s != nil && s.Namespace == namespace && s.Name == service {
			places = append(places, i)
		}
	}
	return places
}

// bundles are those of our entries.
func bundles(configuration *admissionv1.MutatingWebhookConfiguration, places []int) (b Bundles) {
	if configuration == nil {
		return b
	}
	// The generation counts changes of the entries, of one object.
	b.Version = fmt.Sprintf("%s/%d", configuration.UID, configuration.Generation)
	for _, i := range places {
		b.Entries = append(b.Entries, configuration.Webhooks[i].ClientConfig.CABundle)
	}
	return b
}

// bundlePatch is the JSON patch that puts the bundle into the entries at these
// places, and that the API server refuses as a conflict if the object is of
// another version.
func bundlePatch(resourceVersion string, places []int, bundle []byte) ([]byte, error) {
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	operations := []operation{{"replace", "/metadata/resourceVersion", resourceVersion}}
	for _, i := range places {
		operations = append(operations, operation{"add", fmt.Sprintf("/webhooks/%d/clientConfig/caBundle", i), bundle})
	}
	return json.Marshal(operations)
}

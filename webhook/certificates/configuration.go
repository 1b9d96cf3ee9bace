package certificates

import (
	"encoding/json"
	"fmt"

	admissionv1 "k8s.io/api/admissionregistration/v1"
)

// placesOf returns the indexes of the entries that call the Service. All other entries belong
// to others.
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

// bundles returns the CA bundles of our entries.
func bundles(configuration *admissionv1.MutatingWebhookConfiguration, places []int) (b Bundles) {
	if configuration == nil {
		return b
	}
	// An object's generation counts the changes of its entries.
	b.Version = fmt.Sprintf("%s/%d", configuration.UID, configuration.Generation)
	for _, i := range places {
		b.Entries = append(b.Entries, configuration.Webhooks[i].ClientConfig.CABundle)
	}
	return b
}

// bundlePatch returns the JSON patch that puts the bundle into the entries at these
// places. If the object has another version in the meantime, the API server refuses the patch
// as a conflict.
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

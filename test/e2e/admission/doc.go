// Package admission tests the webhook when it is registered in a real API server, from the view of a user who
// creates a pod.
package admission

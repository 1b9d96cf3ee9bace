// Package admission holds the tests of the webhook as it is registered in a real
// API server: what a person who creates a pod sees.
package admission

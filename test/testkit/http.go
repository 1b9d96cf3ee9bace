package testkit

import (
	"context"
	"net/http"
)

// Get returns the body of the answer to a GET request, like [Request].
func Get(ctx context.Context, url string) (string, error) {
	return Request(ctx, http.MethodGet, url)
}

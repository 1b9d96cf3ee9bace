package testkit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
)

// ReadBody returns the body of an HTTP answer, and closes it.
func ReadBody(t testing.TB, answer *http.Response) string {
	t.Helper()
	text, err := io.ReadAll(answer.Body)
	Must(t, errors.Join(err, answer.Body.Close()))
	return string(text)
}

// Request sends an HTTP request without a body, and returns the body of the answer. A status
// other than 2xx is an error.
func Request(ctx context.Context, method, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer func() { _ = answer.Body.Close() }() // read to its end
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, url, answer.Status, strings.TrimSpace(string(text)))
	}
	return string(text), err
}

// Get returns the body of the answer to a GET request, like [Request].
func Get(ctx context.Context, url string) (string, error) {
	return Request(ctx, http.MethodGet, url)
}

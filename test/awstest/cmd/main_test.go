package main

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/ampbridge/ampbridge/test/testkit"
)

// TestRun starts the command as a person would and takes the endpoint from what it prints.
func TestRun(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	reader, writer := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := run(ctx, []string{
			"--listen", "127.0.0.1:0", "--listen-tls", "127.0.0.1:0", "--short-sessions",
			"--workspace", "111122223333/eu-west-1/central", "--issuer", "https://issuer.example/one",
			"--issuer", "https://issuer.example/two=https://127.0.0.1:6443",
		}, writer, io.Discard)
		_ = writer.Close()
		ended <- err
	}()
	endpoint, found := "", map[string]bool{}
	lines := bufio.NewScanner(reader)
	for lines.Scan() && !strings.Contains(lines.Text(), "issuer https://issuer.example/two") {
		name, value, _ := strings.Cut(lines.Text(), "=")
		found[name] = true
		if name == "export AWS_ENDPOINT_URL" {
			endpoint = value
		}
	}
	for _, name := range []string{"export AWS_ACCESS_KEY_ID", "export AWS_SECRET_ACCESS_KEY", "TOKEN"} {
		if !found[name] {
			t.Errorf("the output has no %s", name)
		}
	}
	response, err := http.Post(
		endpoint,
		"application/x-www-form-urlencoded",
		strings.NewReader("Action=GetCallerIdentity&Version=2011-06-15"),
	)
	testkit.Must(t, err)
	body := testkit.ReadBody(t, response)
	if response.StatusCode != http.StatusForbidden || !strings.Contains(body, "MissingAuthenticationToken") {
		t.Errorf("unsigned call: %d %s", response.StatusCode, body)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestFlagsThatSayWhatIsWrong(t *testing.T) {
	for _, test := range []struct{ arguments, want string }{
		{"--workspace eu-west-1", `--workspace "eu-west-1": want account/region/alias`},
		{"--issuer http://issuer.example", `--issuer "http://issuer.example"`},
		{"central", `unexpected argument "central"`},
		{"--issuer https://issuer.example/two=https://127.0.0.1:1 --upstream-ca /nonexistent", "no such file"},
	} {
		arguments := append([]string{"--listen", "127.0.0.1:0", "--listen-tls", "127.0.0.1:0"}, strings.Fields(test.arguments)...)
		err := run(context.Background(), arguments, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error = %v, want %s", test.arguments, err, test.want)
		}
	}
}

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"unicode"

	"github.com/ampbridge/ampbridge/test/servingcert"
)

// compareOptions describe another webhook.
type compareOptions struct {
	// url is where it accepts reviews of pods; empty if there is none.
	url string
	// ca is a file with the CA certificates for its certificate; empty for those of the system.
	ca string
	// serverName is the name in its certificate; empty for the host of the URL.
	serverName string
}

// maxForeign limits how much of one answer of the other webhook is read, in bytes.
const maxForeign = 4 << 20

// check reads the CA file. It returns nil for the system's certificates.
func (o compareOptions) check() (ca []byte, err error) {
	if o.url == "" {
		if o.ca != "" || o.serverName != "" {
			return nil, errors.New("-ca and -server-name belong to -compare: name the other webhook with -compare https://HOST:PORT/PATH")
		}
		return nil, nil
	}
	u, err := url.Parse(o.url)
	if err != nil {
		return nil, fmt.Errorf("-compare: %w", err)
	}
	if u.Scheme != "https" || u.Hostname() == "" {
		return nil, fmt.Errorf("-compare: %q is not the URL of a webhook: write it like https://127.0.0.1:8443/mutate", o.url)
	}
	if o.ca == "" {
		return nil, nil
	}
	if ca, err = os.ReadFile(o.ca); err != nil {
		return nil, fmt.Errorf("-ca: %w", err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("-ca: %s has no certificate in PEM: take the one that signs the webhook's, such as the caBundle, decoded", o.ca)
	}
	return ca, nil
}

// answer is the part of an AdmissionReview that the comparison needs.
type answer struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Response   *struct {
		UID     string `json:"uid"`
		Allowed *bool  `json:"allowed"`
		Patch   []byte `json:"patch"`
	} `json:"response"`
}

// seen describes one answer of a webhook.
type seen struct {
	size, patch int
	allowed     bool
	http2       bool
}

// probe sends one review, and checks that the answer is an AdmissionReview for it.
func probe(ctx context.Context, client *http.Client, url string, body []byte) (s seen, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return s, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return s, err
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxForeign))
	if err != nil {
		return s, fmt.Errorf("%s: read the answer: %w", url, err)
	}
	if response.StatusCode != http.StatusOK {
		return s, fmt.Errorf("%s answers %s without an AdmissionReview: %s", url, response.Status, excerpt(text))
	}
	var a answer
	if err := json.Unmarshal(text, &a); err != nil {
		return s, fmt.Errorf("the answer of %s is not an AdmissionReview: %w: %s", url, err, excerpt(text))
	}
	// Webhooks that are registered for v1beta1 may omit version and kind.
	version := a.APIVersion == "" || strings.HasPrefix(a.APIVersion, "admission.k8s.io/")
	switch {
	case !version || a.Kind != "" && a.Kind != "AdmissionReview" || a.Response == nil || a.Response.Allowed == nil:
		return s, fmt.Errorf("the answer of %s is not an AdmissionReview: %s", url, excerpt(text))
	case a.Response.UID != uid:
		return s, fmt.Errorf("the answer of %s is for another review: its uid is %.80q, not %q", url, a.Response.UID, uid)
	}
	return seen{len(text), len(a.Response.Patch), *a.Response.Allowed, response.ProtoMajor == 2}, nil
}

// excerpt returns the beginning of an answer as one line.
func excerpt(text []byte) string {
	const most = 200
	cut := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, string(text[:min(len(text), most)]))
	if len(text) > most {
		cut += "…"
	}
	return cut
}

// measureCompared sends the same reviews to the webhook and to another one in turns.
func measureCompared(ctx context.Context, dir string, o compareOptions, foreign []byte, r *report) error {
	ca, err := servingcert.Write(dir, "127.0.0.1")
	if err != nil {
		return err
	}
	body, err := reviewOf(operatorPod)
	if err != nil {
		return err
	}
	other := side{url: o.url}
	clientOf := func(ca []byte, name string, http2 bool, clients int) *http.Client {
		client := newClient(ca, http2, clients)
		client.Transport.(*http.Transport).TLSClientConfig.ServerName = name
		return client
	}
	first := clientOf(foreign, o.serverName, true, 1)
	their, err := probe(ctx, first, other.url, body)
	first.CloseIdleConnections()
	if err != nil {
		return err
	}
	sides, _, err := startSides(ctx, dir, "", ca, body, "serve-webhook")
	if err != nil {
		return err
	}
	defer stopAll(sides)
	own := clientOf(ca, "", true, 1)
	our, err := probe(ctx, own, sides[0].url, body)
	own.CloseIdleConnections()
	if err != nil {
		return err
	}
	r.line("the same review of %d bytes, in turns; ampbridge's look-ups are answered in memory", len(body))
	r.line("ampbridge: %s", our)
	r.line("%s: %s", o.url, their)
	if their.patch == 0 {
		r.line("The other webhook leaves this pod (service account prometheus-k8s of namespace monitoring) unchanged, which takes less time: " +
			"configure it so that it changes the pod.")
	}
	r.line("%-9s %7s  %24s  %24s  %s", "", "", "ampbridge", "other", "ampbridge / other")
	r.line("%-9s %7s%s  %s", "", "clients", strings.Repeat(fmt.Sprintf("  %8s %7s %7s", "req/s", "p50 ms", "p99 ms"), 2), "req/s")
	for _, protocol := range []struct {
		name  string
		http2 bool
	}{{"HTTP/2", true}, {"HTTP/1.1", false}} {
		if protocol.http2 && !their.http2 {
			r.line("%-9s the other webhook does not support it", protocol.name)
			continue
		}
		for _, clients := range []int{1, 8, 32} {
			loads, err := alternate(ctx, []turn{
				{sides[0], clientOf(ca, "", protocol.http2, clients)}, {other, clientOf(foreign, o.serverName, protocol.http2, clients)},
			}, body, clients)
			if err != nil {
				return err
			}
			r.line("%-9s %7d%s%s  %5.2f", protocol.name, clients, loads[0], loads[1], loads[0].rate()/loads[1].rate())
		}
	}
	return nil
}

// String describes the answer.
func (s seen) String() string {
	verdict := "admits the pod"
	if !s.allowed {
		verdict = "refuses the pod"
	}
	return fmt.Sprintf("%s; answer %d bytes, patch %d bytes", verdict, s.size, s.patch)
}

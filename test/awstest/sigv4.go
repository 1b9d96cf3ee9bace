package awstest

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Signature Version 4, on the receiver's side: the double signs the request again, over exactly
// the headers that the client signed, and compares the two signatures.
// https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html

const (
	signingAlgorithm = "AWS4-HMAC-SHA256"
	signingTime      = "20060102T150405Z"
	maxClockSkew     = 5 * time.Minute
)

// authFailure is why a request is not authentic. Each service has its own code for it.
type authFailure int

const (
	missingToken authFailure = iota
	incompleteSignature
	unknownKey
	expiredToken
	wrongSignature
)

// signature is a parsed Authorization header.
type signature struct {
	accessKeyID string
	date        string // YYYYMMDD
	region      string
	service     string
	headers     []string // signed, in lower case
	mac         string   // hex
}

// parseSignature reads the Authorization header.
func parseSignature(header string) (s signature, ok bool) {
	parameters, found := strings.CutPrefix(header, signingAlgorithm+" ")
	if !found {
		return s, false
	}
	for parameter := range strings.SplitSeq(parameters, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(parameter), "=")
		switch name {
		case "Credential":
			scope := strings.Split(value, "/")
			if len(scope) != 5 || scope[4] != "aws4_request" {
				return s, false
			}
			s.accessKeyID, s.date, s.region, s.service = scope[0], scope[1], scope[2], scope[3]
		case "SignedHeaders":
			s.headers = strings.Split(value, ";")
		case "Signature":
			s.mac = value
		}
	}
	return s, s.accessKeyID != "" && len(s.headers) > 0 && s.mac != ""
}

// authenticate finds out who signed the request. It returns the credential, or a
// failure with its message.
func (c *Cloud) authenticate(r *http.Request, body []byte, service string) (*credential, signature, authFailure, string) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return nil, signature{}, missingToken, "Request is missing Authentication Token"
	}
	s, ok := parseSignature(header)
	if !ok {
		return nil, s, incompleteSignature, "Authorization header requires existence of Credential, SignedHeaders and Signature parameters."
	}
	if service != s.service {
		return nil, s, wrongSignature, fmt.Sprintf("Credential should be scoped to correct service: '%s'.", service)
	}
	c.mu.Lock()
	credential := c.credentials[s.accessKeyID]
	now := c.now()
	c.mu.Unlock()
	if credential == nil || r.Header.Get("X-Amz-Security-Token") != credential.SessionToken {
		return nil, s, unknownKey, "The security token included in the request is invalid."
	}
	if failure := s.stale(r.Header.Get("X-Amz-Date")); failure != "" {
		return nil, s, wrongSignature, failure
	}
	if !s.coversWhatItMust(r) || !s.coversBody(r, body) || !hmac.Equal([]byte(s.mac), []byte(s.sign(r, body, credential.SecretAccessKey))) {
		return nil, s, wrongSignature, "The request signature we calculated does not match the signature you provided. " +
			"Check your AWS Secret Access Key and signing method. Consult the service documentation for details."
	}
	if !credential.expires.IsZero() && !now.Before(credential.expires) {
		return nil, s, expiredToken, "The security token included in the request is expired"
	}
	return credential, s, 0, ""
}

// stale returns what is wrong with the time of signing. Clients sign by the real
// clock, even if the double's clock was moved.
func (s signature) stale(date string) string {
	signed, err := time.Parse(signingTime, date)
	if err != nil || !strings.HasPrefix(date, s.date) {
		return "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP"
	}
	now := time.Now().UTC()
	switch {
	case signed.Before(now.Add(-maxClockSkew)):
		return fmt.Sprintf("Signature expired: %s is now earlier than %s (%s - 5 min.)",
			date, now.Add(-maxClockSkew).Format(signingTime), now.Format(signingTime))
	case signed.After(now.Add(maxClockSkew)):
		return fmt.Sprintf("Signature not yet current: %s is still later than %s (%s + 5 min.)",
			date, now.Add(maxClockSkew).Format(signingTime), now.Format(signingTime))
	}
	return ""
}

// coversWhatItMust reports whether all headers that AWS requires are signed. S3 requires each
// x-amz- header. The other services accept a session token that is not signed, as in the case
// "post-sts-header-after" of AWS's test suite for signatures; vmagent's signer sends such requests.
// The token needs no signature, because it is compared with the token of the access key.
func (s signature) coversWhatItMust(r *http.Request) bool {
	must := []string{"host", "x-amz-date"}
	if s.service == "s3" {
		for name := range r.Header {
			if name = strings.ToLower(name); strings.HasPrefix(name, "x-amz-") {
				must = append(must, name)
			}
		}
	}
	return !slices.ContainsFunc(must, func(name string) bool { return !slices.Contains(s.headers, name) })
}

// coversBody reports whether the hash for S3 is that of the body. S3 uses the hash that the client
// sends.
func (s signature) coversBody(r *http.Request, body []byte) bool {
	return s.service != "s3" || r.Header.Get("X-Amz-Content-Sha256") == hex.EncodeToString(sha256Sum(body))
}

// sign returns the signature, in hex, that the request should have.
func (s signature) sign(r *http.Request, body []byte, secret string) string {
	var canonical strings.Builder
	path := r.URL.EscapedPath()
	if s.service != "s3" {
		path = escapedAgain(path)
	}
	fmt.Fprintf(&canonical, "%s\n%s\n%s\n", r.Method, path, canonicalQuery(r.URL.Query()))
	for _, name := range s.headers {
		fmt.Fprintf(&canonical, "%s:%s\n", name, signedValue(r, name))
	}
	fmt.Fprintf(&canonical, "\n%s\n%s", strings.Join(s.headers, ";"), hex.EncodeToString(sha256Sum(body)))

	scope := strings.Join([]string{s.date, s.region, s.service, "aws4_request"}, "/")
	toSign := strings.Join([]string{
		signingAlgorithm, r.Header.Get("X-Amz-Date"), scope, hex.EncodeToString(sha256Sum([]byte(canonical.String()))),
	}, "\n")
	key := []byte("AWS4" + secret)
	for _, part := range []string{s.date, s.region, s.service, "aws4_request", toSign} {
		key = mac(key, part)
	}
	return hex.EncodeToString(key)
}

func mac(key []byte, text string) []byte {
	h := hmac.New(sha256.New, key)
	h.Write([]byte(text))
	return h.Sum(nil)
}

// signedValue returns a header's value as it goes into the signature. Go's server removes
// the host, and for some requests the length, from the headers.
func signedValue(r *http.Request, name string) string {
	switch name {
	case "host":
		return r.Host
	case "content-length":
		return strconv.FormatInt(r.ContentLength, 10)
	}
	values := r.Header.Values(name)
	trimmed := make([]string, len(values))
	for i, value := range values {
		trimmed[i] = strings.Join(strings.Fields(value), " ")
	}
	return strings.Join(trimmed, ",")
}

// escapedAgain percent-encodes an encoded path, because every service except
// S3 requires that.
func escapedAgain(path string) string {
	if path == "" {
		return "/"
	}
	var b strings.Builder
	for i := range len(path) {
		if ch := path[i]; ch == '/' || unreserved(ch) {
			b.WriteByte(ch)
		} else {
			fmt.Fprintf(&b, "%%%02X", ch)
		}
	}
	return b.String()
}

func unreserved(ch byte) bool {
	return 'a' <= ch && ch <= 'z' || 'A' <= ch && ch <= 'Z' || '0' <= ch && ch <= '9' || strings.IndexByte("-_.~", ch) >= 0
}

func canonicalQuery(query url.Values) string {
	for _, values := range query {
		slices.Sort(values)
	}
	return strings.ReplaceAll(query.Encode(), "+", "%20")
}

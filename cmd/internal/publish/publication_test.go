package publish

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/ampbridge/ampbridge/policy"
	"github.com/ampbridge/ampbridge/test/testkit"
)

// jwk is a key as another implementation writes it, private or public.
func jwk(t *testing.T, key any, id, algorithm string) map[string]any {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKey{Key: key, KeyID: id, Algorithm: algorithm, Use: "sig"})
	testkit.Must(t, err)
	var members map[string]any
	testkit.Must(t, json.Unmarshal(text, &members))
	return members
}

func set(t *testing.T, keys ...map[string]any) []byte {
	t.Helper()
	text, err := json.Marshal(map[string]any{"keys": keys})
	testkit.Must(t, err)
	return text
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func with(members map[string]any, name string, value any) map[string]any {
	m := maps.Clone(members)
	m[name] = value
	return m
}

func without(members map[string]any, name string) map[string]any {
	m := maps.Clone(members)
	delete(m, name)
	return m
}

func TestPublicKeysAreTaken(t *testing.T) {
	for _, c := range []struct {
		algorithm string
		key       crypto.PublicKey
	}{
		{"RS256", must(rsa.GenerateKey(rand.Reader, 2048)).Public()},
		{"ES256", must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).Public()},
		{"ES384", must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)).Public()},
		{"ES512", must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader)).Public()},
	} {
		members := jwk(t, c.key, "one", c.algorithm)
		keys, err := ParseKeys(set(t, with(members, "x5t", "dropped")))
		if err != nil || len(keys) != 1 || keys[0].algorithm() != c.algorithm {
			t.Errorf("%s: %v, %v", c.algorithm, keys, err)
			continue
		}
		// What is published another implementation takes for the same key.
		var again jose.JSONWebKeySet
		if err := json.Unmarshal(Encode(keys), &again); err != nil || len(again.Keys) != 1 {
			t.Errorf("%s: %v: %s", c.algorithm, err, Encode(keys))
			continue
		}
		if comparable, ok := c.key.(interface{ Equal(crypto.PublicKey) bool }); !ok || !comparable.Equal(again.Keys[0].Key) {
			t.Errorf("%s: became another key: %s", c.algorithm, Encode(keys))
		}
		if strings.Contains(string(Encode(keys)), "x5t") {
			t.Errorf("%s: holds what nobody needs: %s", c.algorithm, Encode(keys))
		}
		keys, err = ParseKeys(set(t, without(members, "alg")))
		if err != nil || keys[0].algorithm() != c.algorithm {
			t.Errorf("%s, unsaid: %v, %v", c.algorithm, keys, err)
		}
	}
}

// Nothing but public keys gets out, however it is dressed up; and no error shows
// what a secret was.
func TestAnythingElseIsRefused(t *testing.T) {
	rsaKey, ecKey := must(rsa.GenerateKey(rand.Reader, 2048)), must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	public, ec := jwk(t, rsaKey.Public(), "one", "RS256"), jwk(t, ecKey.Public(), "two", "ES256")
	const secret = "c2VjcmV0LXRoYXQtbm9ib2R5LW1heS1zZWU"
	_, edwards, _ := ed25519.GenerateKey(rand.Reader)
	cases := map[string]struct {
		text []byte
		want string
	}{
		"a private RSA key":          {set(t, jwk(t, rsaKey, "one", "RS256")), `key "one" has the private member`},
		"a private EC key":           {set(t, jwk(t, ecKey, "two", "ES256")), `key "two" has the private member d`},
		"behind a public one":        {set(t, public, jwk(t, ecKey, "two", "ES256")), "keys[1]: "},
		"a secret":                   {set(t, map[string]any{"kty": "oct", "kid": "s", "k": secret}), "has the private member k"},
		"a secret without its value": {set(t, map[string]any{"kty": "oct", "kid": "s"}), "is symmetric"},
		"in capitals":                {set(t, with(public, "D", secret)), "has the private member D"},
		"empty":                      {set(t, with(public, "d", "")), "has the private member d"},
		"as a number":                {set(t, with(public, "p", 7)), "has the private member p"},
		"twice":                      {[]byte(`{"keys":[{"kty":"RSA","kid":"a","d":"` + secret + `","d":""}]}`), "not a key"},
		"two sets":                   {[]byte(`{"keys":[],"keys":[{"kty":"oct","k":"` + secret + `"}]}`), "not a key set"},
		"Edwards":                    {set(t, jwk(t, edwards.Public(), "ed", "EdDSA")), `type "OKP"`},
		"no kid":                     {set(t, without(public, "kid")), "the kid \"\""},
		"a kid of several words":     {set(t, with(public, "kid", "a\x1b[2Jb")), "visible ASCII"},
		"a kid twice":                {set(t, public, public), "is used twice"},
		"for encryption":             {set(t, with(public, "use", "enc")), `is for "enc"`},
		"a short key":                {set(t, with(public, "n", "AQAB")), "bits: want 2048"},
		"no modulus":                 {set(t, without(public, "n")), "bits: want 2048"},
		"an even exponent":           {set(t, with(public, "e", "Ag")), "exponent"},
		"not base64url":              {set(t, with(public, "n", "++//")), "not an RSA key"},
		"PS256":                      {set(t, with(public, "alg", "PS256")), `is for "PS256"`},
		"none":                       {set(t, with(public, "alg", "none")), `is for "none"`},
		"another curve's algorithm":  {set(t, with(ec, "alg", "ES512")), "on P-256 it is ES256"},
		"another curve":              {set(t, with(ec, "crv", "secp256k1")), "is on curve"},
		"off the curve":              {set(t, with(ec, "x", ec["y"])), "not a point of P-256"},
		"a short coordinate":         {set(t, with(ec, "x", "AQAB")), "it needs x and y of 32 bytes"},
		"both kinds":                 {set(t, with(ec, "n", "AQAB")), "not a key of P-256"},
		"no keys":                    {[]byte(`{"keys":[]}`), "without keys"},
		"an error page":              {[]byte("<html>" + secret), "not a key set: not JSON"},
		"a certificate":              {[]byte("-----BEGIN PRIVATE KEY-----\n" + secret), "not a key set: not JSON"},
		"text for a key":             {[]byte(`{"keys":["` + secret + `"]}`), "keys[0]: not a key"},
	}
	for _, name := range private {
		cases["the member "+name] = struct {
			text []byte
			want string
		}{set(t, with(public, name, secret)), "has the private member " + name}
	}
	for name, c := range cases {
		keys, err := ParseKeys(c.text)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v; want an error with %q", name, keys, err, c.want)
			continue
		}
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%s: the error shows the secret: %v", name, err)
		}
	}
}

const issuerURL = "https://issuer.example.com/dev"

func key(id, n string) Key { return Key{Type: "RSA", ID: id, N: n, E: "AQAB"} }

func ids(keys []Key) string {
	var list []string
	for _, k := range keys {
		list = append(list, k.ID)
	}
	return strings.Join(list, " ")
}

// A signing key is rotated: each step is a run, an hour after the last.
func TestRotation(t *testing.T) {
	var (
		published []Key
		state     State
		now       = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	)
	for i, step := range []struct {
		current, want     string
		forget, prune     bool
		added, kept, away string
	}{
		{current: "a", want: "a", added: "a"},
		{current: "a b", want: "a b", added: "b"},
		{current: "b", want: "b a", kept: "a"},
		{current: "b", want: "b a", kept: "a", prune: true}, // an hour gone, retained for two
		{current: "b", want: "b a", kept: "a"},              // expired, but --prune is not given
		{current: "a b", want: "a b"},                       // rolled back: it begins anew
		{current: "b", want: "b a", kept: "a", prune: true},
		{current: "b", want: "b a", kept: "a", prune: true, forget: true}, // somebody deleted the state
		{current: "b", want: "b a", kept: "a", prune: true},
		{current: "b", want: "b", away: "a", prune: true},
		{current: "b", want: "b", prune: true},
	} {
		if step.forget {
			state = State{}
		}
		in := Input{Issuer: issuerURL, Published: published, State: state, Retain: 2 * time.Hour, Prune: step.prune, Now: now}
		for id := range strings.FieldsSeq(step.current) {
			in.Current = append(in.Current, key(id, id))
		}
		p, err := Publish(in)
		testkit.Must(t, err)
		got := []string{ids(p.Keys), strings.Join(p.Added, " "), strings.Join(p.Retained, " "), strings.Join(p.Pruned, " ")}
		testkit.Equal(t, fmt.Sprintf("step %d: keys, added, retained, pruned", i), []string{step.want, step.added, step.kept, step.away}, got)
		published = p.Keys
		if state, err = ParseState(p.State.Encode()); err != nil {
			t.Fatal(err)
		}
		now = now.Add(time.Hour)
	}
}

// Whatever the order of runs: no key of the cluster is ever missing, and none
// that was published goes before its time.
func TestNoTokenBreaks(t *testing.T) {
	random := make([]byte, 400)
	_, _ = rand.Read(random)
	var published []Key
	var state State
	lastSeen := map[string]time.Time{}
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for i := 0; i+2 < len(random); i += 3 {
		now = now.Add(time.Duration(random[i]) * time.Minute)
		in := Input{Issuer: issuerURL, Published: published, State: state, Retain: 5 * time.Hour, Prune: random[i+1]%2 == 0, Now: now}
		for bit := range 4 {
			if random[i+2]>>bit&1 == 1 {
				id := fmt.Sprint(bit)
				in.Current = append(in.Current, key(id, id))
				lastSeen[id] = now
			}
		}
		p, err := Publish(in)
		testkit.Must(t, err)
		for id, seen := range lastSeen {
			if now.Sub(seen) < in.Retain && !slices.ContainsFunc(p.Keys, func(k Key) bool { return k.ID == id }) {
				t.Fatalf("key %s, seen %s ago, is gone: %v", id, now.Sub(seen), random[:i+3])
			}
		}
		published, state = p.Keys, p.State
	}
}

func TestRefusals(t *testing.T) {
	for name, c := range map[string]struct {
		in   Input
		want string
	}{
		"another key of that id": {Input{Issuer: issuerURL, Current: []Key{key("a", "x")}, Published: []Key{key("a", "y")}},
			`the kid "a" names another key here`},
		"another issuer's place": {Input{Issuer: issuerURL, Current: []Key{key("a", "x")}, State: State{Issuer: issuerURL + "/"}},
			"byte for byte: one place is for one issuer"},
	} {
		if p, err := Publish(c.in); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v; want an error with %q", name, p, err, c.want)
		}
	}
	if err := CheckPlace(Discovery{Issuer: issuerURL + "/"}, issuerURL); err == nil {
		t.Error("a slash more is another issuer")
	}
}

func TestDiscovery(t *testing.T) {
	for _, c := range []struct{ issuer, keys string }{
		{"https://issuer.example.com/dev", "https://issuer.example.com/dev/openid/v1/jwks"},
		{"https://issuer.example.com/dev/", "https://issuer.example.com/dev/openid/v1/jwks"},
	} {
		d, err := ParseDiscovery(
			NewDiscovery(policy.Issuer(c.issuer), []Key{key("a", "x"), {Type: "EC", Curve: "P-256"}, key("b", "y")}).Encode(),
		)
		if err != nil || d.KeysURI != c.keys || strings.Join(d.Algorithms, " ") != "ES256 RS256" {
			t.Errorf("%s: %+v, %v", c.issuer, d, err)
		}
	}
	for _, text := range []string{"", "{}", `{"issuer":"http://a"}`, `{"issuer":"https://a:6443"}`, "<html>"} {
		if d, err := ParseDiscovery([]byte(text)); err == nil {
			t.Errorf("%q is taken for %v", text, d)
		}
	}
}

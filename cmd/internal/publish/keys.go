package publish

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"

	strictjson "github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Key is a public key as a JSON Web Key (RFC 7517), with the members that a
// verifier of tokens needs and no others.
type Key struct {
	Type      string `json:"kty"`
	ID        string `json:"kid"`
	Use       string `json:"use,omitempty"`
	Algorithm string `json:"alg,omitempty"`
	// N and E are an RSA key's, Curve, X and Y an elliptic one's: base64url.
	N     string `json:"n,omitempty"`
	E     string `json:"e,omitempty"`
	Curve string `json:"crv,omitempty"`
	X     string `json:"x,omitempty"`
	Y     string `json:"y,omitempty"`
}

// private are the members of JSON Web Keys that hold secrets (RFC 7518, 6.2.2,
// 6.3.2 and 6.4).
var private = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

// curves are those of the algorithms that AWS takes, with the length of a
// coordinate in bytes (RFC 7518, 6.2.1).
var curves = map[string]struct {
	ecdh.Curve
	bytes     int
	algorithm string
}{
	"P-256": {ecdh.P256(), 32, "ES256"},
	"P-384": {ecdh.P384(), 48, "ES384"},
	"P-521": {ecdh.P521(), 66, "ES512"},
}

// rsaAlgorithms are those that AWS takes.
var rsaAlgorithms = []string{"RS256", "RS384", "RS512"}

// idSyntax keeps an id from being more than a word where it is shown.
var idSyntax = regexp.MustCompile(`^[!-~]{1,255}$`)

// minModulus is what RFC 7518 (3.3) asks of RSA keys, in bits.
const minModulus = 2048

// ParseKeys reads a key set. Whatever is not a public key that AWS could use is
// an error, which names the key and shows nothing of it.
func ParseKeys(data []byte) ([]Key, error) {
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	// Strictly: a second "keys", or a second "d" in a key, must not hide behind
	// the first.
	if err := strictjson.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("not a key set: %w", withoutText(err))
	}
	if len(set.Keys) == 0 {
		return nil, errors.New("a key set without keys: no token could be verified with it")
	}
	keys := make([]Key, 0, len(set.Keys))
	for i, text := range set.Keys {
		key, err := parseKey(text)
		if err != nil {
			return nil, fmt.Errorf("keys[%d]: %w", i, err)
		}
		if slices.ContainsFunc(keys, func(k Key) bool { return k.ID == key.ID }) {
			return nil, fmt.Errorf("keys[%d]: the kid %q stands there twice", i, key.ID)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func parseKey(text []byte) (Key, error) {
	var members map[string]jsontext.Value
	if err := strictjson.Unmarshal(text, &members); err != nil {
		return Key{}, fmt.Errorf("not a key: %w", withoutText(err))
	}
	var key Key
	for name, into := range map[string]*string{
		"kty": &key.Type, "kid": &key.ID, "use": &key.Use, "alg": &key.Algorithm,
		"n": &key.N, "e": &key.E, "crv": &key.Curve, "x": &key.X, "y": &key.Y,
	} {
		if value, found := members[name]; found && strictjson.Unmarshal(value, into) != nil {
			return Key{}, fmt.Errorf("the member %s is no text", name)
		}
	}
	for _, name := range private {
		for member := range members {
			// Some readers do not tell d from D.
			if strings.EqualFold(member, name) {
				return Key{}, fmt.Errorf(
					"key %q holds the private member %s: a key set of public keys alone is published; take this file away from where others read it",
					key.ID,
					member,
				)
			}
		}
	}
	return key, key.check()
}

// check says what is wrong with the key, or nil.
func (k Key) check() error {
	if !idSyntax.MatchString(k.ID) {
		return fmt.Errorf("the kid %q: tokens name their key by it, with up to 255 visible ASCII characters", k.ID)
	}
	if k.Use != "" && k.Use != "sig" {
		return fmt.Errorf("key %q is for %q: want sig", k.ID, k.Use)
	}
	switch k.Type {
	case "RSA":
		return k.checkRSA()
	case "EC":
		return k.checkEC()
	case "oct":
		return fmt.Errorf("key %q is symmetric: everybody who can verify with it could also sign with it", k.ID)
	}
	return fmt.Errorf("key %q has the type %q: AWS takes RSA and EC", k.ID, k.Type)
}

func (k Key) checkRSA() error {
	n, err := base64.RawURLEncoding.DecodeString(k.N)
	e, err2 := base64.RawURLEncoding.DecodeString(k.E)
	exponent := new(big.Int).SetBytes(e)
	switch {
	case errors.Join(err, err2) != nil || k.Curve+k.X+k.Y != "":
		return fmt.Errorf("key %q is no RSA key: want n and e, in base64url", k.ID)
	case new(big.Int).SetBytes(n).BitLen() < minModulus:
		return fmt.Errorf("key %q has %d bits: want %d or more", k.ID, new(big.Int).SetBytes(n).BitLen(), minModulus)
	case exponent.Cmp(big.NewInt(3)) < 0 || exponent.Bit(0) == 0:
		return fmt.Errorf("key %q has an exponent that no RSA key has", k.ID)
	case k.Algorithm != "" && !slices.Contains(rsaAlgorithms, k.Algorithm):
		return fmt.Errorf("key %q is for %q: AWS takes %s of RSA keys", k.ID, k.Algorithm, strings.Join(rsaAlgorithms, ", "))
	}
	return nil
}

func (k Key) checkEC() error {
	curve, known := curves[k.Curve]
	if !known {
		return fmt.Errorf("key %q lies on curve %q: AWS takes P-256, P-384 and P-521", k.ID, k.Curve)
	}
	x, err := base64.RawURLEncoding.DecodeString(k.X)
	y, err2 := base64.RawURLEncoding.DecodeString(k.Y)
	if errors.Join(err, err2) != nil || len(x) != curve.bytes || len(y) != curve.bytes || k.N+k.E != "" {
		return fmt.Errorf("key %q is no key of %s: want x and y of %d bytes, in base64url", k.ID, k.Curve, curve.bytes)
	}
	if _, err := curve.NewPublicKey(slices.Concat([]byte{4}, x, y)); err != nil {
		return fmt.Errorf("key %q is no point of %s", k.ID, k.Curve)
	}
	if k.Algorithm != "" && k.Algorithm != curve.algorithm {
		return fmt.Errorf("key %q is for %q: on %s it is %s", k.ID, k.Algorithm, k.Curve, curve.algorithm)
	}
	return nil
}

// algorithm returns the algorithm of the key, or the default one of its type if it names none.
func (k Key) algorithm() string {
	switch {
	case k.Algorithm != "":
		return k.Algorithm
	case k.Type == "EC":
		return curves[k.Curve].algorithm
	}
	return rsaAlgorithms[0]
}

// same reports whether two are the same key, no matter what their ids are.
func (k Key) same(other Key) bool {
	return k.Type == other.Type && k.N == other.N && k.E == other.E && k.Curve == other.Curve && k.X == other.X && k.Y == other.Y
}

// Encode writes a key set.
func Encode(keys []Key) []byte {
	return encode(struct {
		Keys []Key `json:"keys"`
	}{keys})
}

func encode(v any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(v); err != nil {
		panic(err) // strings, times and lists of them always encode
	}
	return b.Bytes()
}

// withoutText keeps what was wrong and where, and drops what stood there.
func withoutText(err error) error {
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return fmt.Errorf("not JSON: at byte %d", syntax.ByteOffset)
	}
	if semantic, ok := errors.AsType[*strictjson.SemanticError](err); ok {
		return fmt.Errorf("at %q: another kind of value than is wanted", string(semantic.JSONPointer))
	}
	return errors.New("cannot be read")
}

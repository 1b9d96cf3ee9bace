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

// Key is a public key as a JSON Web Key (RFC 7517). It has only the members that are
// needed to verify tokens.
type Key struct {
	Type      string `json:"kty"`
	ID        string `json:"kid"`
	Use       string `json:"use,omitempty"`
	Algorithm string `json:"alg,omitempty"`
	// N and E belong to an RSA key. Curve, X and Y belong to an elliptic-curve key. In base64url.
	N     string `json:"n,omitempty"`
	E     string `json:"e,omitempty"`
	Curve string `json:"crv,omitempty"`
	X     string `json:"x,omitempty"`
	Y     string `json:"y,omitempty"`
}

// private are the members of JSON Web Keys with secrets (RFC 7518, 6.2.2,
// 6.3.2 and 6.4).
var private = []string{"d", "p", "q", "dp", "dq", "qi", "oth", "k"}

// curves are the curves of the algorithms that AWS accepts, with the length of a
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

// rsaAlgorithms are the algorithms for RSA keys that AWS accepts.
var rsaAlgorithms = []string{"RS256", "RS384", "RS512"}

// idSyntax limits an id to one word, because it is printed.
var idSyntax = regexp.MustCompile(`^[!-~]{1,255}$`)

// minModulus is the minimum that RFC 7518 (3.3) requires for RSA keys, in bits.
const minModulus = 2048

// ParseKeys reads a key set. Everything except public keys that AWS can use is
// an error. The error names the key and shows nothing of its content.
func ParseKeys(data []byte) ([]Key, error) {
	var set struct {
		Keys []jsontext.Value `json:"keys"`
	}
	// The strict decoder finds a second "keys", or a second "d" in a key, that the first would hide.
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
			return nil, fmt.Errorf("keys[%d]: the kid %q is used twice", i, key.ID)
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
			return Key{}, fmt.Errorf("the member %s is not a string", name)
		}
	}
	for _, name := range private {
		for member := range members {
			// Some programs treat d and D as the same member.
			if strings.EqualFold(member, name) {
				return Key{}, fmt.Errorf(
					"key %q has the private member %s: only public keys may be published; move this file to a place where "+
						"others cannot read it",
					key.ID,
					member,
				)
			}
		}
	}
	return key, key.check()
}

// check returns what is wrong with the key; nil if nothing is.
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
		return fmt.Errorf("key %q is symmetric: every verifier could also sign with it", k.ID)
	}
	return fmt.Errorf("key %q has the type %q: AWS accepts RSA and EC", k.ID, k.Type)
}

func (k Key) checkRSA() error {
	n, err := base64.RawURLEncoding.DecodeString(k.N)
	e, err2 := base64.RawURLEncoding.DecodeString(k.E)
	exponent := new(big.Int).SetBytes(e)
	switch {
	case errors.Join(err, err2) != nil || k.Curve+k.X+k.Y != "":
		return fmt.Errorf("key %q is not an RSA key: it needs n and e, in base64url", k.ID)
	case new(big.Int).SetBytes(n).BitLen() < minModulus:
		return fmt.Errorf("key %q has %d bits: want %d or more", k.ID, new(big.Int).SetBytes(n).BitLen(), minModulus)
	case exponent.Cmp(big.NewInt(3)) < 0 || exponent.Bit(0) == 0:
		return fmt.Errorf("key %q has an exponent that is not possible in an RSA key", k.ID)
	case k.Algorithm != "" && !slices.Contains(rsaAlgorithms, k.Algorithm):
		return fmt.Errorf("key %q is for %q: AWS accepts %s for RSA keys", k.ID, k.Algorithm, strings.Join(rsaAlgorithms, ", "))
	}
	return nil
}

func (k Key) checkEC() error {
	curve, known := curves[k.Curve]
	if !known {
		return fmt.Errorf("key %q is on curve %q: AWS accepts P-256, P-384 and P-521", k.ID, k.Curve)
	}
	x, err := base64.RawURLEncoding.DecodeString(k.X)
	y, err2 := base64.RawURLEncoding.DecodeString(k.Y)
	if errors.Join(err, err2) != nil || len(x) != curve.bytes || len(y) != curve.bytes || k.N+k.E != "" {
		return fmt.Errorf("key %q is not a key of %s: it needs x and y of %d bytes, in base64url", k.ID, k.Curve, curve.bytes)
	}
	if _, err := curve.NewPublicKey(slices.Concat([]byte{4}, x, y)); err != nil {
		return fmt.Errorf("key %q is not a point of %s", k.ID, k.Curve)
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
		panic(err) // cannot happen: strings, times and lists of them always encode
	}
	return b.Bytes()
}

// withoutText returns an error with the place and the kind of mistake, but without the text there.
func withoutText(err error) error {
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return fmt.Errorf("not JSON: at byte %d", syntax.ByteOffset)
	}
	if semantic, ok := errors.AsType[*strictjson.SemanticError](err); ok {
		return fmt.Errorf("at %q: the value has the wrong type", string(semantic.JSONPointer))
	}
	return errors.New("cannot be read")
}

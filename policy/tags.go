package policy

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// MaxTags is the number of tags that AWS accepts on one resource.
	MaxTags = 50
	// maxPolicyTags leaves space for the tags that sync writes itself.
	maxPolicyTags = MaxTags - 6
	// maxPath is IAM's limit on the path of a role, in characters.
	maxPath = 512
)

// tagSyntax is IAM's syntax; AMP accepts more characters.
var tagSyntax = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)

var rolePathSyntax = regexp.MustCompile(`^/([\w+=,.@:-]+/)*$`)

// CheckTags returns an error for tags that AWS would refuse only after some resources exist.
// most is the number of tags that leaves space for ampbridge's own.
func CheckTags(tags map[string]string, most int) error {
	folded := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		v := tags[k]
		switch other, twice := folded[strings.ToLower(k)]; {
		case strings.HasPrefix(strings.ToLower(k), "ampbridge.io/") || strings.HasPrefix(strings.ToLower(k), "aws:"):
			return fmt.Errorf("the tag %s: keys that begin with ampbridge.io/ or aws: are reserved: choose another key", k)
		case k == "":
			return errors.New("a tag without a key: IAM accepts letters, digits, blanks and _ . : / = + - @ in keys")
		case utf8.RuneCountInString(k) > 128 || utf8.RuneCountInString(v) > 256 || !tagSyntax.MatchString(k+v):
			return fmt.Errorf(
				"the tag %q with the value %q: IAM accepts letters, digits, blanks and _ . : / = + - @ in tags, up to 128 in the key and 256 "+
					"in the value",
				k,
				v,
			)
		case twice:
			return fmt.Errorf("the tags %s and %s are the same tag for IAM, which ignores the case of keys: keep one", other, k)
		}
		folded[strings.ToLower(k)] = k
	}
	if len(tags) > most {
		return fmt.Errorf("%d tags: AWS accepts %d on one resource, and ampbridge adds its own: use at most %d", len(tags), MaxTags, most)
	}
	return nil
}

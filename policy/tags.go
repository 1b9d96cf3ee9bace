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
	// MaxTags is how many tags AWS takes on one thing.
	MaxTags = 50
	// maxPolicyTags leaves room for those that sync writes itself.
	maxPolicyTags = MaxTags - 6
	// maxPath is IAM's limit on the path of a role, in characters.
	maxPath = 512
)

// tagSyntax is IAM's; AMP takes more.
var tagSyntax = regexp.MustCompile(`^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$`)

var rolePathSyntax = regexp.MustCompile(`^/([\w+=,.@:-]+/)*$`)

// CheckTags returns what AWS would refuse of tags that people choose, once a part of
// the things is made. At most so many leave room for ampbridge's own.
func CheckTags(tags map[string]string, most int) error {
	folded := map[string]string{}
	for _, k := range slices.Sorted(maps.Keys(tags)) {
		v := tags[k]
		switch other, twice := folded[strings.ToLower(k)]; {
		case strings.HasPrefix(strings.ToLower(k), "ampbridge.io/") || strings.HasPrefix(strings.ToLower(k), "aws:"):
			return fmt.Errorf("the tag %s: what begins with ampbridge.io/ or aws: is not for others: choose another", k)
		case k == "":
			return errors.New("a tag without a key: IAM takes letters, digits, blanks and _ . : / = + - @ in keys")
		case utf8.RuneCountInString(k) > 128 || utf8.RuneCountInString(v) > 256 || !tagSyntax.MatchString(k+v):
			return fmt.Errorf(
				"the tag %q with the value %q: IAM takes letters, digits, blanks and _ . : / = + - @ in tags, up to 128 in the key and 256 "+
					"in the value",
				k,
				v,
			)
		case twice:
			return fmt.Errorf("the tags %s and %s are one tag to IAM, which ignores the case of keys: keep one", other, k)
		}
		folded[strings.ToLower(k)] = k
	}
	if len(tags) > most {
		return fmt.Errorf("%d tags: AWS takes %d on one thing, and ampbridge has its own: give at most %d", len(tags), MaxTags, most)
	}
	return nil
}

package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// annotationPrefix begins the names of ampbridge's annotations.
const annotationPrefix = "ampbridge.io/"

// userAnnotations are the annotations of pods and service accounts that users write.
var userAnnotations = []string{
	AnnotationInject, AnnotationContainer, AnnotationDestinations, AnnotationDestination,
	AnnotationMode, AnnotationEnvironment, AnnotationDelivery, AnnotationHA,
}

// ownAnnotations are the annotations of pods and service accounts that ampbridge writes.
var ownAnnotations = []string{AnnotationInjected, AnnotationAWSConfig, AnnotationRoleARN}

// misspelt returns a message about an annotation that has almost the name of one that users write;
// empty if there is none. The annotation has no effect, and without the message
// its user would not learn why. Other unknown names may be of a newer version.
func misspelt(annotations map[string]string) string {
	var candidates []string // of almost every pod there are none, and the list needs no memory
	for name := range annotations {
		if strings.HasPrefix(name, annotationPrefix) && len(name) <= maxAnnotation &&
			!slices.Contains(userAnnotations, name) && !slices.Contains(ownAnnotations, name) {
			candidates = append(candidates, name)
		}
	}
	slices.Sort(candidates)
	for _, name := range candidates {
		if name == LabelInjection {
			return fmt.Sprintf("annotation %s has no effect: it is a label of the namespace", name)
		}
		similar := func(known string) int { return distance(known, strings.ToLower(name)) }
		nearest := slices.MinFunc(userAnnotations, func(a, b string) int { return cmp.Compare(similar(a), similar(b)) })
		if similar(nearest) <= 2 {
			return fmt.Sprintf("annotation %s is unknown: did you mean %s?", name, nearest)
		}
	}
	return ""
}

// maxAnnotation is longer than every annotation's name and a few mistakes, in bytes. A pod is not validated yet,
// so that a name can have any length.
const maxAnnotation = 40

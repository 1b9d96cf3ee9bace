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
	found := ""
	for name := range annotations {
		if !strings.HasPrefix(name, annotationPrefix) || slices.Contains(userAnnotations, name) || slices.Contains(ownAnnotations, name) {
			continue
		}
		if found == "" || name < found {
			found = name
		}
	}
	switch {
	case found == "":
		return ""
	case found == LabelInjection:
		return fmt.Sprintf("annotation %s has no effect: it is a label of the namespace", found)
	}
	similar := func(known string) int { return distance(known, strings.ToLower(found)) }
	nearest := slices.MinFunc(userAnnotations, func(a, b string) int { return cmp.Compare(similar(a), similar(b)) })
	if len(found) > maxAnnotation || similar(nearest) > 2 {
		return ""
	}
	return fmt.Sprintf("annotation %s is unknown: did you mean %s?", found, nearest)
}

// maxAnnotation is longer than every annotation's name and a few mistakes, in bytes. A pod is not validated yet,
// so that a name can have any length.
const maxAnnotation = 40

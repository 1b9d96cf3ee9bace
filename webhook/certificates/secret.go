package certificates

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
)

// Annotations of the Secret.
const (
	// AnnotationFormat marks a Secret as ours, and says how it is written.
	AnnotationFormat = "ampbridge.io/certificates"
	// AnnotationRotate, with whatever value, asks for a new certificate now; it is
	// gone when that is made.
	AnnotationRotate = "ampbridge.io/rotate"

	annotationAnnouncedAt      = "ampbridge.io/announced-at"
	annotationAnnouncedVersion = "ampbridge.io/announced-version"
	annotationSwitchedAt       = "ampbridge.io/switched-at"
)

// format is the value of AnnotationFormat.
const format = "v1"

// Keys of the Secret. The current pair's are those that other tools know.
const (
	keyPrevious = "previous-ca.crt"
	prefixNext  = "next-"
)

// decode reads the state out of the Secret; nil: there is none. What is broken
// in a Secret of ours counts as missing, since it can be made anew; the problems
// say what. Another's Secret is an error.
func decode(secret *corev1.Secret, now time.Time) (s State, problems []string, err error) {
	if secret == nil {
		return s, nil, nil
	}
	switch got := secret.Annotations[AnnotationFormat]; {
	case got == "" && len(secret.Data) > 0:
		return s, nil, fmt.Errorf(
			"the Secret %s of namespace %s has content, but not the annotation %s, so ampbridge leaves it as it is: delete it, or name "+
				"another one with --cert-secret (certificates of your own go to --cert-dir)",
			secret.Name,
			secret.Namespace,
			AnnotationFormat,
		)
	case got != "" && got != format:
		return s, nil, fmt.Errorf(
			"the Secret %s of namespace %s is written in format %q, this ampbridge knows %q: run the version that wrote it, or delete the Secret",
			secret.Name,
			secret.Namespace,
			got,
			format,
		)
	}
	pair := func(prefix string) *Pair {
		authority, certificate, key := secret.Data[prefix+"ca.crt"], secret.Data[prefix+corev1.TLSCertKey],
			secret.Data[prefix+corev1.TLSPrivateKeyKey]
		if len(authority)+len(certificate)+len(key) == 0 {
			return nil
		}
		p, err := parsePair(authority, certificate, key)
		switch {
		case err != nil:
			problems = append(problems, fmt.Sprintf("%s%s: %v", prefix, corev1.TLSCertKey, err))
			return nil
		case !p.usable(now):
			problems = append(
				problems,
				fmt.Sprintf("%s%s: is past its time since %s", prefix, corev1.TLSCertKey, p.NotAfter().UTC().Format(time.RFC3339)),
			)
			return nil
		}
		return p
	}
	// A time that is missing or broken is long ago, but no announcement.
	moment := func(annotation string) time.Time {
		t, _ := time.Parse(time.RFC3339Nano, secret.Annotations[annotation])
		return t
	}
	s.Current, s.Next = pair(""), pair(prefixNext)
	s.Previous = distinct(parseBundle(secret.Data[keyPrevious]))
	s.Switched = moment(annotationSwitchedAt)
	if at := moment(annotationAnnouncedAt); !at.IsZero() {
		s.Announced = Announcement{Version: secret.Annotations[annotationAnnouncedVersion], At: at}
	}
	_, s.Rotate = secret.Annotations[AnnotationRotate]
	return s, problems, nil
}

// encode returns the Secret with the state in it. Labels, other annotations and
// other people's keys stay.
func encode(s State, secret *corev1.Secret) *corev1.Secret {
	secret = secret.DeepCopy()
	if secret.Data == nil {
		secret.Data = map[string][]byte{}
	}
	put := func(prefix string, p *Pair) {
		for _, key := range []string{"ca.crt", corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
			delete(secret.Data, prefix+key)
		}
		if p != nil {
			secret.Data[prefix+"ca.crt"] = encodePEM("CERTIFICATE", p.authority.Raw)
			secret.Data[prefix+corev1.TLSCertKey], secret.Data[prefix+corev1.TLSPrivateKeyKey] = p.Certificate, p.Key
		}
	}
	put("", s.Current)
	put(prefixNext, s.Next)
	delete(secret.Data, keyPrevious)
	if len(s.Previous) > 0 {
		secret.Data[keyPrevious] = encodeBundle(s.Previous)
	}
	note := func(annotation, value string, there bool) {
		if delete(secret.Annotations, annotation); there {
			metav1.SetMetaDataAnnotation(&secret.ObjectMeta, annotation, value)
		}
	}
	note(AnnotationFormat, format, true)
	note(AnnotationRotate, secret.Annotations[AnnotationRotate], s.Rotate)
	note(annotationAnnouncedVersion, s.Announced.Version, !s.Announced.At.IsZero())
	note(annotationAnnouncedAt, stamp(s.Announced.At), !s.Announced.At.IsZero())
	note(annotationSwitchedAt, stamp(s.Switched), !s.Switched.IsZero())
	return secret
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// shell is the Secret without content: whoever applies it takes nothing away, and
// claims nothing that another has made meanwhile. It has no label that the chart can
// give another value: Helm's next server-side apply would be a conflict.
func shell(namespace, name string) *applycorev1.SecretApplyConfiguration {
	return applycorev1.Secret(name, namespace).
		WithLabels(map[string]string{"app.kubernetes.io/component": "webhook"})
}

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
	// AnnotationFormat marks a Secret as ampbridge's. The value is the version of its format.
	AnnotationFormat = "ampbridge.io/certificates"
	// AnnotationRotate, with any value, requests a new certificate now. It is
	// removed when the certificate was created.
	AnnotationRotate = "ampbridge.io/rotate"

	annotationAnnouncedAt      = "ampbridge.io/announced-at"
	annotationAnnouncedVersion = "ampbridge.io/announced-version"
	annotationSwitchedAt       = "ampbridge.io/switched-at"
)

// format is the value of AnnotationFormat.
const format = "v1"

// Keys of the Secret. The keys of the current pair have the names that other tools use.
const (
	keyPrevious = "previous-ca.crt"
	prefixNext  = "next-"
)

// decode reads the state from the Secret; nil if there is none. In a Secret of
// ampbridge, a broken part counts as missing, because it can be created again; problems describes
// such parts. The Secret of another owner is an error.
func decode(secret *corev1.Secret, now time.Time) (s State, problems []string, err error) {
	if secret == nil {
		return s, nil, nil
	}
	switch got := secret.Annotations[AnnotationFormat]; {
	case got == "" && len(secret.Data) > 0:
		return s, nil, fmt.Errorf(
			"the Secret %s of namespace %s has content, but not the annotation %s, so ampbridge does not change it: delete "+
				"it, or name another one with --cert-secret (for your own certificates use --cert-dir)",
			secret.Name,
			secret.Namespace,
			AnnotationFormat,
		)
	case got != "" && got != format:
		return s, nil, fmt.Errorf(
			"the Secret %s of namespace %s has format %q, but this version of ampbridge knows only %q: run the version "+
				"that wrote it, or delete the Secret",
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
				fmt.Sprintf("%s%s: has expired at %s", prefix, corev1.TLSCertKey, p.NotAfter().UTC().Format(time.RFC3339)),
			)
			return nil
		}
		return p
	}
	// A missing or broken time counts as long ago, but not as an announcement.
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

// encode returns the Secret with the state in it. It keeps labels, other annotations and
// keys of others.
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

// shell returns the Secret without content. To apply it removes nothing, and takes no ownership
// of data that another replica has written. It has no label that the chart can set to
// another value, because Helm's next server-side apply would be a conflict.
func shell(namespace, name string) *applycorev1.SecretApplyConfiguration {
	return applycorev1.Secret(name, namespace).
		WithLabels(map[string]string{"app.kubernetes.io/component": "webhook"})
}

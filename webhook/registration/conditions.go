package registration

import "github.com/ampbridge/ampbridge/policy/sidecarconfig"

// CanBePrometheus is the CEL expression of the pods' match condition. It is true
// of every pod that inject.Prometheus accepts, of those that ask for
// injection, so that they hear why they are not, and of those that are injected:
// another webhook may have changed what they were known by.
//
// A key that is absent is an error in CEL, and with failurePolicy Ignore an error
// is a silent skip: hence has() and in before every access. Regular expressions
// are RE2; (?s) and [^/], because nothing has validated the strings yet.
const CanBePrometheus = askedFor + " ||\n" + labelled + " ||\n" + injected + " ||\n" + looksLikeIt

const injected = `(has(object.spec.initContainers) && object.spec.initContainers.exists(c, c.name == '` +
	sidecarconfig.ContainerName + `'))`

const askedFor = `(has(object.metadata.annotations) && (
  'ampbridge.io/container' in object.metadata.annotations ||
  ('ampbridge.io/inject' in object.metadata.annotations && object.metadata.annotations['ampbridge.io/inject'] != 'false')))`

const labelled = `(has(object.metadata.labels) && (
  'operator.prometheus.io/name' in object.metadata.labels ||
  ('app.kubernetes.io/name' in object.metadata.labels && object.metadata.labels['app.kubernetes.io/name'] == 'prometheus')))`

// Exporters and Alertmanager have a --config.file too, and images of theirs lie
// in a registry's prometheus directory. The last flags are those of containers
// that may be Prometheus (inject.Resembles): their owners hear how to name them.
const looksLikeIt = `object.spec.containers.exists(c,
  (has(c.image) && c.image.matches('(?s)(^|/)prometheus(-linux-[a-z0-9]+)?(:[^/@]*)?(@.*)?$')) || (
    ((has(c.args) && c.args.exists(a, ` + configFile + `)) || (has(c.command) && c.command.exists(a, ` + configFile + `))) &&
    ((has(c.args) && c.args.exists(a, ` + serverFlag + `)) || (has(c.command) && c.command.exists(a, ` + serverFlag + `)))))`

const (
	configFile = `a.matches('^--?config[.]file(=|$)')`
	// An expression may cost so much and no more, and a regular expression costs by
	// the text's length: long scripts are kept out.
	serverFlag = `a.startsWith('-') ? a.matches('(?s)^--?(storage[.](tsdb|agent|remote|local)[.]|query[.]|rules[.]|web[.]console[.]|` +
		`web[.]enable-(lifecycle|admin-api|remote-write-receiver|otlp-receiver)(=|$)|config[.]auto-reload|agent$|config[.]file=.*prometheus|` +
		`enable-feature=([^,]*,)*(` + features + `)(,|$))') : ` +
		`a.size() < 500 && a.matches('(?s)^([^,]*,)*(` + features + `)(,|$)|prometheus')`
	features = `agent|auto-reload-config|exemplar-storage|expand-external-labels|extra-scrape-metrics|` +
		`memory-snapshot-on-shutdown|native-histograms|otlp-write-receiver|remote-write-receiver`
)

package registration

import "github.com/ampbridge/ampbridge/policy/sidecarconfig"

// CanBePrometheus is the CEL expression of the pods' match condition. It is true
// for every pod that inject.Prometheus accepts. It is also true for pods that ask for
// injection, so that their owners learn why they get none, and for injected pods, because
// another webhook may have changed what shows that they are Prometheus.
//
// A missing key is an error in CEL, and with failurePolicy Ignore an error
// skips the pod silently. So has() or in comes before every access. Regular expressions
// have RE2 syntax. They use (?s) and [^/], because nothing has validated the strings yet.
const CanBePrometheus = askedFor + " ||\n" + labelled + " ||\n" + injected + " ||\n" + looksLikeIt

const injected = `(has(object.spec.initContainers) && object.spec.initContainers.exists(c, c.name == '` +
	sidecarconfig.ContainerName + `'))`

const askedFor = `(has(object.metadata.annotations) && (
  'ampbridge.io/container' in object.metadata.annotations ||
  ('ampbridge.io/inject' in object.metadata.annotations && object.metadata.annotations['ampbridge.io/inject'] != 'false')))`

const labelled = `(has(object.metadata.labels) && (
  'operator.prometheus.io/name' in object.metadata.labels ||
  ('app.kubernetes.io/name' in object.metadata.labels && object.metadata.labels['app.kubernetes.io/name'] == 'prometheus')))`

// Exporters and Alertmanager have a --config.file too, and their images can be
// in a registry's directory prometheus. The last flags are those of containers
// that may be Prometheus (inject.Resembles): their owners get a warning that says how to name them.
const looksLikeIt = `object.spec.containers.exists(c,
  (has(c.image) && c.image.matches('(?s)(^|/)prometheus(-linux-[a-z0-9]+)?(:[^/@]*)?(@.*)?$')) || (
    ((has(c.args) && c.args.exists(a, ` + configFile + `)) || (has(c.command) && c.command.exists(a, ` + configFile + `))) &&
    ((has(c.args) && c.args.exists(a, ` + serverFlag + `)) || (has(c.command) && c.command.exists(a, ` + serverFlag + `)))))`

const (
	configFile = `a.matches('^--?config[.]file(=|$)')`
	// An expression has a cost limit, and the cost of a regular expression grows with the text's
	// length, so long scripts are excluded.
	serverFlag = `a.startsWith('-') ? a.matches('(?s)^--?(storage[.](tsdb|agent|remote|local)[.]|query[.]|rules[.]|web[.]console[.]|` +
		`web[.]enable-(lifecycle|admin-api|remote-write-receiver|otlp-receiver)(=|$)|config[.]auto-reload|agent$|config[.]file=.*prometheus|` +
		`enable-feature=([^,]*,)*(` + features + `)(,|$))') : ` +
		`a.size() < 500 && a.matches('(?s)^([^,]*,)*(` + features + `)(,|$)|prometheus')`
	features = `agent|auto-reload-config|exemplar-storage|expand-external-labels|extra-scrape-metrics|` +
		`memory-snapshot-on-shutdown|native-histograms|otlp-write-receiver|remote-write-receiver`
)

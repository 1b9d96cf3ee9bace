package policy

// SchemaVersion is the version of the policy file's fields. The chart marks the
// policy's ConfigMap with it, so that a webhook of another version does not
// refuse what it does not know. Raise it, here and in the chart's
// template policy.yaml, when a released version's fields change.
const SchemaVersion = "1"

// AnnotationVersion marks a ConfigMap with the [SchemaVersion] of its policy.
const AnnotationVersion = "ampbridge.io/policy-version"

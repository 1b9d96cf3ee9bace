package policy

// SchemaVersion is the version of the policy file's fields. The chart marks the
// policy's ConfigMap with it, so that a webhook of another version does not
// refuse fields that it does not know. When the fields of a released version change, raise
// it here and in the chart's template policy.yaml.
const SchemaVersion = "1"

// AnnotationVersion is the annotation of a ConfigMap with the [SchemaVersion] of its policy.
const AnnotationVersion = "ampbridge.io/policy-version"

{{- define "ampbridge.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 45 | trimSuffix "-" -}}
{{- end -}}

{{- /* At most 45 characters, because names with a suffix may have at most 63. */ -}}
{{- define "ampbridge.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 45 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* The namespace of all namespaced objects. */ -}}
{{- define "ampbridge.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride -}}
{{- end -}}

{{- /* Takes (dict "root" $ "component" "webhook"); the component may be missing. */ -}}
{{- define "ampbridge.selectorLabels" -}}
app.kubernetes.io/name: {{ include "ampbridge.name" .root | quote }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- /*
Values are merged with the keys that the chart sets. A key that is written
twice is accepted by Helm, but not by Kustomize and server-side apply. If both have
a key, the user's value is used. checks.yaml refuses values for selector labels.

A value may be missing: `helm upgrade --reuse-values` has only those of the old chart.
*/ -}}

{{- /*
By this label doctor and status find the chart's objects, whatever their names are. It
is not in selectors, because selectors cannot be changed.
*/ -}}
{{- define "ampbridge.chartLabel" -}}
ampbridge.io/chart: ampbridge
{{- end -}}

{{- /* Labels of pods, without the chart's version, so that a new version does not restart them. "more" is optional. */ -}}
{{- define "ampbridge.podLabels" -}}
{{- toYaml (merge (include "ampbridge.selectorLabels" . | fromYaml) (include "ampbridge.chartLabel" . | fromYaml) (deepCopy (default dict .more)) (deepCopy (default dict .root.Values.commonLabels))) -}}
{{- end -}}

{{- /* "more" is optional. */ -}}
{{- define "ampbridge.labels" -}}
{{- $own := dict
  "app.kubernetes.io/version" .root.Chart.AppVersion
  "app.kubernetes.io/managed-by" .root.Release.Service
  "helm.sh/chart" (printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_") -}}
{{- toYaml (merge (include "ampbridge.selectorLabels" . | fromYaml) (include "ampbridge.chartLabel" . | fromYaml) (deepCopy (default dict .more)) (deepCopy (default dict .root.Values.commonLabels)) $own) -}}
{{- end -}}

{{- /*
The annotations of an object below its metadata, or nothing. Takes (dict "root" $); "more"
and "own" are optional: the values for this object, and the chart's own.
*/ -}}
{{- define "ampbridge.annotations" -}}
{{- with merge (deepCopy (default dict .more)) (deepCopy (default dict .root.Values.commonAnnotations)) (default dict .own) }}
  annotations: {{- toYaml . | nindent 4 }}
{{- end }}
{{- end -}}

{{- /* The image is for Linux. Takes the user's node selector. */ -}}
{{- define "ampbridge.nodeSelector" -}}
{{- toYaml (merge (deepCopy (default dict .)) (dict "kubernetes.io/os" "linux")) -}}
{{- end -}}

{{- /* Takes (dict "container" name "more" annotations). */ -}}
{{- define "ampbridge.podAnnotations" -}}
{{- toYaml (merge (deepCopy (default dict .more)) (dict "kubectl.kubernetes.io/default-container" .container)) -}}
{{- end -}}

{{- /* Takes (dict "own" variables "more" variables). */ -}}
{{- define "ampbridge.env" -}}
{{- $names := list -}}
{{- range .more }}{{ $names = append $names .name }}{{ end -}}
{{- $all := list -}}
{{- range .own }}{{ if not (has .name $names) }}{{ $all = append $all . }}{{ end }}{{ end -}}
{{- toYaml (concat $all (default list .more)) -}}
{{- end -}}

{{- /*
AKS has an "admissions enforcer" that writes into the selectors of every webhook
registration, as another field manager. Each later server-side apply by Helm 4
or Argo CD then fails with a conflict. These two opt out, as label and as annotation,
because some versions of AKS read the label and others the annotation.
*/ -}}
{{- define "ampbridge.enforcerOptOut" -}}
admissions.enforcer/disabled: "true"
{{- end -}}

{{- /* Of webhook registrations. Takes (dict "root" $ "component" "webhook"). */ -}}
{{- define "ampbridge.registrationLabels" -}}
{{- $more := merge (deepCopy (dig "registration" "labels" dict .root.Values.webhook)) (include "ampbridge.enforcerOptOut" . | fromYaml) -}}
{{- include "ampbridge.labels" (dict "root" .root "component" .component "more" $more) -}}
{{- end -}}

{{- /* Of webhook registrations. Takes (dict "root" $). */ -}}
{{- define "ampbridge.registrationAnnotations" -}}
{{- $own := include "ampbridge.enforcerOptOut" . | fromYaml -}}
{{- if eq .root.Values.certificates.mode "certManager" -}}
{{- $_ := set $own "cert-manager.io/inject-ca-from" (printf "%s/%s" (include "ampbridge.namespace" .root) (include "ampbridge.tlsSecret" .root)) -}}
{{- end -}}
{{- include "ampbridge.annotations" (dict "root" .root "more" (dig "registration" "annotations" dict .root.Values.webhook) "own" $own) -}}
{{- end -}}

{{- /*
With server-side apply, a CA bundle that the webhook or cert-manager wrote before belongs
to them, and Helm would fail there after it has changed other objects. This check
refuses the upgrade before anything is changed. The manager that applied the chart is the
one that owns failurePolicy. Takes the PEM text of the mode "provided".
`helm template` has no access to the cluster, so it never refuses.
*/ -}}
{{- define "ampbridge.refuseForeignBundle" -}}
{{- $bundle := b64enc . -}}
{{- range $kind := list "MutatingWebhookConfiguration" "ValidatingWebhookConfiguration" -}}
{{- $live := lookup "admissionregistration.k8s.io/v1" $kind "" "ampbridge" -}}
{{- $applier := "" -}}
{{- $writer := "" -}}
{{- range dig "metadata" "managedFields" list $live -}}
{{- $fields := toJson .fieldsV1 -}}
{{- if and (eq .operation "Apply") (contains `"f:failurePolicy"` $fields) -}}
{{- $applier = .manager -}}
{{- else if contains `"f:caBundle"` $fields -}}
{{- $writer = .manager -}}
{{- end -}}
{{- end -}}
{{- range dig "webhooks" list $live -}}
{{- if and $applier $writer (ne (dig "clientConfig" "caBundle" "" .) $bundle) -}}
{{- $what := printf "certificates.provided.caBundle: the CA bundle of %s ampbridge was written by %s, and server-side apply does not replace it" $kind $writer -}}
{{- fail (printf "%s. Run `kubectl delete mutatingwebhookconfiguration,validatingwebhookconfiguration ampbridge` and then this upgrade at once, which creates them again. Nothing was changed" $what) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The webhook's own ports, as a YAML mapping. */ -}}
{{- define "ampbridge.webhookPorts" -}}
{{- with .Values.webhook -}}
webhook: {{ .port | int | default 9443 }}
metrics: {{ .metricsPort | int | default (not (not .hostNetwork) | ternary 9444 8080) }}
health: {{ .healthPort | int | default (not (not .hostNetwork) | ternary 9445 8081) }}
{{- end -}}
{{- end -}}

{{- /*
global.imageRegistry replaces the repository's registry, which is the part before the
first slash if that can be a host's name.
*/ -}}
{{- define "ampbridge.image" -}}
{{- $repository := .Values.image.repository -}}
{{- with dig "imageRegistry" "" (default dict .Values.global) -}}
{{- $repository = printf "%s/%s" . (regexReplaceAll "^(localhost|[^/]*[.:][^/]*)/" $repository "") -}}
{{- end -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" $repository .digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* The name of a service account. Takes (dict "root" $ "component" "webhook"). */ -}}
{{- define "ampbridge.serviceAccount" -}}
{{- default (printf "%s-%s" (include "ampbridge.fullname" .root) .component) (dig "serviceAccount" "name" "" (index .root.Values .component)) -}}
{{- end -}}

{{- /* Whether the chart creates it. */ -}}
{{- define "ampbridge.makesServiceAccount" -}}
{{- if dig "serviceAccount" "create" true (index .root.Values .component) -}}true{{- end -}}
{{- end -}}

{{- /* Whether the chart creates Roles, ClusterRoles and their bindings. */ -}}
{{- define "ampbridge.rbac" -}}
{{- if dig "create" true (default dict .Values.rbac) -}}true{{- end -}}
{{- end -}}

{{- /* The ConfigMap of the policy, if it is the user's own. */ -}}
{{- define "ampbridge.existingPolicy" -}}
{{- dig "existing" "" (default dict .Values.policyConfigMap) -}}
{{- end -}}

{{- define "ampbridge.policyConfigMap" -}}
{{- default (printf "%s-policy" (include "ampbridge.fullname" .)) (include "ampbridge.existingPolicy" .) -}}
{{- end -}}

{{- /* The value of audit.repair in the policy. */ -}}
{{- define "ampbridge.auditRepair" -}}
{{- if include "ampbridge.existingPolicy" . -}}
{{- dig "auditRepair" "none" .Values.policyConfigMap -}}
{{- else -}}
{{- dig "audit" "repair" "none" .Values.policy -}}
{{- end -}}
{{- end -}}

{{- /* A probe. Takes (dict "path" "/readyz" "own" (dict …) "more" values). */ -}}
{{- define "ampbridge.probe" -}}
{{- toYaml (merge (dict "httpGet" (dict "path" .path "port" "health")) (deepCopy (default dict .more)) (default dict .own)) -}}
{{- end -}}

{{- define "ampbridge.policy" -}}
{{- $head := dict "apiVersion" "ampbridge.io/v1alpha1" "kind" "Policy" -}}
{{- toYaml (merge (deepCopy .Values.policy) $head) -}}
{{- end -}}

{{- /*
The "restricted" pod security standard. No user is set: the image has 65532, and
OpenShift gives each namespace its own. The values of a component are used; the defaults
here are for `helm upgrade --reuse-values` from a chart without them.
*/ -}}
{{- define "ampbridge.containerSecurityContext" -}}
{{- toYaml (default (dict "allowPrivilegeEscalation" false "readOnlyRootFilesystem" true "capabilities" (dict "drop" (list "ALL"))) .securityContext) -}}
{{- end -}}

{{- define "ampbridge.podSecurityContext" -}}
{{- toYaml (default (dict "runAsNonRoot" true "seccompProfile" (dict "type" "RuntimeDefault")) .podSecurityContext) -}}
{{- end -}}

{{- /* The name of the object with the serving certificate. */ -}}
{{- define "ampbridge.tlsSecret" -}}
{{- if eq .Values.certificates.mode "provided" -}}
{{- .Values.certificates.provided.secretName -}}
{{- else if eq .Values.certificates.mode "certManager" -}}
{{- /* Not the Secret of the other mode, so that a release can change from one to the other. */ -}}
{{- include "ampbridge.fullname" . }}-webhook-cert
{{- else -}}
{{- include "ampbridge.fullname" . }}-webhook-tls
{{- end -}}
{{- end -}}

{{- define "ampbridge.auditor" -}}
{{- if and .Values.sync.enabled (eq .Values.sync.mode "deployment") .Values.sync.auditor.enabled -}}true{{- end -}}
{{- end -}}

{{- /* Whether the auditor evicts running pods, so that new ones replace them. */ -}}
{{- define "ampbridge.repairs" -}}
{{- if and (include "ampbridge.auditor" .) (eq (include "ampbridge.auditRepair" .) "evict") -}}true{{- end -}}
{{- end -}}

{{- /* Whether the auditor evicts pods. */ -}}
{{- define "ampbridge.evicts" -}}
{{- if and (include "ampbridge.auditor" .) (or .Values.sync.auditor.breaker (include "ampbridge.repairs" .)) -}}true{{- end -}}
{{- end -}}

{{- /* The namespaces in which pods are never injected, even with the label, as a YAML list. */ -}}
{{- define "ampbridge.excludedNamespaces" -}}
{{- concat (list "kube-system" "kube-public" "kube-node-lease" (include "ampbridge.namespace" .)) .Values.webhook.excludedNamespaces | uniq | sortAlpha | toYaml -}}
{{- end -}}

{{- /* The region of the first destination's workspace, arn:<partition>:aps:<region>:… */ -}}
{{- define "ampbridge.syncRegion" -}}
{{- if .Values.sync.region -}}
{{- .Values.sync.region -}}
{{- else -}}
{{- /* Without a policy here, checks.yaml requires sync.region. */ -}}
{{- range $i, $destination := (default dict .Values.policy).destinations -}}
{{- if eq $i 0 }}{{ index (splitList ":" $destination.workspace) 3 }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}

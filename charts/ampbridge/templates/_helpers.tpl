{{- define "ampbridge.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 45 | trimSuffix "-" -}}
{{- end -}}

{{- /* At most 45 characters: what is added to it must make names of at most 63. */ -}}
{{- define "ampbridge.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 45 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 45 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Takes (dict "root" $ "component" "webhook"); the component may be missing. */ -}}
{{- define "ampbridge.selectorLabels" -}}
app.kubernetes.io/name: {{ include "ampbridge.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- /* Of pods, which are not rolled because the chart's version changes. */ -}}
{{- define "ampbridge.podLabels" -}}
{{ include "ampbridge.selectorLabels" . }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "ampbridge.labels" -}}
{{ include "ampbridge.selectorLabels" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "ampbridge.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "ampbridge.policy" -}}
{{- $head := dict "apiVersion" "ampbridge.io/v1alpha1" "kind" "Policy" -}}
{{- toYaml (merge (deepCopy .Values.policy) $head) -}}
{{- end -}}

{{- /* What holds for every container of ours: the "restricted" pod security standard. No user is set: the image's is 65532, and OpenShift gives each namespace its own. */ -}}
{{- define "ampbridge.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{- define "ampbridge.podSecurityContext" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- /* The names of what the webhook serves with. */ -}}
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

{{- /* The region of the first destination's workspace, arn:<partition>:aps:<region>:… */ -}}
{{- define "ampbridge.syncRegion" -}}
{{- if .Values.sync.region -}}
{{- .Values.sync.region -}}
{{- else -}}
{{- range $i, $destination := .Values.policy.destinations -}}
{{- if eq $i 0 }}{{ index (splitList ":" $destination.workspace) 3 }}{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}

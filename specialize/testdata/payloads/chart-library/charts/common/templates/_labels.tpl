{{- define "common.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}
{{- define "common.merged" -}}
{{- toYaml (merge (dict "a" 1) (fromYaml (include "common.labels" .))) -}}
{{- end -}}

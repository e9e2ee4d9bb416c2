{{- define "chart-library.name" -}}{{ .Release.Name | trunc 63 | trimSuffix "-" }}{{- end -}}

#!/bin/sh
# Prints Alertmanager's configuration: alertmanager.yml, with the receivers that the variables TIDEMARK_ALERTS_… name, as for
# Airflow's alerts. The image's busybox can run it. A secret comes from the environment, or from its file in /run/secrets.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
runbook=${TIDEMARK_ALERTS_RUNBOOK_URL:-docs/runbook.md}

fail() {
    echo "error: $1" >&2
    exit 1
}

# print a value as a string of YAML
quoted() { printf "'%s'" "$(printf %s "$1" | sed "s/'/''/g")"; }

# secret NAME KEY: print the line that has the secret, or names its file; nothing if there is neither
secret() {
    eval "value=\${$1:-}"
    if [ -n "$value" ]; then
        echo "$2: $(quoted "$value")"
    elif [ -s "/run/secrets/$1" ]; then
        echo "$2_file: /run/secrets/$1"
    fi
}

title='[{{ if eq .Status "firing" }}{{ .CommonLabels.severity | toUpper }}{{ else }}RESOLVED{{ end }}]'
title="$title {{ .GroupLabels.SortedPairs.Values | join \" \" }}"
title="$title{{ if gt (len .Alerts) 1 }} ({{ len .Alerts.Firing }} of {{ len .Alerts }}){{ end }}"

# the message, as a block of YAML
text() {
    cat <<YAML
|-
          {{ range .Alerts.Firing -}}
          {{ .Annotations.summary }}
          Since {{ .StartsAt.UTC.Format "2006-01-02 15:04:05" }} UTC. What to do: $(link)
          {{ end -}}
          {{ range .Alerts.Resolved -}}
          Resolved at {{ .EndsAt.UTC.Format "2006-01-02 15:04:05" }} UTC: {{ .Annotations.summary }}
          {{ end -}}
YAML
}

link() { echo "{{ reReplaceAll \"^docs/runbook[.]md\" \"$runbook\" .Annotations.runbook_url }}"; }

webhook() {
    url=$(secret TIDEMARK_ALERTS_WEBHOOK_URL api_url)
    [ -n "$url" ] || return 0
    cat <<YAML
    slack_configs:
      - $url
        send_resolved: true
        title: '$title'
        fallback: '$title'
        text: $(text)
        color: '{{ if eq .Status "resolved" }}good{{ else if eq .CommonLabels.severity "critical" }}danger{{ else }}warning{{ end }}'
YAML
}

mail() {
    [ -n "${TIDEMARK_ALERTS_EMAIL_TO:-}" ] || return 0
    for name in TIDEMARK_ALERTS_EMAIL_FROM TIDEMARK_ALERTS_SMTP_HOST; do
        eval "value=\${$name:-}"
        [ -n "$value" ] || fail "TIDEMARK_ALERTS_EMAIL_TO is set, so $name must be set too."
    done
    security=${TIDEMARK_ALERTS_SMTP_SECURITY:-starttls}
    case $security in
        none) port=25 tls=false ;;
        starttls) port=587 tls=true ;;
        ssl) port=465 tls=true ;;
        *) fail "TIDEMARK_ALERTS_SMTP_SECURITY=$security: the values are starttls, ssl and none." ;;
    esac
    port=${TIDEMARK_ALERTS_SMTP_PORT:-$port}
    # Alertmanager 0.25 begins with TLS at this port alone
    if [ "$security" = ssl ] && [ "$port" != 465 ]; then
        fail "TIDEMARK_ALERTS_SMTP_PORT=$port: with TIDEMARK_ALERTS_SMTP_SECURITY=ssl, Alertmanager needs port 465."
    fi
    cat <<YAML
    email_configs:
      - to: $(quoted "$TIDEMARK_ALERTS_EMAIL_TO")
        from: $(quoted "$TIDEMARK_ALERTS_EMAIL_FROM")
        smarthost: $(quoted "$TIDEMARK_ALERTS_SMTP_HOST:$port")
        require_tls: $tls
        send_resolved: true
        headers: {Subject: '[Tidemark] $title', Auto-Submitted: auto-generated}
        html: ''
        text: $(text)
YAML
    password=$(secret TIDEMARK_ALERTS_SMTP_PASSWORD auth_password)
    if [ -n "${TIDEMARK_ALERTS_SMTP_USER:-}" ] && [ -n "$password" ]; then
        echo "        auth_username: $(quoted "$TIDEMARK_ALERTS_SMTP_USER")"
        echo "        $password"
    elif [ -n "${TIDEMARK_ALERTS_SMTP_USER:-}$password" ]; then
        fail "set both of TIDEMARK_ALERTS_SMTP_USER and TIDEMARK_ALERTS_SMTP_PASSWORD, or neither."
    fi
}

case ${TIDEMARK_ALERTS_BY:-airflow} in
    airflow) routes=p ;;
    alertmanager) routes=d ;;
    *) fail "TIDEMARK_ALERTS_BY=$TIDEMARK_ALERTS_BY: the values are airflow and alertmanager." ;;
esac
receivers=$(webhook && mail)
sed -n "/# <airflow>/,/# <\/airflow>/{$routes;d;};p" "$here/alertmanager.yml"
[ -z "$receivers" ] || echo "$receivers"

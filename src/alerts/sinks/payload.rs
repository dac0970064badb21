//! What receivers are sent.

use serde_json::{Value, json};

use crate::alerts::alert::{Alert, Notification, Severity};

/// Characters of a sentence at most.
const LONGEST: usize = 1000;

/// The form of `ALERT_WEBHOOK_URL`; docs/observability.md describes it.
pub fn webhook(notification: &Notification) -> Value {
    let Notification { alert, is_over, at } = notification;
    let Alert { kind, object, severity, since, server, host, summary, action, fingerprint } = alert;
    json!({
        "version": 1,
        "status": if *is_over { "resolved" } else { "firing" },
        "kind": notification.kind().name(),
        "of": kind.name(),
        "object": object,
        "severity": severity.name(),
        "since": since,
        "at": at,
        "server": server,
        "host": host,
        "title": notification.headline(),
        "summary": shortened(summary),
        "action": action,
        "fingerprint": fingerprint.to_string(),
        "link": kind.link(),
    })
}

/// The form of Slack's incoming webhooks, which others understand as well.
pub fn slack(notification: &Notification) -> Value {
    let Notification { alert, is_over, .. } = notification;
    let colour = match alert.severity {
        _ if *is_over => "good",
        Severity::Critical => "danger",
        Severity::Warning => "warning",
        Severity::Info => "#439fe0",
    };
    let field = |title: &str, value: &str| json!({ "title": title, "value": escaped(value), "short": true });
    let mut text = escaped(shortened(&alert.summary).as_str());
    if !is_over {
        text.push('\n');
        text.push_str(&escaped(&alert.action));
    }
    let title = escaped(&notification.headline());
    json!({
        "text": title,
        "attachments": [{
            "color": colour,
            "fallback": title,
            "title": alert.kind.name(),
            "title_link": alert.kind.link(),
            "text": text,
            "fields": [field("server", &alert.server), field("host", &alert.host), field("since", &alert.since)],
            "footer": format!("unified-nats {}", alert.fingerprint),
        }],
    })
}

/// Subject and text.
pub fn mail(notification: &Notification) -> (String, String) {
    let Notification { alert, is_over, at } = notification;
    let Alert { kind, severity, since, server, host, summary, action, fingerprint, .. } = alert;
    let summary = shortened(summary);
    let state = match is_over {
        true => format!("This is over since {at}. It was:\n{summary}\n"),
        false => format!("{summary}\n\nWhat to do: {action}\n"),
    };
    let body = format!(
        "{state}\nalert:       {kind}\nseverity:    {}\nserver:      {server}\nhost:        {host}\nsince:       {since}\n\
         fingerprint: {fingerprint}\n\n{}\n",
        severity.name(),
        kind.link()
    );
    (notification.headline(), body)
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The three characters that Slack gives a meaning.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::alert::{AlertKind, Fingerprint};

    fn notification(is_over: bool) -> Notification {
        let (kind, object) = (AlertKind::StreamMissing, "A".to_owned());
        let alert = Alert {
            fingerprint: Fingerprint::of("n", kind, &object),
            kind,
            object,
            severity: Severity::Critical,
            since: "2026-01-02T03:04:05.000Z".into(),
            server: "n".into(),
            host: "h".into(),
            summary: "stream A & <b> is gone".into(),
            action: "make it".into(),
        };
        Notification { alert, is_over, at: "2026-01-02T03:05:00.000Z".into() }
    }

    #[test]
    fn a_webhook_is_told_everything() {
        let body = webhook(&notification(false));
        let expected = json!({
            "version": 1, "status": "firing", "kind": "stream_missing", "of": "stream_missing", "object": "A",
            "severity": "critical", "since": "2026-01-02T03:04:05.000Z", "at": "2026-01-02T03:05:00.000Z",
            "server": "n", "host": "h", "title": "[critical] stream_missing (A) on n",
            "summary": "stream A & <b> is gone", "action": "make it", "fingerprint": "7ade6ab0a9d57ba9",
            "link": "https://github.com/marketprism/unified-nats/blob/main/docs/observability.md#stream_missing",
        });
        assert_eq!(body, expected);
        let body = webhook(&notification(true));
        assert_eq!(
            (&body["status"], &body["kind"], &body["of"]),
            (&json!("resolved"), &json!("recovered"), &json!("stream_missing"))
        );
        assert_eq!(body["title"], "[recovered] stream_missing (A) on n");
    }

    #[test]
    fn slack_gets_its_characters_escaped() {
        let body = slack(&notification(false)).to_string();
        assert!(body.contains("stream A &amp; &lt;b&gt; is gone\\nmake it"), "{body}");
        assert!(body.contains("\"danger\"") && !body.contains("\"good\""), "{body}");
        assert!(slack(&notification(true)).to_string().contains("\"good\""));
    }

    #[test]
    fn a_mail_says_what_is_so_or_over() {
        let (subject, body) = mail(&notification(false));
        assert_eq!(subject, "[critical] stream_missing (A) on n");
        assert!(body.starts_with("stream A & <b> is gone\n\nWhat to do: make it\n"), "{body}");
        assert!(mail(&notification(true)).1.starts_with("This is over since 2026-01-02T03:05:00.000Z."));
    }

    #[test]
    fn long_sentences_are_cut() {
        let mut long = notification(false);
        long.alert.summary = "é".repeat(LONGEST + 1);
        let summary = webhook(&long)["summary"].as_str().unwrap().chars().count();
        assert_eq!(summary, LONGEST + 1);
    }
}

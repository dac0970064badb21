use super::args::TestAlerts;
use super::exit::Code;
use super::{Flags, block_on, loaded_or_printed};
use crate::alerts::{Trial, send_trial};
use crate::settings::Purpose;

/// Sends one alert to every receiver that is set, and says how each took it.
pub fn test(flags: &Flags, arguments: &TestAlerts) -> Code {
    let settings = match loaded_or_printed(Purpose::Talk, flags) {
        Ok(loaded) => loaded.settings,
        Err(code) => return code,
    };
    if !settings.alerts.has_sinks() {
        complain!(
            "cannot send an alert: nobody is set to receive it; set ALERT_WEBHOOK_URL, ALERT_SLACK_WEBHOOK, or \
             ALERT_EMAIL with ALERT_SMTP_URL"
        );
        return Code::Failed;
    }
    block_on(async {
        let trials = send_trial(&settings, arguments.timeout).await;
        print(&trials, arguments.output.json);
        if trials.iter().all(|trial| trial.outcome.is_ok()) { Code::Success } else { Code::Failed }
    })
}

fn print(trials: &[Trial], json: bool) {
    if json {
        let of = |trial: &Trial| {
            let (name, error) = (trial.sink.name(), trial.outcome.as_ref().err());
            serde_json::json!({ "sink": name, "taken": error.is_none(), "error": error })
        };
        let result = serde_json::json!({ "sinks": trials.iter().map(of).collect::<Vec<_>>() });
        say!("{result:#}");
        return;
    }
    for Trial { sink, outcome } in trials {
        match outcome {
            Ok(()) => say!("ok    {:<8} took the alert", sink.name()),
            Err(reason) => say!("FAIL  {:<8} {reason}", sink.name()),
        }
    }
}

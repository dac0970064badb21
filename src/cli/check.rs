use super::args::HealthCheck as Arguments;
use super::exit::Code;
use super::{Flags, block_on, loaded_or_printed, login};
use std::time::Duration;

use crate::health::{Check, CheckScope, HealthCheck, Outcome, Report};
use crate::nats::Connector;
use crate::rest::ApiClient;
use crate::settings::{Purpose, Settings};
use crate::status::CheckStatus;

pub fn health_check(flags: &Flags, arguments: &Arguments) -> Code {
    let settings = match loaded_or_printed(Purpose::Talk, flags) {
        Ok(loaded) => loaded.settings,
        Err(code) => return code,
    };
    let link = Connector::new(&settings, login(&settings));
    // A little is left to tell what was found when the time is up.
    let timeout = arguments.timeout.mul_f64(0.95);
    let check = HealthCheck { settings: &settings, link, timeout };
    block_on(async {
        let report = check.make(arguments.kind, of_supervisor(&settings, arguments.kind, timeout)).await;
        print(&report, arguments.output.json);
        if report.is_healthy() { Code::Success } else { Code::Failed }
    })
}

/// What the supervisor itself says.
async fn of_supervisor(settings: &Settings, kind: CheckScope, deadline: Duration) -> Vec<Check> {
    let api = ApiClient::new(settings, deadline);
    let mut checks = vec![];
    if matches!(kind, CheckScope::Quick | CheckScope::Full) {
        let ready = async { api.readyz().await.map(|()| "the supervisor is ready".to_owned()) };
        checks.push(Check::run("ready", ready).await);
    }
    if kind == CheckScope::Full {
        // That it cannot be asked the check before says; it may not look after messages.
        let mut health = api.health().await.ok();
        let integrity = health.as_mut().and_then(|health| health.checks.others.remove("integrity"));
        checks.extend(integrity.map(|CheckStatus { status, detail }| Check::of("integrity", status, detail)));
    }
    checks
}

pub(super) fn print(report: &Report, json: bool) {
    if json {
        let result =
            serde_json::json!({ "healthy": report.is_healthy(), "checks": report.checks, "observed": report.observed });
        say!("{result:#}");
        return;
    }
    for check in &report.checks {
        let mark = match check.outcome {
            Outcome::Pass => "ok  ",
            Outcome::Warn => "warn",
            Outcome::Fail => "FAIL",
        };
        say!("{mark}  {:<13} {}", check.name, check.detail);
    }
    say!("{}", if report.is_healthy() { "healthy" } else { "unhealthy" });
}

use super::args::HealthCheck;
use super::exit::Code;
use super::{Flags, block_on, loaded_or_told, own};
use crate::health::{Examination, Outcome, Report};
use crate::nats::Link;
use crate::settings::Purpose;

pub fn health_check(flags: &Flags, arguments: &HealthCheck) -> Code {
    let settings = match loaded_or_told(Purpose::Talk, flags) {
        Ok(loaded) => loaded.settings,
        Err(code) => return code,
    };
    let link = Link::new(&settings, own(&settings));
    // A little is left to tell what was found when the time is up.
    let timeout = arguments.timeout.mul_f64(0.95);
    let examination = Examination { settings: &settings, link, timeout };
    block_on(async {
        let report = examination.make(arguments.kind).await;
        print(&report, arguments.output.json);
        if report.is_healthy() { Code::Success } else { Code::Failed }
    })
}

pub(super) fn print(report: &Report, json: bool) {
    if json {
        let result = serde_json::json!({ "healthy": report.is_healthy(), "checks": report.checks });
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

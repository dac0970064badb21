use super::args::HealthCheck;
use super::exit::Code;
use super::own;
use crate::health::{Examination, Outcome, Report};
use crate::nats::Link;
use crate::settings::{ProcessEnvironment, Settings};

pub fn health_check(flags: &[(&'static str, String)], arguments: &HealthCheck) -> Code {
    let settings = match Settings::load(&ProcessEnvironment, flags) {
        Ok(loaded) => loaded.settings,
        Err(problems) => {
            eprintln!("{problems}");
            return Code::Settings;
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("cannot start: {error}");
            return Code::Internal;
        }
    };
    let link = Link::new(&settings, own(&settings));
    // A little is left to tell what was found when the time is up.
    let timeout = arguments.timeout.mul_f64(0.95);
    let examination = Examination { settings: &settings, link, timeout };
    let report = runtime.block_on(examination.make(arguments.kind));
    runtime.shutdown_background();
    print(&report, arguments.output.json);
    if report.is_healthy() { Code::Success } else { Code::Failed }
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

use super::args::SelfTestArguments;
use super::check::print;
use super::exit::Code;
use super::own;
use crate::health::{Check, Outcome, Report, SelfTest};
use crate::nats::{Link, Monitor};
use crate::settings::{ProcessEnvironment, Settings};

/// Proves a deployment from end to end.
pub fn selftest(flags: &[(&'static str, String)], arguments: &SelfTestArguments) -> Code {
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
    let link = match &arguments.nats_url {
        Some(url) => Link::elsewhere(url, &settings),
        None => Link::new(&settings, own(&settings)),
    };
    let monitor = match (&arguments.http_url, &arguments.nats_url) {
        (Some(url), _) => Some(Monitor::at(url)),
        (None, Some(_)) => None,
        (None, None) => Monitor::new(&settings),
    };
    let test = SelfTest { settings: &settings, link, monitor, timeout: arguments.timeout };
    let outcome = runtime.block_on(test.make());
    runtime.shutdown_background();
    let (report, code) = match outcome {
        Ok(report) if report.is_healthy() => (report, Code::Success),
        Ok(report) => (report, Code::Failed),
        Err(error) => (Report { checks: vec![Check::from(&error)] }, Code::Unavailable),
    };
    let report = if arguments.detailed || arguments.output.json { report } else { summed_up(report) };
    if !arguments.quiet || code != Code::Success {
        print(&report, arguments.output.json);
    }
    code
}

/// Families that are served are one line.
fn summed_up(report: Report) -> Report {
    let is_served = |check: &Check| check.outcome == Outcome::Pass && check.detail.ends_with("read back, removed");
    let (served, mut checks): (Vec<_>, Vec<_>) = report.checks.into_iter().partition(is_served);
    if !served.is_empty() {
        let detail = format!("messages of {} families stored, read back, removed", served.len());
        let millis = served.iter().map(|check| check.millis).sum();
        checks.push(Check { name: "round-trip", outcome: Outcome::Pass, detail, millis });
    }
    Report { checks }
}

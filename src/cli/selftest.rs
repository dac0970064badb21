use super::args::SelfTestArguments;
use super::check::print;
use super::exit::Code;
use super::{Flags, block_on, loaded_or_printed, login};
use crate::health::{Check, Outcome, Report, SelfTest};
use crate::identity::login_as_operator;
use crate::nats::{Connector, Monitor};
use crate::settings::Purpose;

/// Proves a deployment from end to end.
pub fn selftest(flags: &Flags, arguments: &SelfTestArguments) -> Code {
    let settings = match loaded_or_printed(Purpose::Talk, flags) {
        Ok(loaded) => loaded.settings,
        Err(code) => return code,
    };
    let link = match &arguments.nats_url {
        Some(url) => Connector::elsewhere(url, &settings, login_as_operator(&settings)),
        None => Connector::new(&settings, login(&settings)),
    };
    let monitor = match (&arguments.http_url, &arguments.nats_url) {
        (Some(url), _) => Some(Monitor::at(url)),
        (None, Some(_)) => None,
        (None, None) => Monitor::new(&settings),
    };
    let test = SelfTest { settings: &settings, link, monitor, timeout: arguments.timeout };
    block_on(async {
        let (report, code) = match test.make().await {
            Ok(report) if report.is_healthy() => (report, Code::Success),
            Ok(report) => (report, Code::Failed),
            Err(error) => (Report { checks: vec![Check::from(&error)], ..Report::default() }, Code::Unavailable),
        };
        let report = if arguments.detailed || arguments.output.json { report } else { summed_up(report) };
        if !arguments.quiet || code != Code::Success {
            print(&report, arguments.output.json);
        }
        code
    })
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
    Report { checks, ..report }
}

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::domain::parse_span;
use crate::health::CheckScope;
use crate::settings::variables;

/// NATS JetStream as a market-data broker: configures, supervises, provisions and watches
/// nats-server.
#[derive(Parser)]
#[command(name = "unified-nats", version = VERSION, after_help = AFTER_HELP)]
pub struct Cli {
    #[command(flatten)]
    pub settings: SettingsFlags,
    #[command(subcommand)]
    pub command: Option<Command>,
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (", env!("UNIFIED_NATS_REVISION"), ")");

const AFTER_HELP: &str = "Settings come from environment variables; `unified-nats config reference` \
lists them.\n\nExit codes: 0 success, 1 failed, 64 wrong command line, 69 nats-server or a port \
is unavailable, 70 internal error, 75 restart budget spent, 78 invalid settings.";

/// Settings that the command line can give; they win over the environment.
#[derive(Args)]
pub struct SettingsFlags {
    /// Settings file (CONFIG_FILE)
    #[arg(short, long, value_name = "FILE", global = true)]
    config: Option<String>,
    /// Lowest level of log lines (LOG_LEVEL)
    #[arg(long, value_name = "LEVEL", global = true)]
    log_level: Option<String>,
    /// Form of log lines: json or text (LOG_FORMAT)
    #[arg(long, value_name = "FORMAT", global = true)]
    log_format: Option<String>,
}

impl SettingsFlags {
    pub fn as_variables(&self) -> Vec<(&'static str, String)> {
        [
            (&variables::CONFIG_FILE, &self.config),
            (&variables::LOG_LEVEL, &self.log_level),
            (&variables::LOG_FORMAT, &self.log_format),
        ]
        .into_iter()
        .filter_map(|(variable, value)| Some((variable.name, value.clone()?)))
        .collect()
    }
}

#[derive(Subcommand)]
pub enum Command {
    /// Run the broker (the default)
    Run,
    /// Check a running broker from outside
    HealthCheck(HealthCheck),
    /// Prove a deployment from end to end, with messages that are removed again
    Selftest(SelfTestArguments),
    /// Settings and nats.conf
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// The streams of a running broker
    Streams {
        #[command(subcommand)]
        command: StreamsCommand,
    },
    /// Alerts
    Alerts {
        #[command(subcommand)]
        command: AlertsCommand,
    },
    /// Watch a running broker in the terminal
    Top(Top),
    /// Print a completion script for a shell
    Completions { shell: Shell },
}

#[derive(Args)]
pub struct HealthCheck {
    /// What to check
    #[arg(value_enum, default_value = "quick")]
    pub kind: CheckScope,
    /// Time for the whole check, such as 5 or 500ms
    #[arg(long, default_value = "5", value_parser = parse_timeout)]
    pub timeout: Duration,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Args)]
pub struct Top {
    /// Print one picture as text, which takes a few seconds, and end
    #[arg(long)]
    pub once: bool,
    /// Time for each request, such as 2 or 500ms
    #[arg(long, default_value = "2", value_parser = parse_timeout)]
    pub timeout: Duration,
}

#[derive(Args)]
pub struct SelfTestArguments {
    /// Every family by itself
    #[arg(short, long)]
    pub detailed: bool,
    /// Print nothing where all is well
    #[arg(short, long)]
    pub quiet: bool,
    /// Another server than that of the settings
    #[arg(long, value_name = "URL")]
    pub nats_url: Option<String>,
    /// The monitoring of that server, such as http://host:8222
    #[arg(long, value_name = "URL")]
    pub http_url: Option<String>,
    /// Time for each step, such as 5 or 500ms
    #[arg(long, default_value = "5", value_parser = parse_timeout)]
    pub timeout: Duration,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Subcommand)]
pub enum AlertsCommand {
    /// Send one alert to every receiver that is set
    Test(TestAlerts),
}

#[derive(Args)]
pub struct TestAlerts {
    /// Time for each receiver, such as 10 or 500ms
    #[arg(long, default_value = "10", value_parser = parse_timeout)]
    pub timeout: Duration,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Subcommand)]
pub enum StreamsCommand {
    /// Show the state of the streams against the declared ones
    Check(CheckStreams),
    /// Show what would change
    Plan(PlanStreams),
    /// Make the streams as they are declared
    Apply(ApplyStreams),
    /// Accept that messages are missing, so that the broker is healthy again
    AcknowledgeLoss(AcknowledgeLoss),
}

#[derive(Args)]
pub struct CheckStreams {
    /// Limits, times, consumers and families as well
    #[arg(short, long)]
    pub detailed: bool,
    /// The numbers of each stream; with --json one array with stable keys
    #[arg(long)]
    pub stats: bool,
    /// Only what is wrong
    #[arg(short, long)]
    pub quiet: bool,
    /// Only this stream
    #[arg(long)]
    pub stream: Option<String>,
    /// Another server than that of the settings
    #[arg(long, value_name = "URL")]
    pub nats_url: Option<String>,
    /// Time for each request, such as 5 or 500ms
    #[arg(long, default_value = "10", value_parser = parse_timeout)]
    pub timeout: Duration,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Args)]
pub struct PlanStreams {
    /// End with 2 when changes are pending
    #[arg(long)]
    pub exit_code: bool,
    /// Time for each request, such as 5 or 500ms
    #[arg(long, default_value = "10", value_parser = parse_timeout)]
    pub timeout: Duration,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Args)]
pub struct ApplyStreams {
    /// Wait for the server first
    #[arg(long)]
    pub wait: bool,
    /// Time for all of it, such as 60 or 500ms
    #[arg(long, default_value = "60", value_parser = parse_timeout)]
    pub timeout: Duration,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Args)]
pub struct AcknowledgeLoss {
    /// Only what is missing in this stream
    pub stream: Option<String>,
    /// Time for the broker to take it up, such as 5 or 500ms
    #[arg(long, default_value = "10", value_parser = parse_timeout)]
    pub timeout: Duration,
    #[command(flatten)]
    pub output: OutputFlags,
}

#[derive(Args)]
pub struct OutputFlags {
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Subcommand)]
pub enum ConfigCommand {
    /// Print the nats.conf that `run` would write, secrets redacted
    Render(Render),
    /// Check all settings, and nats.conf with nats-server
    Validate(OutputFlags),
    /// Show the effective settings and where each comes from
    Show(OutputFlags),
    /// Print the reference of all variables
    Reference(Reference),
}

#[derive(Args)]
pub struct Render {
    /// Write the whole file, secrets included, mode 0600
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Args)]
pub struct Reference {
    /// The template for .env instead of Markdown
    #[arg(long, conflicts_with = "json")]
    pub env: bool,
    /// Print the result as JSON
    #[arg(long)]
    pub json: bool,
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    match parse_span(text)? {
        Duration::ZERO => Err("must be above 0".into()),
        span => Ok(span),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}

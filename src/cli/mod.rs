//! Arguments → command → exit code.

/// Prints a line of a result.
macro_rules! say {
    ($($words:tt)*) => {{
        crate::cli::output::say(format_args!($($words)*), "\n")
    }};
}

/// The same without the end of the line.
macro_rules! say_raw {
    ($($words:tt)*) => {{
        crate::cli::output::say(format_args!($($words)*), "")
    }};
}

/// Says why there is no result, to whoever hears it: the exit code tells it all the same.
macro_rules! complain {
    ($($words:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), $($words)*);
    }};
}

mod alerts;
mod alias;
mod args;
mod check;
mod config;
mod exit;
mod login;
mod output;
mod run;
mod selftest;
mod streams;
mod top;

use std::ffi::OsString;
use std::time::Instant;

use clap::Parser;
use tokio::runtime::Builder;

pub use args::Cli;
use args::{AlertsCommand, Command, ConfigCommand, StreamsCommand};
pub use exit::Code;
use login::login;

use crate::lifecycle::signals;
use crate::settings::{Loaded, ProcessEnvironment, Purpose, Settings};

/// Settings that the command line says, by the names of their variables.
type Flags = [(&'static str, String)];

/// Runs the command that the arguments ask for. `started` is when the program began.
pub fn main(arguments: impl Iterator<Item = OsString>, started: Instant) -> Code {
    signals::hold();
    // The one TLS stack, for every library that asks for a default.
    let _ = rustls::crypto::CryptoProvider::clone(&crate::signatures::provider()).install_default();
    let arguments: Vec<_> = arguments.collect();
    std::panic::catch_unwind(|| dispatch(arguments, started)).unwrap_or(Code::Internal)
}

/// The settings; what is wrong with them is printed.
fn loaded_or_printed(purpose: Purpose, flags: &Flags) -> Result<Loaded, Code> {
    Settings::load_for(purpose, &ProcessEnvironment, flags).map_err(|problems| {
        complain!("{problems}");
        Code::Settings
    })
}

/// Runs `work` on the main thread; what it leaves running matters no more when it is done.
fn block_on(work: impl Future<Output = Code>) -> Code {
    match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(work);
            runtime.shutdown_background();
            code
        }
        Err(error) => {
            complain!("cannot start the runtime: {error}");
            Code::Internal
        }
    }
}

fn dispatch(arguments: Vec<OsString>, started: Instant) -> Code {
    let arguments = match alias::translate(arguments) {
        Ok(arguments) => arguments,
        Err(refusal) => {
            complain!("{refusal}");
            return Code::Usage;
        }
    };
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // --help and --version are answers, not errors.
            let _ = error.print();
            return if error.use_stderr() { Code::Usage } else { Code::Success };
        }
    };
    let flags = cli.settings.as_variables();
    let command = cli.command.unwrap_or(Command::Run);
    // The broker logs, and does not answer.
    let answers = !matches!(command, Command::Run);
    if answers {
        // Commands end by signals as any program does.
        signals::release();
    }
    let code = carry_out(command, &flags, started);
    if answers { output::ended(code) } else { code }
}

fn carry_out(command: Command, flags: &Flags, started: Instant) -> Code {
    match command {
        Command::Run => run::run(flags, started),
        Command::HealthCheck(arguments) => check::health_check(flags, &arguments),
        Command::Selftest(arguments) => selftest::selftest(flags, &arguments),
        Command::Config { command } => match command {
            ConfigCommand::Render(arguments) => config::render(flags, &arguments),
            ConfigCommand::Validate(arguments) => config::validate(flags, &arguments),
            ConfigCommand::Show(arguments) => config::show(flags, &arguments),
            ConfigCommand::Reference(arguments) => config::reference(&arguments),
        },
        Command::Streams { command } => match command {
            StreamsCommand::Check(arguments) => streams::check(flags, &arguments),
            StreamsCommand::Plan(arguments) => streams::plan(flags, &arguments),
            StreamsCommand::Apply(arguments) => streams::apply(flags, &arguments),
            StreamsCommand::AcknowledgeLoss(arguments) => streams::acknowledge_loss(flags, &arguments),
        },
        Command::Alerts { command: AlertsCommand::Test(arguments) } => alerts::test(flags, &arguments),
        Command::Top(arguments) => top::top(flags, &arguments),
        Command::Completions { shell } => {
            use clap::CommandFactory;
            let mut script = vec![];
            clap_complete::generate(shell, &mut Cli::command(), "unified-nats", &mut script);
            say_raw!("{}", String::from_utf8_lossy(&script));
            Code::Success
        }
    }
}

//! Arguments → command → exit code.

/// Prints a result. A reader that has gone is no error: `config show | head` wants no more.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

/// The same without the end of the line.
macro_rules! say_raw {
    ($($words:tt)*) => {{
        use std::io::Write;
        let _ = write!(std::io::stdout(), $($words)*);
    }};
}

mod alerts;
mod alias;
mod args;
mod check;
mod config;
mod exit;
mod login;
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
        eprintln!("{problems}");
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
            eprintln!("cannot start the runtime: {error}");
            Code::Internal
        }
    }
}

fn dispatch(arguments: Vec<OsString>, started: Instant) -> Code {
    let arguments = match alias::translate(arguments) {
        Ok(arguments) => arguments,
        Err(refusal) => {
            eprintln!("{refusal}");
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
    if !matches!(command, Command::Run) {
        // Commands end by signals as any program does.
        signals::release();
    }
    match command {
        Command::Run => run::run(&flags, started),
        Command::HealthCheck(arguments) => check::health_check(&flags, &arguments),
        Command::Selftest(arguments) => selftest::selftest(&flags, &arguments),
        Command::Config { command } => match command {
            ConfigCommand::Render(arguments) => config::render(&flags, &arguments),
            ConfigCommand::Validate(arguments) => config::validate(&flags, &arguments),
            ConfigCommand::Show(arguments) => config::show(&flags, &arguments),
            ConfigCommand::Reference(arguments) => config::reference(&arguments),
        },
        Command::Streams { command } => match command {
            StreamsCommand::Check(arguments) => streams::check(&flags, &arguments),
            StreamsCommand::Plan(arguments) => streams::plan(&flags, &arguments),
            StreamsCommand::Apply(arguments) => streams::apply(&flags, &arguments),
            StreamsCommand::AcknowledgeLoss(arguments) => streams::acknowledge_loss(&flags, &arguments),
        },
        Command::Alerts { command: AlertsCommand::Test(arguments) } => alerts::test(&flags, &arguments),
        Command::Top(arguments) => top::top(&flags, &arguments),
        Command::Completions { shell } => {
            use clap::CommandFactory;
            clap_complete::generate(shell, &mut Cli::command(), "unified-nats", &mut std::io::stdout());
            Code::Success
        }
    }
}

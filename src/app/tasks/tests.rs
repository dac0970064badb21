use std::time::Duration;

use super::*;
use crate::files::FileContent;
use crate::logging::Output;
use crate::settings::{LogFormat, Settings};
use crate::supervisor::{Hindrance, RestartPolicy, Timing, Work};

struct NeverLaunches;

impl crate::supervisor::Launch for NeverLaunches {
    fn launch(&mut self) -> std::io::Result<crate::supervisor::Launched> {
        Err(std::io::ErrorKind::NotFound.into())
    }

    fn signal(&mut self, _: Option<nix::unistd::Pid>, _: nix::sys::signal::Signal) {}

    fn preparation(&mut self) -> Option<Work<(), Hindrance>> {
        None
    }

    fn installation(&mut self, _: Vec<FileContent>) -> Work<(), std::io::Error> {
        Box::new(|| Ok(()))
    }
}

fn supervisor() -> (Supervisor<NeverLaunches>, Handle) {
    let settings = Settings::load(&[("RESTART_MAX", "1000000")], &[]).unwrap().settings;
    let log = crate::logging::init(tracing::Level::ERROR, LogFormat::Json, Output::Stderr);
    let timing = Timing {
        drain_delay: Duration::ZERO,
        close: Duration::ZERO,
        kill_after: Duration::from_secs(1),
        lame_duck: Duration::ZERO,
        hand_over: None,
    };
    Supervisor::new(NeverLaunches, RestartPolicy::new(&settings.supervision), timing, log, None)
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ends_or_panics_stops_the_broker_with_an_internal_error() {
    for panics in [false, true] {
        let (supervisor, handle) = supervisor();
        let mut tasks = Tasks::default();
        let handle = tasks.supervise((supervisor, handle));
        tasks.start("other", async move { assert!(!panics, "meant by the test") });
        tasks.start("lasting", std::future::pending());
        let outcome = tasks.until_over(&handle).await;
        assert!(matches!(outcome, Err(StartError::Internal(_))), "{outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_supervisor_that_panics_ends_the_program() {
    let (supervisor, handle) = supervisor();
    drop(supervisor);
    let mut tasks = Tasks::default();
    tasks.start("supervisor", async { panic!("meant by the test") });
    tasks.start("lasting", std::future::pending());
    assert!(matches!(tasks.until_over(&handle).await, Err(StartError::Internal(_))));
}

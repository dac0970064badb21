//! `top`: a running broker in the terminal. It asks `/health` and `/metrics` each second, so that it shows
//! what everybody may ask for, and the broker has nothing to do for it between two questions.

mod draw;
mod picture;
mod samples;
mod terminal;

use std::io::IsTerminal;
use std::pin::pin;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use reqwest::header::HeaderValue;
use tokio::time::sleep;

use super::args::Top;
use super::exit::Code;
use super::{Flags, block_on, loaded_or_printed};
use crate::identity::login_as_operator;
use crate::rest::ApiClient;
use crate::settings::{Credentials, Purpose, Settings};
use picture::{History, Picture, Seen};
use samples::Samples;
use terminal::{Screen, Wish};

/// Between two questions.
const PERIOD: Duration = Duration::from_secs(1);
/// Between two looks at the keyboard.
const KEYS: Duration = Duration::from_millis(50);
/// Between the two questions of `--once`: messages are counted every two seconds, and rates take two counts.
const APART: Duration = Duration::from_millis(2500);
/// Columns where nothing says how many there are.
const WIDE: u16 = 120;
const NARROWEST: u16 = 60;
const WIDEST: u16 = 400;

/// Watches the broker of the settings.
pub fn top(flags: &Flags, arguments: &Top) -> Code {
    let settings = match loaded_or_printed(Purpose::Talk, flags) {
        Ok(loaded) => loaded.settings,
        Err(code) => return code,
    };
    let is_at_a_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if !arguments.once && !is_at_a_terminal {
        complain!(
            "cannot watch the broker: standard input or output is no terminal; use `docker exec -it`, or print one \
             picture with `unified-nats top --once`"
        );
        return Code::Usage;
    }
    // Without TERM, as under some `docker exec -it`, there is a terminal all the same.
    if !arguments.once && std::env::var_os("TERM").is_some_and(|name| name == "dumb") {
        complain!(
            "cannot watch the broker: a terminal with TERM=dumb only takes lines; print one picture with \
             `unified-nats top --once`"
        );
        return Code::Usage;
    }
    let source =
        Source { client: ApiClient::new(&settings, arguments.timeout), settings: &settings, started: Instant::now() };
    block_on(async {
        match arguments.once {
            true => once(&source).await,
            false => watch(&source).await,
        }
    })
}

/// Whom the picture is had from.
struct Source<'a> {
    client: ApiClient,
    settings: &'a Settings,
    started: Instant,
}

impl Source<'_> {
    async fn look_up(&self) -> Seen {
        let metrics = async { self.client.metrics(shown(self.settings)?).await };
        let (health, metrics) = tokio::join!(self.client.health(), metrics);
        let samples = metrics.and_then(|text| Samples::of_broker(&text));
        Seen { at: self.started.elapsed().as_secs_f64(), health, samples }
    }

    fn history(&self) -> History {
        History::new(self.settings.metrics.prefix.clone())
    }
}

/// What lets us in: a token of the API, or a user of the settings. The users that the broker makes for itself
/// are let in nowhere but at nats-server.
fn shown(settings: &Settings) -> Result<Option<HeaderValue>, String> {
    let keys = settings.api_keys();
    let text = match (keys.reading.or(keys.full), keys.users.then(|| login_as_operator(settings).credentials).flatten())
    {
        // The port of their own lets everybody in.
        _ if settings.metrics.enabled => return Ok(None),
        (Some(token), _) => format!("Bearer {}", token.expose()),
        (None, Some(Credentials::User { name, password })) => {
            format!("Basic {}", BASE64_STANDARD.encode(format!("{name}:{}", password.expose())))
        }
        (None, _) if keys.users => {
            let reason = "the settings hold no password in plain text of a user who may do everything";
            return Err(format!("cannot log in to the API: {reason}; set API_READ_TOKEN, or PROMETHEUS_ENABLED=true"));
        }
        (None, _) => return Ok(None),
    };
    let mut value = HeaderValue::from_str(&text).map_err(|_| "cannot log in to the API: the token fits no header")?;
    value.set_sensitive(true);
    Ok(Some(value))
}

async fn once(source: &Source<'_>) -> Code {
    let mut history = source.history();
    history.add(source.look_up().await);
    if history.failure().is_none() {
        sleep(APART).await;
        history.add(source.look_up().await);
    }
    if let Some(failure) = history.failure() {
        complain!("cannot show the broker: {failure}");
        return Code::Unavailable;
    }
    let width = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).unwrap_or(WIDE);
    say!("{}", draw::as_text(&Picture::of(&history), width.clamp(NARROWEST, WIDEST)));
    Code::Success
}

async fn watch(source: &Source<'_>) -> Code {
    let mut screen = match Screen::open() {
        Ok(screen) => screen,
        Err(error) => {
            complain!("cannot use the terminal: {error}; print one picture with `unified-nats top --once`");
            return Code::Failed;
        }
    };
    let ended = show_until_ended(source, &mut screen).await;
    // The terminal is as it was before anything else is said.
    drop(screen);
    match ended {
        Ok(Wish::End(signal)) => {
            let _ = signal_hook::low_level::emulate_default_handler(signal);
            Code::Failed
        }
        Ok(_) => Code::Success,
        Err(error) => {
            complain!("cannot use the terminal any more: {error}");
            Code::Failed
        }
    }
}

async fn show_until_ended(source: &Source<'_>, screen: &mut Screen) -> std::io::Result<Wish> {
    let mut history = source.history();
    let mut picture = Picture::default();
    "asking".clone_into(&mut picture.state);
    screen.draw(&picture)?;
    loop {
        let asked = Instant::now();
        // Dropping the question ends it.
        let mut answer = pin!(source.look_up());
        let mut is_answered = false;
        while !is_answered || asked.elapsed() < PERIOD {
            match screen.wish()? {
                Some(Wish::Redraw) => screen.draw(&picture)?,
                Some(Wish::Suspend) => {
                    screen.suspend()?;
                    screen.draw(&picture)?;
                }
                Some(Wish::Resume) => {
                    screen.take_again()?;
                    screen.draw(&picture)?;
                }
                Some(wish) => return Ok(wish),
                None => {}
            }
            tokio::select! {
                seen = answer.as_mut(), if !is_answered => {
                    is_answered = true;
                    history.add(seen);
                    picture = Picture::of(&history);
                    screen.draw(&picture)?;
                }
                () = sleep(KEYS) => {}
            }
        }
    }
}

//! Users of nats-server who come another way. Each acts over a connection of its own, made with its own
//! password, so that nats-server itself holds it to its permissions.
//!
//! A connection is made once somebody asks as that user, and lasts while somebody does: until it idles,
//! breaks, or what lets users in may have changed. Then it is made anew, which nats-server may refuse. So
//! whoever was in yesterday is asked for nothing less than who comes today.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use subtle::ConstantTimeEq;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use super::link::{FIRST_PAUSE, LAST_PAUSE, Link, PATIENCE, Session, Sessions, launched};
use super::{Broker, Failure, OfAll};
use crate::domain::{Role, Secret};
use crate::nats::{Connection, Connectors};

/// Connections at most.
const MOST: usize = 128;
/// Logins at a time: nats-server may have to hash a password for each.
const LOGINS: usize = 4;
/// One that nobody has used for so long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// Time at least for nats-server's word that the user cannot hear answers.
const WORD: Duration = Duration::from_millis(20);

/// The connections of users.
#[derive(Clone)]
pub struct Users(Arc<Pool>);

struct Pool {
    connectors: watch::Receiver<Connectors>,
    of_all: OfAll,
    /// By the user's name; one password each, unless somebody guesses or it is just changing.
    entries: Mutex<HashMap<String, Vec<Entry>>>,
    logins: Semaphore,
}

/// A user with one password.
struct Entry {
    number: u64,
    password: Secret,
    broker: Broker,
    last_used: Instant,
    /// Ends with it.
    _keeper: AbortOnDropHandle<()>,
}

impl Entry {
    /// Whether nobody has its broker.
    fn is_unused(&self) -> bool {
        Arc::strong_count(&self.broker.0) == 1
    }

    /// Takes the same time for every password of that length.
    fn is_of(&self, password: &Secret) -> bool {
        self.password.expose().as_bytes().ct_eq(password.expose().as_bytes()).into()
    }
}

impl Users {
    pub(super) fn new(connectors: watch::Receiver<Connectors>, of_all: OfAll) -> Self {
        let (entries, logins) = (Mutex::default(), Semaphore::new(LOGINS));
        Self(Arc::new(Pool { connectors, of_all, entries, logins }))
    }

    /// The broker as that user may use it, where somebody has asked with that password of late.
    pub fn known(&self, name: &str, password: &Secret) -> Option<Broker> {
        let mut entries = self.0.entries();
        let entry = entries.get_mut(name)?.iter_mut().find(|entry| entry.is_of(password))?;
        entry.last_used = Instant::now();
        Some(entry.broker.clone())
    }

    /// The same for who may be new. Nothing can be done with it until nats-server has let the user in.
    pub fn introduce(&self, name: &str, password: &Secret) -> Result<Broker, Failure> {
        // Ours are nobody's to use, whatever their passwords.
        if name.is_empty() || Role::of_user(name).is_some() {
            return Err(Failure::NotLetIn);
        }
        self.0.clone().entry(name, password)
    }
}

impl Pool {
    fn entries(&self) -> MutexGuard<'_, HashMap<String, Vec<Entry>>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The broker of that user, new or not.
    fn entry(self: Arc<Self>, name: &str, password: &Secret) -> Result<Broker, Failure> {
        let mut entries = self.entries();
        if let Some(entry) = entries.get_mut(name).and_then(|of| of.iter_mut().find(|entry| entry.is_of(password))) {
            entry.last_used = Instant::now();
            return Ok(entry.broker.clone());
        }
        if entries.values().map(Vec::len).sum::<usize>() >= MOST {
            make_room(&mut entries)?;
        }
        let (sender, link) = watch::channel(Link::Away);
        let broker = Broker::of_user(Sessions::new(link), &self.of_all);
        let number = fastrand::u64(..);
        let keeper = Keeper {
            pool: self.clone(),
            connectors: self.connectors.clone(),
            name: name.to_owned(),
            number,
            password: password.clone(),
            link: sender,
        };
        let keeper = AbortOnDropHandle::new(tokio::spawn(keeper.run()));
        let (password, last_used) = (password.clone(), Instant::now());
        let entry = Entry { number, password, broker: broker.clone(), last_used, _keeper: keeper };
        entries.entry(name.to_owned()).or_default().push(entry);
        Ok(broker)
    }
}

/// Closes the connection that nobody has used for longest.
fn make_room(entries: &mut HashMap<String, Vec<Entry>>) -> Result<(), Failure> {
    let unused = entries.iter().flat_map(|(name, of)| of.iter().map(move |entry| (name, entry)));
    let oldest = unused.filter(|(_, entry)| entry.is_unused()).min_by_key(|(_, entry)| entry.last_used);
    let Some((name, number)) = oldest.map(|(name, entry)| (name.clone(), entry.number)) else {
        return Err(Failure::Busy(format!("{MOST} users of nats-server are served already")));
    };
    remove(entries, &name, |entry| entry.number == number);
    Ok(())
}

fn remove(entries: &mut HashMap<String, Vec<Entry>>, name: &str, which: impl Fn(&Entry) -> bool) -> bool {
    let Some(of) = entries.get_mut(name) else { return false };
    let before = of.len();
    of.retain(|entry| !which(entry));
    let removed = of.len() < before;
    if of.is_empty() {
        entries.remove(name);
    }
    removed
}

/// Keeps the connection of one entry.
struct Keeper {
    pool: Arc<Pool>,
    connectors: watch::Receiver<Connectors>,
    name: String,
    number: u64,
    password: Secret,
    link: watch::Sender<Link>,
}

/// Why a connection is not held any more.
#[derive(PartialEq)]
enum End {
    Refused,
    Idle,
    /// It broke, or the server is another one, or the settings are.
    Over,
}

impl Keeper {
    async fn run(mut self) {
        let mut status = self.pool.of_all.status.clone();
        loop {
            let generation = tokio::select! {
                generation = launched(&mut status) => generation,
                () = self.idle() => return,
            };
            let Ok(generation) = generation else { return };
            let end = tokio::select! {
                end = self.hold() => end,
                gone = status.wait_for(|status| status.generation != Some(generation)) => match gone {
                    Ok(_) => End::Over,
                    Err(_) => return,
                },
            };
            match end {
                End::Refused => {
                    self.link.send_replace(Link::Refused);
                    remove(&mut self.pool.entries(), &self.name, |entry| entry.number == self.number);
                    return;
                }
                End::Idle => return,
                End::Over => _ = self.link.send_replace(Link::Away),
            }
        }
    }

    /// Connects, and lends the connection for as long as it is good.
    async fn hold(&mut self) -> End {
        let connection = tokio::select! {
            connection = connect(&mut self.connectors, &self.pool.logins, &self.name, &self.password) => connection,
            () = idle(&self.pool, &self.name, self.number) => return End::Idle,
        };
        let Some(connection) = connection else { return End::Refused };
        // Whatever ends this, who has the session hears of it.
        let (session, _guard) = Session::lend(&connection);
        self.link.send_replace(Link::Up(Box::new(session)));
        tokio::select! {
            () = connection.broken() => End::Over,
            _ = self.connectors.changed() => End::Over,
            () = idle(&self.pool, &self.name, self.number) => End::Idle,
        }
    }

    async fn idle(&self) {
        idle(&self.pool, &self.name, self.number).await;
    }
}

/// [`None`] where nats-server says no.
async fn connect(
    connectors: &mut watch::Receiver<Connectors>,
    logins: &Semaphore,
    name: &str,
    password: &Secret,
) -> Option<Connection> {
    let mut pause = FIRST_PAUSE;
    loop {
        let connector = connectors.borrow_and_update().data.as_user(name, password.clone());
        let (connected, took) = {
            // It is never closed.
            let _turn = logins.acquire().await;
            let started = Instant::now();
            (connector.connect(PATIENCE).await, started.elapsed())
        };
        match connected {
            Ok(connection) => {
                // A login is two messages each way, so that one takes less.
                find_out_whether_deaf(&connection, took.max(WORD)).await;
                return Some(connection);
            }
            Err(error) if error.is_refusal() => return None,
            Err(_) => {}
        }
        sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

/// Has nats-server say at once whether the user may hear answers: a message that is stored without that
/// would look like one that was not.
async fn find_out_whether_deaf(connection: &Connection, patience: Duration) {
    let (client, violations) = (&connection.client, connection.refused());
    let heard = violations.watch();
    let Ok(_subscriber) = client.subscribe(client.new_inbox()).await else { return };
    if timeout(PATIENCE, client.flush()).await.is_ok_and(|flushed| flushed.is_ok()) {
        let _ = timeout(patience, heard.of("")).await;
    }
}

/// Waits until nobody has used the entry for a while, and takes it out.
async fn idle(pool: &Pool, name: &str, number: u64) {
    loop {
        sleep(IDLE / 2).await;
        let is_idle = |entry: &Entry| entry.number == number && entry.is_unused() && entry.last_used.elapsed() >= IDLE;
        if remove(&mut pool.entries(), name, is_idle) {
            return;
        }
    }
}

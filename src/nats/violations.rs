//! What a server does not let the user of a connection do. It says so in a line of its own, and gives a
//! request that it has refused no answer.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::broadcast;

/// As many are kept for who is slow to hear of them.
const REMEMBERED: usize = 64;

/// Something that the user may not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub action: &'static str,
    pub subject: String,
}

const PUBLISH: &str = "publish to";
const SUBSCRIBE: &str = "subscribe to";
const HEAR_ANSWERS: &str = "hear answers, which takes a grant to subscribe to";

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.action, self.subject)
    }
}

impl Violation {
    /// `Permissions Violation for Publish to "subject"`, or for a subscription; the subject as Go quotes it.
    fn parse(words: &str) -> Option<Self> {
        let rest = words.strip_prefix("Permissions Violation for ")?;
        let (action, quoted) = match rest.strip_prefix("Publish to \"") {
            Some(quoted) => (PUBLISH, quoted),
            None => (SUBSCRIBE, rest.strip_prefix("Subscription to \"")?),
        };
        let mut subject = String::new();
        let mut characters = quoted.chars();
        loop {
            match characters.next()? {
                '"' => return Some(Self { action, subject }),
                '\\' => subject.push(characters.next()?),
                character => subject.push(character),
            }
        }
    }
}

/// What the server has said about the user of a connection.
#[derive(Clone)]
pub struct PermissionViolations {
    last: Arc<Mutex<Option<String>>>,
    heard: broadcast::Sender<Violation>,
    /// Below it answers arrive.
    inbox: Arc<str>,
    /// They do not: the server does not let the user subscribe there.
    is_deaf: Arc<AtomicBool>,
    /// Whether the user is one of ours, so that the operator should know.
    warns: bool,
}

/// What is heard from the moment on at which this was made.
pub struct Denials {
    violations: PermissionViolations,
    heard: broadcast::Receiver<Violation>,
}

impl PermissionViolations {
    pub(super) fn new(inbox: &str, warns: bool) -> Self {
        let heard = broadcast::Sender::new(REMEMBERED);
        Self { last: Arc::default(), heard, inbox: format!("{inbox}.").into(), is_deaf: Arc::default(), warns }
    }

    pub(super) fn note(&self, words: &str) {
        if let Some(violation) = Violation::parse(words) {
            if violation.action == SUBSCRIBE && violation.subject.starts_with(&*self.inbox) {
                self.is_deaf.store(true, Ordering::Release);
            }
            // Nobody may be waiting.
            let _ = self.heard.send(violation);
        }
        let Ok(mut last) = self.last.lock() else { return };
        if self.warns && last.as_deref() != Some(words) {
            tracing::warn!("NATS refuses something to our connection: {words}");
            *last = Some(words.to_owned());
        }
    }

    pub fn is_any(&self) -> bool {
        self.last.lock().is_ok_and(|last| last.is_some())
    }

    /// Why no answer can reach us, where that is known.
    pub fn deaf(&self) -> Option<Violation> {
        let is_deaf = self.is_deaf.load(Ordering::Acquire);
        is_deaf.then(|| Violation { action: HEAR_ANSWERS, subject: format!("{}>", self.inbox) })
    }

    /// Listens from now on: to be called before the request is made.
    pub fn watch(&self) -> Denials {
        Denials { heard: self.heard.subscribe(), violations: self.clone() }
    }

    /// What the server said last, and the way out, once.
    pub fn take_words(&self) -> Option<String> {
        let words = self.last.lock().ok()?.take()?;
        Some(format!("the server says: {words}; grant it to the user that we connect as"))
    }

    /// A request that was refused gets no answer: the reason with what the server says about it.
    pub fn explain(&self, reason: String) -> String {
        match self.take_words() {
            Some(words) => format!("{reason}; {words}"),
            None => reason,
        }
    }
}

impl Denials {
    /// Waits until the server says that the user may not publish or subscribe to the subject, or hear
    /// answers at all.
    pub async fn of(mut self, subject: &str) -> Violation {
        self.next(|denied| denied == subject).await
    }

    /// The same for whichever subjects are meant, again and again. Nothing is lost where it is not awaited to
    /// its end.
    pub async fn next(&mut self, is_meant: impl Fn(&str) -> bool) -> Violation {
        loop {
            if let Some(deaf) = self.violations.deaf() {
                return deaf;
            }
            match self.heard.recv().await {
                Ok(violation) if is_meant(&violation.subject) => return violation,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                // The violations that this holds keep it open.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn parsed(words: &str) -> Option<(&'static str, String)> {
        Violation::parse(words).map(|violation| (violation.action, violation.subject))
    }

    #[test]
    fn the_server_names_the_subject() {
        let of = |action, subject: &str| Some((action, subject.to_owned()));
        assert_eq!(parsed(r#"Permissions Violation for Publish to "a.b""#), of(PUBLISH, "a.b"));
        assert_eq!(parsed(r#"Permissions Violation for Subscription to "a.>""#), of(SUBSCRIBE, "a.>"));
        assert_eq!(parsed(r#"Permissions Violation for Subscription to "a" using queue "q""#), of(SUBSCRIBE, "a"));
        assert_eq!(parsed(r#"Permissions Violation for Publish to "a\"\\b""#), of(PUBLISH, "a\"\\b"));
        for other in
            ["", "Permissions Violation for ", r#"Permissions Violation for Publish to "a"#, "Stale Connection"]
        {
            assert_eq!(parsed(other), None, "{other}");
        }
    }

    #[tokio::test]
    async fn who_listens_hears_of_its_subject_and_of_deafness() {
        let violations = PermissionViolations::new("_INBOX", false);
        let (mine, other) = (violations.watch(), violations.watch());
        violations.note(r#"Permissions Violation for Publish to "mine""#);
        assert_eq!(mine.of("mine").await.subject, "mine");
        let mut other = Box::pin(other.of("other"));
        assert!(tokio::time::timeout(Duration::from_millis(1), &mut other).await.is_err());
        assert!(!violations.is_any(), "nobody is warned of what a client does");
        violations.note(r#"Permissions Violation for Subscription to "_INBOX.x.*""#);
        assert_eq!(other.await.to_string(), format!("{HEAR_ANSWERS} _INBOX.>"));
        assert_eq!(violations.watch().of("later").await.action, HEAR_ANSWERS);
    }
}

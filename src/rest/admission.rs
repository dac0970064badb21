//! Who may ask, how often, and as whom the broker acts for them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::json;

use super::errors::{self, About};
use super::state::{Acting, Api};
use crate::broker::{Broker, Failure};
use crate::domain::Secret;
use crate::http::auth::{Caller, Keys};
use crate::http::envelope::{Code, Problem};
use crate::http::rate_limit::{RateLimit, client_of};
use crate::http::{Deadline, Peer};
use crate::settings::{ApiKeys, Settings};

/// Decides over each request.
pub struct Admission {
    api: Api,
    /// By address, and by user.
    requests: Option<(RateLimit<IpAddr>, RateLimit<String>)>,
    failed: FailedLogins,
}

/// Logins that nats-server refused. Nobody may guess fast: neither one user's password, nor many users'
/// passwords from one address.
struct FailedLogins {
    of_user: RateLimit<(IpAddr, String)>,
    from_address: RateLimit<IpAddr>,
}

impl Admission {
    pub fn new(api: Api) -> Self {
        let rate = api.settings().api.rate_limit;
        let requests = rate.map(|rate| (RateLimit::per_second(rate), RateLimit::per_second(rate)));
        let failed = FailedLogins { of_user: RateLimit::new(0.5, 5), from_address: RateLimit::new(5.0, 50) };
        Self { api, requests, failed }
    }

    async fn decide(&self, request: &mut Request) -> Result<(), Problem> {
        let address = request.extensions().get::<Peer>().map(|peer| client_of(peer.0));
        let now = Instant::now();
        if let (Some((by_address, _)), Some(address)) = (&self.requests, address) {
            by_address.check(address, now).map_err(|wait| too_many(wait, "from your address"))?;
        }
        let settings = self.api.settings();
        let caller = keys(&settings).caller(request.headers())?;
        caller.require(request.method())?;
        let broker = match &caller {
            Caller::Trusted | Caller::Reader => self.api.broker.clone(),
            Caller::User { name, password } => {
                if let Some((_, by_user)) = &self.requests {
                    by_user.check(name.clone(), now).map_err(|wait| too_many(wait, "of that user"))?;
                }
                let deadline = request.extensions().get::<Deadline>().copied();
                let deadline = deadline.map_or_else(|| now.into(), |Deadline(deadline)| deadline);
                self.log_in(name, password, address, deadline).await?
            }
        };
        request.extensions_mut().insert(caller);
        request.extensions_mut().insert(Acting(broker));
        Ok(())
    }

    /// The broker as that user, whom nats-server has let in.
    async fn log_in(
        &self,
        name: &str,
        password: &Secret,
        address: Option<IpAddr>,
        deadline: tokio::time::Instant,
    ) -> Result<Broker, Problem> {
        let users = &self.api.users;
        let refuse = |failure| errors::of(failure, About::Other);
        if let Some(broker) = users.known(name, password) {
            return broker.data(deadline).await.map(|_| broker).map_err(refuse);
        }
        // Counted before it is tried, so that nobody gets further by trying many at once.
        let attempt = self.failed.count(name, address)?;
        let outcome = match users.introduce(name, password) {
            Ok(broker) => broker.data(deadline).await.map(|_| broker),
            Err(failure) => Err(failure),
        };
        if !matches!(outcome, Err(Failure::NotLetIn)) {
            self.failed.forgive(attempt);
        }
        outcome.map_err(refuse)
    }
}

impl FailedLogins {
    fn count(&self, name: &str, address: Option<IpAddr>) -> Result<Option<(IpAddr, String)>, Problem> {
        let Some(address) = address else { return Ok(None) };
        let (who, now) = ((address, name.to_owned()), Instant::now());
        let refuse = |wait| too_many(wait, "to log in that failed, or are under way");
        self.from_address.check(address, now).map_err(refuse)?;
        if let Err(wait) = self.of_user.check(who.clone(), now) {
            self.from_address.forgive(&address);
            return Err(refuse(wait));
        }
        Ok(Some(who))
    }

    fn forgive(&self, attempt: Option<(IpAddr, String)>) {
        if let Some(who) = attempt {
            self.from_address.forgive(&who.0);
            self.of_user.forgive(&who);
        }
    }
}

/// What the port asks for under these settings.
fn keys(settings: &Settings) -> Keys<'_> {
    let ApiKeys { full, reading, users } = settings.api_keys();
    Keys { full, reading, users }
}

/// Whether what is read without a request to nats-server may be shown to whoever asks like that. Users of NATS
/// have their names proved by nats-server, where they ask for something.
pub fn may_read(settings: &Settings, headers: &HeaderMap) -> bool {
    matches!(keys(settings).caller(headers), Ok(Caller::Trusted | Caller::Reader))
}

fn too_many(wait: Duration, which: &str) -> Problem {
    let seconds = wait.as_secs() + 1;
    let message = format!("too many requests {which}; try again in {seconds} s");
    Problem::new(StatusCode::TOO_MANY_REQUESTS, Code::RateLimited, message)
        .retry_after(seconds)
        .with_details(json!({ "retry_after_seconds": seconds }))
}

/// Lets in who may ask for that.
pub async fn admit(
    State(admission): State<Arc<Admission>>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    admission.decide(&mut request).await?;
    Ok(next.run(request).await)
}

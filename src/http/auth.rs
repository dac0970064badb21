//! Who asks, and what that one may do.

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use subtle::ConstantTimeEq;

use super::envelope::{Code, Problem};
use crate::domain::Secret;

/// What lets clients of a port in; anybody where there is nothing of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keys<'a> {
    /// For everything.
    pub full: Option<&'a Secret>,
    /// For what changes nothing.
    pub reading: Option<&'a Secret>,
    /// Names and passwords, which somebody else knows.
    pub users: bool,
}

/// Who asks. What a request may do is what its caller may.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Somebody whom the port trusts with everything: its work is done as the data side.
    Trusted,
    /// The same, for what changes nothing.
    Reader,
    /// Who says to be that user, and has still to prove it.
    User { name: String, password: Secret },
}

/// What a request shows.
enum Shown<'a> {
    Nothing,
    Token(&'a str),
    User {
        name: String,
        password: Secret,
    },
    /// Something else.
    Unknown,
}

impl Keys<'_> {
    pub fn is_open(&self) -> bool {
        self.full.is_none() && self.reading.is_none() && !self.users
    }

    /// Tells who asks, or why nobody may.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let value = values.next();
        if values.next().is_some() {
            let message = "two Authorization headers: send one";
            return Err(Problem::new(StatusCode::BAD_REQUEST, Code::InvalidParameters, message));
        }
        if self.is_open() {
            return Ok(Caller::Trusted);
        }
        match value.map_or(Shown::Nothing, Shown::read) {
            Shown::Token(token) => {
                // Both are compared, whatever the first comparison says.
                match [self.full, self.reading].map(|known| is_same(known, token)) {
                    [true, _] => Ok(Caller::Trusted),
                    [false, true] => Ok(Caller::Reader),
                    [false, false] => Err(unauthorized("the token is another one")),
                }
            }
            Shown::User { name, password } if self.users => Ok(Caller::User { name, password }),
            Shown::User { .. } | Shown::Unknown => {
                let message = format!("the Authorization header does not let in; this port asks for {}", self.asked());
                Err(unauthorized(&message))
            }
            Shown::Nothing => Err(unauthorized(&format!("this port asks for {}", self.asked()))),
        }
    }

    fn asked(&self) -> &'static str {
        match (self.full.is_some() || self.reading.is_some(), self.users) {
            (true, false) => "a token (Authorization: Bearer)",
            (false, _) => "a user of NATS and the password (Authorization: Basic)",
            (true, true) => "a token (Authorization: Bearer), or a user of NATS and the password (Basic)",
        }
    }
}

impl<'a> Shown<'a> {
    fn read(value: &'a HeaderValue) -> Self {
        let words = value.to_str().ok().and_then(|text| text.trim().split_once(' '));
        let Some((scheme, rest)) = words.map(|(scheme, rest)| (scheme, rest.trim())) else { return Self::Unknown };
        if scheme.eq_ignore_ascii_case("bearer") {
            return Self::Token(rest);
        }
        let decoded = scheme.eq_ignore_ascii_case("basic").then(|| BASE64_STANDARD.decode(rest).ok()).flatten();
        let Some(text) = decoded.and_then(|bytes| String::from_utf8(bytes).ok()) else { return Self::Unknown };
        match text.split_once(':') {
            Some((name, password)) => Self::User { name: name.to_owned(), password: Secret::new(password.to_owned()) },
            None => Self::Unknown,
        }
    }
}

impl Caller {
    /// Refuses what the caller may not do, by the method of the request. What users may do nats-server
    /// knows.
    pub fn require(&self, method: &Method) -> Result<(), Problem> {
        match self {
            Self::Reader if !method.is_safe() => {
                let message = "the token of API_READ_TOKEN is for reading only";
                Err(Problem::new(StatusCode::FORBIDDEN, Code::Forbidden, message))
            }
            Self::Trusted | Self::Reader | Self::User { .. } => Ok(()),
        }
    }
}

/// Takes the same time for every token of that length.
fn is_same(known: Option<&Secret>, token: &str) -> bool {
    known.is_some_and(|known| known.expose().as_bytes().ct_eq(token.as_bytes()).into())
}

fn unauthorized(message: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, Code::Unauthorized, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(keys: (Option<&str>, Option<&str>, bool), authorization: &[&str], method: Method) -> Result<(), u16> {
        let [full, reading] = [keys.0, keys.1].map(|text| text.map(|text| Secret::new(text.to_owned())));
        let keys = Keys { full: full.as_ref(), reading: reading.as_ref(), users: keys.2 };
        let mut headers = HeaderMap::new();
        for value in authorization {
            headers.append(header::AUTHORIZATION, value.parse().unwrap());
        }
        let caller = keys.caller(&headers).map_err(|problem| problem.status.as_u16())?;
        if let Caller::User { name, password } = &caller {
            assert_eq!((name.as_str(), password.expose()), ("u", "p:w"));
        }
        caller.require(&method).map_err(|problem| problem.status.as_u16())
    }

    /// `u:p:w`.
    const BASIC: &str = "Basic dTpwOnc=";

    #[test]
    fn tokens_say_who_may_do_what() {
        let both = (Some("full"), Some("read"), false);
        assert_eq!(asked((None, None, false), &[], Method::POST), Ok(()));
        assert_eq!(asked((None, None, false), &[BASIC], Method::POST), Ok(()), "who asks nobody asks this one");
        assert_eq!(asked(both, &["Bearer full"], Method::POST), Ok(()));
        assert_eq!(asked(both, &["bearer  full "], Method::DELETE), Ok(()));
        assert_eq!(asked(both, &["Bearer read"], Method::GET), Ok(()));
        assert_eq!(asked(both, &["Bearer read"], Method::HEAD), Ok(()));
        assert_eq!(asked(both, &["Bearer read"], Method::POST), Err(403));
        for wrong in ["Bearer ful", "Bearer fulll", "Bearer FULL", "Basic full", "full", "Bearer ", "Bearer", "", BASIC]
        {
            assert_eq!(asked(both, &[wrong], Method::GET), Err(401), "{wrong:?}");
        }
        assert_eq!(asked(both, &[], Method::GET), Err(401));
        assert_eq!(asked((None, Some("read"), false), &["Bearer read"], Method::GET), Ok(()));
        assert_eq!(asked((None, Some("read"), false), &[], Method::POST), Err(401));
    }

    #[test]
    fn users_come_beside_tokens_or_alone() {
        assert_eq!(asked((None, None, true), &[BASIC], Method::POST), Ok(()));
        assert_eq!(asked((Some("full"), None, true), &["basic  dTpwOnc="], Method::POST), Ok(()));
        assert_eq!(asked((Some("full"), None, true), &["Bearer full"], Method::POST), Ok(()));
        for wrong in ["Bearer x", "Basic", "Basic ", "Basic dQ==", "Basic ?", "Basic /w=="] {
            assert_eq!(asked((None, None, true), &[wrong], Method::GET), Err(401), "{wrong:?}");
        }
        assert_eq!(asked((None, None, true), &[], Method::GET), Err(401));
    }

    #[test]
    fn one_request_shows_one_thing() {
        for open in [(None, None, false), (Some("full"), None, true)] {
            assert_eq!(asked(open, &["Bearer full", "Bearer full"], Method::GET), Err(400));
            assert_eq!(asked(open, &[BASIC, "Bearer full"], Method::GET), Err(400));
        }
    }
}

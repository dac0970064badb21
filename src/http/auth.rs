//! Who asks, and what that one may do.

use axum::http::{HeaderMap, Method, StatusCode, header};
use subtle::ConstantTimeEq;

use super::envelope::{Code, Problem};
use crate::domain::Secret;

/// What lets clients of a port in.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    /// For everything.
    pub full: Option<Secret>,
    /// For what changes nothing.
    pub reading: Option<Secret>,
}

/// Who asks. What a request may do is what its caller may.
#[derive(Clone, Debug)]
pub enum Caller {
    /// Somebody whom the port trusts with everything: its work is done as the data side.
    Trusted,
    /// The same, for what changes nothing.
    Reader,
}

impl Tokens {
    pub fn is_open(&self) -> bool {
        self.full.is_none() && self.reading.is_none()
    }

    /// Tells who asks, or why nobody may.
    pub fn caller(&self, headers: &HeaderMap) -> Result<Caller, Problem> {
        if self.is_open() {
            return Ok(Caller::Trusted);
        }
        let Some(token) = bearer(headers) else {
            return Err(unauthorized("this port asks for credentials: Authorization: Bearer with API_TOKEN"));
        };
        // Both are compared, whatever the first comparison says.
        let [full, reading] = [&self.full, &self.reading].map(|known| is_same(known.as_ref(), token));
        match (full, reading) {
            (true, _) => Ok(Caller::Trusted),
            (false, true) => Ok(Caller::Reader),
            (false, false) => Err(unauthorized("the token is not the one of API_TOKEN or API_READ_TOKEN")),
        }
    }
}

impl Caller {
    /// Refuses what the caller may not do, by the method of the request.
    pub fn require(&self, method: &Method) -> Result<(), Problem> {
        match self {
            Self::Reader if !(method.is_safe()) => {
                let message = "the token of API_READ_TOKEN is for reading only";
                Err(Problem::new(StatusCode::FORBIDDEN, Code::Forbidden, message))
            }
            Self::Trusted | Self::Reader => Ok(()),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
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

    fn tokens(full: Option<&str>, reading: Option<&str>) -> Tokens {
        let secret = |text: &str| Secret::new(text.to_owned());
        Tokens { full: full.map(secret), reading: reading.map(secret) }
    }

    fn asked(tokens: &Tokens, authorization: Option<&str>, method: Method) -> Result<(), StatusCode> {
        let mut headers = HeaderMap::new();
        if let Some(authorization) = authorization {
            headers.insert(header::AUTHORIZATION, authorization.parse().unwrap());
        }
        let caller = tokens.caller(&headers).map_err(|problem| problem.status)?;
        caller.require(&method).map_err(|problem| problem.status)
    }

    #[test]
    fn tokens_say_who_may_do_what() {
        let (unauthorized, forbidden) = (StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN);
        let open = tokens(None, None);
        assert_eq!(asked(&open, None, Method::POST), Ok(()));
        let both = tokens(Some("full"), Some("read"));
        assert_eq!(asked(&both, Some("Bearer full"), Method::POST), Ok(()));
        assert_eq!(asked(&both, Some("bearer full"), Method::DELETE), Ok(()));
        assert_eq!(asked(&both, Some("Bearer read"), Method::GET), Ok(()));
        assert_eq!(asked(&both, Some("Bearer read"), Method::POST), Err(forbidden));
        for wrong in [None, Some("Bearer ful"), Some("Bearer fulll"), Some("Basic full"), Some("full"), Some("Bearer ")]
        {
            assert_eq!(asked(&both, wrong, Method::GET), Err(unauthorized), "{wrong:?}");
        }
        let reading = tokens(None, Some("read"));
        assert_eq!(asked(&reading, Some("Bearer read"), Method::GET), Ok(()));
        assert_eq!(asked(&reading, None, Method::POST), Err(unauthorized));
    }
}

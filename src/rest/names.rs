//! Names in paths, and where a list goes on.

use axum::http::StatusCode;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use crate::http::envelope::{Code, Problem};

/// nats-server's own bound.
const LONGEST: usize = 255;
/// Entries of a page, where nothing is said, and at most.
const USUAL: usize = 100;
const MOST: usize = 1_000;

/// A piece of a list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams, ToSchema)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// Entries at most, 1 to 1,000; 100 where nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<usize>,
    /// Where the list goes on: the `cursor` of the answer before.
    pub cursor: Option<String>,
}

impl Paging {
    pub fn limit(&self) -> Result<usize, Problem> {
        limited("limit", self.limit, USUAL, MOST)
    }

    /// What the cursor of the answer before held.
    pub fn after<T: DeserializeOwned>(&self) -> Result<Option<T>, Problem> {
        self.cursor.as_deref().map(read_cursor).transpose()
    }
}

/// A number of the query between 1 and `most`.
pub fn limited(name: &'static str, given: Option<usize>, usual: usize, most: usize) -> Result<usize, Problem> {
    match given.unwrap_or(usual) {
        limit if (1..=most).contains(&limit) => Ok(limit),
        limit => {
            let details = json!({ "parameter": name, "minimum": 1, "maximum": most });
            Err(invalid(format!("{name} must be from 1 to {most}, not {limit}")).with_details(details))
        }
    }
}

/// Where a list goes on, as clients carry it.
pub fn cursor(place: &impl Serialize) -> Option<String> {
    serde_json::to_vec(place).ok().map(|place| BASE64_URL_SAFE_NO_PAD.encode(place))
}

fn read_cursor<T: DeserializeOwned>(text: &str) -> Result<T, Problem> {
    let place = BASE64_URL_SAFE_NO_PAD.decode(text).ok().and_then(|place| serde_json::from_slice(&place).ok());
    place.ok_or_else(|| {
        let details = json!({ "parameter": "cursor" });
        invalid("the cursor is none that an answer held; ask without it for the beginning").with_details(details)
    })
}

/// A name that a stream or a consumer can have, of whoever made it.
pub fn checked(what: &str, name: String) -> Result<String, Problem> {
    let is_bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '.' | '*' | '>' | '/' | '\\');
    let rule = match name.as_str() {
        "" => "must not be empty",
        _ if name.len() > LONGEST => "must not be longer than 255 bytes",
        _ if name.contains(is_bad) => "must not hold a dot, a slash, white space, * or >",
        _ => return Ok(name),
    };
    let shown: String = name.chars().take(80).collect();
    let details = json!({ "parameter": what, "value": shown });
    Err(invalid(format!("the name of a {what} {rule}: {shown:?}")).with_details(details))
}

pub fn invalid(message: impl Into<String>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, Code::InvalidParameters, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nothing_can_have_are_refused() {
        for name in ["", "a.b", "a/b", "a b", "a\\b", "a*", ">", "a\n", "a\u{a0}b", &"x".repeat(256)] {
            assert!(checked("stream", name.to_owned()).is_err(), "{name:?}");
        }
        for name in ["A", "market_data-1", "ü", "a=b", "%2F", &"x".repeat(255)] {
            assert!(checked("stream", name.to_owned()).is_ok(), "{name:?}");
        }
    }

    #[test]
    fn a_list_goes_on_where_it_ended() {
        let paging = |cursor: Option<String>| Paging { limit: None, cursor };
        let place = ("S".to_owned(), 5usize);
        assert_eq!(paging(cursor(&place)).after::<(String, usize)>().unwrap(), Some(place));
        assert_eq!(paging(None).after::<String>().unwrap(), None);
        for forged in ["x", "!", "", "bm8"] {
            assert!(paging(Some(forged.into())).after::<(String, usize)>().is_err(), "{forged}");
        }
        for (limit, good) in [(0, false), (1, true), (1000, true), (1001, false)] {
            assert_eq!(Paging { limit: Some(limit), cursor: None }.limit().is_ok(), good, "{limit}");
        }
    }
}

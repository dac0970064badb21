//! The files that the page loads, all of them from the program itself.

use axum::Router;
use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};

use crate::http::envelope::{Code, Problem};

const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Name, kind and content.
const ASSETS: [(&str, &str, &[u8]); 6] = [
    ("icon.svg", "image/svg+xml", include_bytes!("../../assets/dashboard/icon.svg")),
    ("dashboard.js", SCRIPT, include_bytes!("../../assets/dashboard/dashboard.js")),
    ("dashboard.css", STYLE, include_bytes!("../../assets/dashboard/dashboard.css")),
    ("uPlot.js", SCRIPT, include_bytes!("../../assets/uplot/uPlot.iife.min.js")),
    ("uPlot.css", STYLE, include_bytes!("../../assets/uplot/uPlot.min.css")),
    ("uPlot-LICENSE.txt", TEXT, include_bytes!("../../assets/uplot/LICENSE")),
];

/// `GET /assets/{name}`; they hold no data, so that they ask for nothing.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new().route("/assets/{name}", get(asset))
}

async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let Some((_, kind, content)) = ASSETS.into_iter().find(|(other, ..)| *other == name) else {
        let message = format!("there is no asset {name:?}");
        return Err(Problem::new(StatusCode::NOT_FOUND, Code::NotFound, message));
    };
    // Weak, because the same content may come compressed.
    let tag = format!("W/\"{}\"", BASE64_URL_SAFE_NO_PAD.encode(&digest(&SHA256, content).as_ref()[..12]));
    let is_known = headers.get_all(header::IF_NONE_MATCH).iter().any(|known| {
        known
            .to_str()
            .is_ok_and(|known| known.split(',').any(|one| matches!(one.trim(), all if all == tag || all == "*")))
    });
    // Asked for each time, so that a page never has the script of another version.
    let common = [
        (header::ETAG, HeaderValue::from_str(&tag).unwrap_or(HeaderValue::from_static("W/\"-\""))),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    if is_known {
        return Ok((StatusCode::NOT_MODIFIED, common).into_response());
    }
    Ok((common, [(header::CONTENT_TYPE, kind)], content).into_response())
}

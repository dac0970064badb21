//! `GET /`: the bare shell, which says nothing about the broker and so asks for nothing.

use axum::Router;
use axum::response::Html;
use axum::routing::get;

use super::state::Api;

const SHELL: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<title>unified-nats</title>
<h1>unified-nats</h1>
<p>NATS JetStream as a market-data broker. <a href=\"/docs\">/docs</a> describes its REST API,
<a href=\"/health\">/health</a> says how it is.</p>
</html>
";

pub fn routes() -> Router<Api> {
    Router::new().route("/", get(async || Html(SHELL)))
}

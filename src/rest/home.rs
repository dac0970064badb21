//! `GET /` and its files: the dashboard, which `app` gives us. The page holds data where whoever asks may read
//! it; without that it is a shell, which says nothing about the broker and so asks for nothing.

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::get;

use super::admission::may_read;
use super::state::Api;

async fn page(State(api): State<Api>, headers: HeaderMap) -> Response {
    let may_read = may_read(&api.settings(), &headers);
    (api.home.page)(may_read).await
}

pub fn routes(api: &Api) -> Router<Api> {
    Router::new().route("/", get(page)).merge(api.home.assets.clone().with_state(()))
}

//! Which path is answered by whom, and what surrounds all of them.

use std::any::Any;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::decompression::RequestDecompressionLayer;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;

use super::state::{Acting, Api};
use super::{batch, consumers, deliveries, messages, probes, publish, raw, replay, status, streams, tail, ws};
use crate::http::auth::Tokens;
use crate::http::body::MaxBody;
use crate::http::envelope::{Code, Problem};
use crate::http::{Routes, exchange};
use crate::settings::variables::API_MAX_BODY;

#[derive(OpenApi)]
#[openapi(info(
    title = "unified-nats",
    description = "Market data over HTTP: streams, messages and the broker itself."
))]
struct Document;

/// Every resource, each with its part of the OpenAPI document.
fn resources() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(status::routes())
        .merge(publish::routes())
        .merge(batch::routes())
        .merge(raw::routes())
        .merge(streams::routes())
        .merge(messages::routes())
        .merge(consumers::routes())
        .merge(deliveries::routes())
        .merge(tail::routes())
        .merge(replay::routes())
        .merge(ws::routes())
}

/// The API as OpenAPI 3.1 describes it.
pub fn openapi() -> utoipa::openapi::OpenApi {
    resources().into_openapi()
}

pub fn routes(api: Api) -> Routes {
    let probes = probes::routes(api.views.clone());
    let settings = api.settings();
    let patience = settings.api.request_timeout;
    if !settings.api.enabled {
        return Routes { all: probes.clone(), probes, probe_paths: probes::PROBES };
    }
    let bytes = usize::try_from(settings.api.max_body.bytes()).unwrap_or(usize::MAX);
    let most = MaxBody { bytes, variable: API_MAX_BODY.name };
    let (router, _) = resources().split_for_parts();
    let all: Router = router
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(api.clone(), admit))
        .layer(RequestDecompressionLayer::new())
        .layer(from_fn(move |mut request: Request, next: Next| {
            request.extensions_mut().insert(most);
            next.run(request)
        }))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(move |request: Request, next: Next| exchange(patience, request, next)))
        .with_state(api);
    Routes { all: probes.clone().merge(all), probes, probe_paths: probes::PROBES }
}

/// Lets in who may ask for that.
async fn admit(State(api): State<Api>, mut request: Request, next: Next) -> Result<Response, Problem> {
    let settings = api.settings();
    let tokens = Tokens { full: settings.api.token.clone(), reading: settings.api.read_token.clone() };
    let caller = tokens.caller(request.headers())?;
    caller.require(request.method())?;
    request.extensions_mut().insert(caller);
    request.extensions_mut().insert(Acting(api.broker.clone()));
    Ok(next.run(request).await)
}

async fn unknown_path(request: Request) -> Problem {
    let message = format!("there is nothing at {}; /docs tells what there is", request.uri().path());
    Problem::new(StatusCode::NOT_FOUND, Code::NotFound, message)
}

async fn wrong_method(request: Request) -> Problem {
    let message = format!("{} is not for {}", request.method(), request.uri().path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, Code::MethodNotAllowed, message)
}

/// A panic costs the request and no more; its words are in the log.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    let message = "the request failed inside the broker; its log says where";
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, Code::InternalError, message).into_response()
}

//! The admin listener: `GET /metrics`, `/healthz` and `/readyz` over plain HTTP/1.1.
//!
//! | path | answers |
//! |---|---|
//! | `/metrics` | Prometheus text |
//! | `/healthz` | 200 while no component failed, else 503; JSON with every component |
//! | `/readyz` | 200 while every component serves, else 503; the same JSON |
//!
//! It has no authentication, so it stays on loopback (spec/trust.md C15). Every
//! connection carries one request and lives at most [`REQUEST_DEADLINE`].

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State as Extract;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Invalid;
use crate::health::{Health, Snapshot};
use crate::metrics;

/// From accept to the last byte of the answer. Rendering takes milliseconds; scrapers wait 10 s.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Connections served at once; the next waits in the kernel's queue. A scraper and a probe need two.
pub const CONNECTIONS_MAX: usize = 32;
/// Largest request head. Hyper refuses less than 8 KiB.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// How often histograms are folded when nobody scrapes, so that their samples don't pile up.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);
/// Rest after a failed accept (file descriptors used up), so that the loop doesn't spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Checks that only this machine reaches `address`, the value of key `admin_listen`.
///
/// # Errors
/// Returns the problem with key `admin_listen`.
pub fn check_address(address: SocketAddr) -> Result<(), Invalid> {
    if address.ip().is_loopback() {
        return Ok(());
    }
    Err(Invalid::new("admin_listen", AdminError::NotLoopback { address }.to_string()))
}

/// Why the admin listener does not serve.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// The address can be reached from other machines.
    #[error(
        "got {address}, wanted a loopback address such as 127.0.0.1, for the admin listener has no authentication"
    )]
    NotLoopback {
        /// The address it was given.
        address: SocketAddr,
    },
    /// The listener has no address.
    #[error("the admin listener's address: {0}")]
    Listener(#[from] std::io::Error),
}

/// Serves until `token` is cancelled, on loopback only.
///
/// # Errors
/// Returns [`AdminError::NotLoopback`] for any other address.
pub async fn serve(
    listener: TcpListener,
    health: Health,
    metrics: PrometheusHandle,
    token: CancellationToken,
) -> Result<(), AdminError> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() {
        return Err(AdminError::NotLoopback { address });
    }
    let router = router(health, metrics.clone());
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    let mut upkeep = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        tokio::select! {
            biased;
            () = token.cancelled() => break,
            Some(_ended) = connections.join_next() => {}
            _ = upkeep.tick() => metrics.run_upkeep(),
            (accepted, place) = accept(&listener, &places) => match accepted {
                Ok(stream) => {
                    let router = router.clone();
                    connections.spawn(async move {
                        serve_connection(stream, router).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "an admin connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    // A request in progress may end; the deadline of each bounds the wait.
    drop(listener);
    while connections.join_next().await.is_some() {}
    Ok(())
}

type Place = Option<tokio::sync::OwnedSemaphorePermit>;

async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (std::io::Result<TcpStream>, Place) {
    // The semaphore is never closed, so there is always a place in the end.
    let place = Arc::clone(places).acquire_owned().await.ok();
    (listener.accept().await.map(|(stream, _peer)| stream), place)
}

async fn serve_connection(stream: TcpStream, router: Router) {
    let service = TowerToHyperService::new(router);
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_DEADLINE)
        .max_buf_size(HEAD_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(REQUEST_DEADLINE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an admin connection broke"),
        Err(_elapsed) => tracing::debug!("an admin connection reached its deadline"),
    }
}

#[derive(Clone)]
struct Sources {
    health: Health,
    metrics: PrometheusHandle,
}

fn router(health: Health, metrics: PrometheusHandle) -> Router {
    Router::new()
        .route("/metrics", get(answer_metrics))
        .route("/healthz", get(answer_healthz))
        .route("/readyz", get(answer_readyz))
        .with_state(Sources { health, metrics })
}

async fn answer_metrics(Extract(sources): Extract<Sources>) -> Response {
    ::metrics::counter!(metrics::ADMIN_REQUESTS_TOTAL, "path" => "/metrics").increment(1);
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, sources.metrics.render()).into_response()
}

async fn answer_healthz(Extract(sources): Extract<Sources>) -> Response {
    ::metrics::counter!(metrics::ADMIN_REQUESTS_TOTAL, "path" => "/healthz").increment(1);
    let snapshot = sources.health.snapshot();
    let well = snapshot.is_alive();
    answer_state(&snapshot, if well { Standing::Well } else { Standing::Unwell })
}

async fn answer_readyz(Extract(sources): Extract<Sources>) -> Response {
    ::metrics::counter!(metrics::ADMIN_REQUESTS_TOTAL, "path" => "/readyz").increment(1);
    let snapshot = sources.health.snapshot();
    let well = snapshot.is_ready();
    answer_state(&snapshot, if well { Standing::Well } else { Standing::Unwell })
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Standing {
    #[serde(rename = "ok")]
    Well,
    #[serde(rename = "unavailable")]
    Unwell,
}

#[derive(Serialize)]
struct Answer<'a> {
    status: Standing,
    #[serde(flatten)]
    snapshot: &'a Snapshot,
}

fn answer_state(snapshot: &Snapshot, status: Standing) -> Response {
    let code = match status {
        Standing::Well => StatusCode::OK,
        Standing::Unwell => StatusCode::SERVICE_UNAVAILABLE,
    };
    match serde_json::to_string_pretty(&Answer { status, snapshot }) {
        Ok(body) => (code, [(header::CONTENT_TYPE, "application/json")], body + "\n").into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests;

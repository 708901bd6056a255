//! The distribution point of a development PKI: `http://localhost:PORT/ROLES.crl` and `ROLES-root.crl`, and CRLs that never lapse while the fleet runs.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use muster_pki::{Thumbprint, UnixTime, pem};
use muster_service::shutdown::Shutdown;
use muster_sign::FileKind;
use tokio::net::TcpListener;
use tokio::time::{Instant, MissedTickBehavior};

use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::output;
use crate::pki_home::{CRL_BASE_URL, PkiHome, ROLES};

/// How often CRLs are made anew; each is fresh for 30 days.
const RENEWAL: Duration = Duration::from_secs(24 * 60 * 60);

/// Opens the listener that the home's certificates name; `is_free`: any port will do, and certificates issued from now on name it.
///
/// A home whose CRLs are published elsewhere needs none.
pub(super) fn open(home: &Home, is_free: bool) -> Result<Option<std::net::TcpListener>, Failure> {
    let pki = PkiHome::of(home);
    let base = pki.crl_base_url()?;
    let Some(port) = base.strip_prefix("http://localhost:").and_then(|port| port.parse::<u16>().ok()) else {
        return Ok(None);
    };
    // A fleet beside the one on the default ports has a port of its own from its first start on.
    let wanted = if is_free && base == CRL_BASE_URL { 0 } else { port };
    let bound = std::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, wanted)));
    let listener = match bound {
        Ok(listener) => listener,
        Err(error) => {
            output::note(&format!(
                "CRLs are not published at {base}: {error}; the fleet reads them from files"
            ));
            return Ok(None);
        }
    };
    let failed = |error: std::io::Error| Failure::new(Exit::Refused, format!("{base}: {error}"));
    listener.set_nonblocking(true).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    if bound.port() != port {
        pki.set_crl_base_url(&format!("http://localhost:{}", bound.port()))?;
    }
    Ok(Some(listener))
}

/// Publishes the CRLs of `home` in tasks of `shutdown`, and makes them anew each day. Runs inside a runtime.
pub(super) fn publish(home: &Home, listener: Option<std::net::TcpListener>, shutdown: &Shutdown) {
    let home = Arc::new(home.clone());
    if let Some(listener) = listener {
        let app = Router::new().route("/{file}", get(crl)).with_state(Arc::clone(&home));
        let token = shutdown.token();
        shutdown.spawn("CRL publishing", async move {
            let served = match TcpListener::from_std(listener) {
                Ok(listener) => {
                    axum::serve(listener, app).with_graceful_shutdown(token.cancelled_owned()).await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = served {
                tracing::warn!(%error, "CRLs are published no more");
            }
        });
    }
    let token = shutdown.token();
    shutdown.spawn("CRL renewal", async move {
        // The start has just made them.
        let mut renewal = tokio::time::interval_at(Instant::now() + RENEWAL, RENEWAL);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while token.run_until_cancelled(renewal.tick()).await.is_some() {
            let home = Arc::clone(&home);
            let renewed = tokio::task::spawn_blocking(move || {
                let pki = PkiHome::of(&home);
                ROLES.iter().try_for_each(|(role, _)| pki.write_crl(*role, UnixTime::now()).map(drop))
            });
            if let Ok(Err(failure)) = renewed.await {
                tracing::warn!(%failure, "the CRLs could not be made anew");
            }
        }
    });
}

/// `GET /ROLES.crl`: DER, as RFC 5280 §4.2.1.13 asks for.
async fn crl(State(home): State<Arc<Home>>, Path(file): Path<String>, headers: HeaderMap) -> Response {
    let known = |name: &str| ROLES.iter().any(|(_, folder)| *folder == name);
    let path = match file.strip_suffix(".crl").map(|name| (name, name.strip_suffix("-root"))) {
        Some((_, Some(role))) if known(role) => format!("pki/{role}/root-crl.pem"),
        Some((role, None)) if known(role) => format!("pki/{role}/crl.pem"),
        Some(_) | None => return StatusCode::NOT_FOUND.into_response(),
    };
    let path = home.path(&path);
    let read = tokio::task::spawn_blocking(move || muster_sign::read_file(&path, FileKind::CRL)).await;
    let Ok(Ok(text)) = read else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let Some(der) = pem::crls(&text, &file).ok().and_then(|crls| crls.into_iter().next()) else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    let etag = format!("\"{}\"", Thumbprint::of(&der));
    if headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    ([(header::CONTENT_TYPE, "application/pkix-crl".to_owned()), (header::ETAG, etag)], der.to_vec())
        .into_response()
}

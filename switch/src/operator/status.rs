//! `StatusService`: how the Switch is.

use std::sync::Arc;

use muster_proto::operator::v1::{GetStatusRequest, GetStatusResponse};
use muster_proto_grpc::operator::v1::status_service_server::StatusService;
use muster_service::credentials::ServerCredentials;
use muster_service::health::{Health, State};
use tonic::{Request, Response, Status};

use super::state::Api;
use crate::engine::Reader;
use crate::gate::Entry;
use crate::licence;
use crate::wall;

/// How long before its end a certificate is warned of (N3 of trust.md).
const EXPIRY_WARNING_MS: i64 = 30 * 24 * 60 * 60 * 1000;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

#[tonic::async_trait]
impl StatusService for Api {
    async fn get_status(
        &self,
        request: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        self.admit(&request, Entry::Read)?;
        let parts = self.parts();
        let credentials = Arc::clone(&parts.credentials);
        let read = move |reader: &Reader| Ok((reader.status(), certificates(&credentials)));
        let (engine, certificates) = self.read(read).await?;
        let certificate_not_after_ms = parts.credentials.own().map_or(0, |own| wall::millis(own.not_after()));
        let mut warnings = engine.warnings;
        warnings.extend(expiry_warning(certificate_not_after_ms, wall::now_ms()));
        warnings.extend(certificates);
        warnings.extend(licence_sources(&parts.health));
        warnings.extend(parts.registry.warnings());
        warnings.extend(parts.doors.warnings(wall::now_ms()));
        Ok(Response::new(GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            sessions: parts.registry.sessions(),
            devices: engine.devices,
            active_instructions: engine.active_instructions,
            licence_serial: engine.licence_serial,
            licence_expires_at_ms: engine.licence_expires_at_ms,
            certificate_not_after_ms,
            warnings,
            started_at_ms: parts.started_at_ms,
            disk_free_bytes: engine.disk_free_bytes,
            tenant: parts.config.tenant.clone(),
            disk_reserve_bytes: engine.disk_reserve_bytes,
            data_dir: engine.data_dir.display().to_string(),
            licence_problem: engine.licence_problem,
        }))
    }
}

/// Returns what is wrong with, or about to end of, the CAs and CRLs that the Switch relies on (N3 of trust.md). Blocks while CRLs
/// are loaded.
fn certificates(credentials: &ServerCredentials) -> Vec<String> {
    credentials.revocation().complaints()
}

/// Returns why no newer licence comes from where the configuration says.
fn licence_sources(health: &Health) -> Vec<String> {
    let snapshot = health.snapshot();
    let problem = |name: &&str| match snapshot.components().get(name) {
        Some(State::Degraded(problem) | State::Failed(problem)) => Some(problem.clone()),
        Some(State::Starting | State::Ready) | None => None,
    };
    [licence::FILE, licence::URL].iter().filter_map(problem).collect()
}

fn expiry_warning(not_after_ms: i64, now_ms: i64) -> Option<String> {
    let left_ms = not_after_ms - now_ms;
    (left_ms < EXPIRY_WARNING_MS).then(|| {
        let days = left_ms / DAY_MS;
        format!("the Switch's certificate expires in {days} days: replace the files of [tls]; no restart is needed")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_thirty_days_before_the_certificate_ends() {
        assert_eq!(expiry_warning(40 * DAY_MS, 0), None);
        assert!(expiry_warning(12 * DAY_MS, 0).unwrap().contains("in 12 days"));
    }
}

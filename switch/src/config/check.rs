//! What must hold of a configuration beyond the shape of its keys.

use std::time::Duration;

use muster_proto::limits;
use muster_service::admin::Exposure;
use muster_service::config::{Invalid, Validate};

use super::{Config, EngineLimits, Grant, OperatorLimits, SessionLimits, ShutdownLimits};

/// More shards than any machine has use for; an index fits `SessionKey`.
pub(super) const SHARDS_MAX: u16 = 256;

/// The longest tenant (order.proto).
const TENANT_BYTES_MAX: usize = 64;

/// The least room for a call's answer: a page holds at least one result (`RESULT_BYTES_MAX` and what wraps it).
const CALL_BYTES_MIN: u64 = 1 << 20;

impl Validate for Config {
    fn validate(&self) -> Result<(), Invalid> {
        if self.tenant.is_empty() || self.tenant.len() > TENANT_BYTES_MAX {
            let got = self.tenant.len();
            return Err(Invalid::new(
                "tenant",
                format!("{got} bytes, wanted 1 to {TENANT_BYTES_MAX}: name the organisation"),
            ));
        }
        if self.shards > SHARDS_MAX {
            return Err(Invalid::new(
                "shards",
                format!("got {}, wanted at most {SHARDS_MAX}; 0 is one per core", self.shards),
            ));
        }
        Exposure::Loopback.check(self.admin_listen).map_err(|_| {
            let problem = format!(
                "got {}, wanted a loopback address: the admin listener has no authentication",
                self.admin_listen
            );
            Invalid::new("admin_listen", problem)
        })?;
        distinct_ports(self)?;
        sessions(&self.sessions).map_err(|invalid| invalid.within("sessions"))?;
        operators(&self.operators).map_err(|invalid| invalid.within("operators"))?;
        engine(&self.engine).map_err(|invalid| invalid.within("engine"))?;
        shutdown(&self.shutdown).map_err(|invalid| invalid.within("shutdown"))?;
        self.grants.iter().try_for_each(grant)?;
        self.log.validate().map_err(|invalid| invalid.within("log"))
    }
}

fn distinct_ports(config: &Config) -> Result<(), Invalid> {
    let addresses = [
        ("listen", config.listen),
        ("operator_listen", config.operator_listen),
        ("admin_listen", config.admin_listen),
    ];
    for (index, (key, address)) in addresses.iter().enumerate() {
        let same = addresses.iter().take(index).find(|(_, other)| other == address && address.port() != 0);
        if let Some((other, _)) = same {
            return Err(Invalid::new(
                *key,
                format!("got {address}, which `{other}` has: give each its own port"),
            ));
        }
    }
    Ok(())
}

fn sessions(limits: &SessionLimits) -> Result<(), Invalid> {
    limits.protocol().check().map_err(|error| {
        let key = match error.limit() {
            "outbound_bytes_max" => "queue_bytes_max",
            "results_credit_bytes" => "results_credit",
            "events_credit_bytes" => "events_credit",
            same => same,
        };
        Invalid::new(key, error.to_string())
    })?;
    at_least("sessions_max", limits.sessions_max.into(), 1)?;
    at_least("handshakes_max", limits.handshakes_max.into(), 1)?;
    at_least("backlog", limits.backlog.into(), 1)?;
    at_least("read_buffer_bytes", limits.read_buffer_bytes, 512)?;
    not_zero("tls_deadline", limits.tls_deadline)?;
    not_zero("upgrade_deadline", limits.upgrade_deadline)?;
    not_zero("write_deadline", limits.write_deadline)?;
    if limits.message_bytes_max != bytes(limits::FRAME_BYTES_MAX) {
        // Smaller would close sessions for results that the protocol allows; larger is never decoded.
        at_least(
            "message_bytes_max",
            limits.message_bytes_max,
            bytes(limits::RESULT_BYTES_MAX + limits::FRAME_OVERHEAD_MAX),
        )?;
        at_most("message_bytes_max", limits.message_bytes_max, bytes(limits::FRAME_BYTES_MAX))?;
    }
    Ok(())
}

fn operators(limits: &OperatorLimits) -> Result<(), Invalid> {
    at_least("connections_max", limits.connections_max.into(), 1)?;
    at_least("streams_max", limits.streams_max.into(), 1)?;
    at_least("message_bytes_max", limits.message_bytes_max, CALL_BYTES_MIN)?;
    at_least("header_bytes_max", limits.header_bytes_max, 4096)?;
    not_zero("call_deadline", limits.call_deadline)?;
    not_zero("tls_deadline", limits.tls_deadline)
}

fn engine(limits: &EngineLimits) -> Result<(), Invalid> {
    at_least("batch_items_max", limits.batch_items_max.into(), 1)?;
    at_least("queue_items_max", limits.queue_items_max.into(), 1)?;
    at_least("shard_messages_max", limits.shard_messages_max.into(), 1)?;
    not_zero("prepared_ttl", limits.prepared_ttl)
}

fn shutdown(limits: &ShutdownLimits) -> Result<(), Invalid> {
    not_zero("drain_timeout", limits.drain_timeout)?;
    if limits.reconnect_spread > limits::RECONNECT_AFTER_MAX {
        let problem = format!(
            "got {:?}, wanted at most {:?}, what a client may be told",
            limits.reconnect_spread,
            limits::RECONNECT_AFTER_MAX
        );
        return Err(Invalid::new("reconnect_spread", problem));
    }
    Ok(())
}

fn grant(grant: &Grant) -> Result<(), Invalid> {
    if grant.operators.is_empty() {
        return Err(Invalid::new(
            "grant",
            "a grant without operators gives nothing: name them, or \"*\" for all",
        ));
    }
    let odd = grant
        .prefixes
        .iter()
        .find(|prefix| prefix.is_empty() || !prefix.bytes().all(|byte| byte.is_ascii_alphanumeric()));
    match odd {
        Some(prefix) => Err(Invalid::new(
            "grant",
            format!(
                "got the prefix `{prefix}`, wanted the first component of definitions' names, such as `Acme`"
            ),
        )),
        None => Ok(()),
    }
}

fn at_least(key: &str, got: u64, min: u64) -> Result<(), Invalid> {
    if got < min { Err(Invalid::new(key, format!("got {got}, wanted at least {min}"))) } else { Ok(()) }
}

fn at_most(key: &str, got: u64, max: u64) -> Result<(), Invalid> {
    if got > max { Err(Invalid::new(key, format!("got {got}, wanted at most {max}"))) } else { Ok(()) }
}

fn not_zero(key: &str, got: Duration) -> Result<(), Invalid> {
    if got.is_zero() {
        Err(Invalid::new(key, "got 0, wanted a duration such as \"10s\": every wait has an end"))
    } else {
        Ok(())
    }
}

fn bytes(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::default().validate(), Ok(()));
    }

    #[test]
    fn refuses_an_admin_address_that_leaves_the_machine() {
        check(|config| config.admin_listen = "0.0.0.0:4002".parse().unwrap(), "admin_listen");
    }

    #[test]
    fn refuses_two_listeners_on_one_port() {
        check(|config| config.operator_listen = config.listen, "operator_listen");
    }

    #[test]
    fn refuses_limits_under_which_sessions_would_not_work() {
        check(|config| config.sessions.results_credit = 1000, "sessions.results_credit");
        check(|config| config.sessions.message_bytes_max = 2 << 20, "sessions.message_bytes_max");
        check(|config| config.sessions.write_deadline = Duration::ZERO, "sessions.write_deadline");
        check(|config| config.sessions.dead_after = Duration::from_secs(61), "sessions.dead_after");
    }

    #[test]
    fn refuses_a_tenant_that_no_order_can_name() {
        check(|config| config.tenant = String::new(), "tenant");
        check(|config| config.tenant = "x".repeat(65), "tenant");
    }

    #[test]
    fn refuses_a_grant_for_nobody() {
        let grant = Grant {
            operators: Vec::new(),
            role: super::super::GrantRole::Viewer,
            prefixes: Vec::new(),
            kinds: Vec::new(),
        };
        check(|config| config.grants = vec![grant.clone()], "grant");
    }

    fn check(change: impl FnOnce(&mut Config), key: &str) {
        let mut config = Config::default();
        change(&mut config);

        assert_eq!(config.validate().unwrap_err().key(), key);
    }
}

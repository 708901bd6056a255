//! What must hold of a configuration beyond the shape of its keys.

use std::time::Duration;

use muster_proto::limits::{self, Measure};
use muster_service::admin;
use muster_service::config::{Invalid, Validate, human};

use super::{
    ClientCertificate, Config, EngineLimits, Grant, OperatorLimits, SessionLimits, ShutdownLimits, licence,
};

/// The longest tenant (order.proto).
const TENANT_BYTES_MAX: usize = 64;

/// The least room for a call's answer: a page holds at least one result (`RESULT_BYTES_MAX` and what wraps it).
const CALL_BYTES_MIN: u64 = 1 << 20;

/// The least that may wait for the sockets of a shard: some records.
const UNSENT_BYTES_MIN: u64 = 1 << 20;

impl Validate for Config {
    fn findings(&self) -> Vec<Invalid> {
        let mut found = Vec::new();
        if self.tenant.is_empty() || self.tenant.len() > TENANT_BYTES_MAX {
            let got = self.tenant.len();
            found.push(Invalid::new(
                "tenant",
                format!("{got} bytes, wanted 1 to {TENANT_BYTES_MAX}: name the organisation"),
            ));
        }
        found.extend(at_most("shards", self.shards.into(), Self::SHARDS_MAX.into()));
        found.extend(admin::check_address(self.admin_listen).err());
        found.extend(shared_ports(self));
        found.extend(licence::url(self.licence_url.as_deref()));
        found.extend(self.tls.findings());
        let tables = [
            ("sessions", sessions(&self.sessions, self.shard_count().into())),
            ("operators", operators(&self.operators)),
            ("engine", engine(&self.engine)),
            ("clock", self.clock.findings()),
            ("revocation", self.revocation.findings()),
            ("licence_refresh", self.licence_refresh.findings()),
            ("shutdown", shutdown(&self.shutdown)),
        ];
        for (table, wrong) in tables {
            found.extend(wrong.into_iter().map(|invalid| invalid.within(table)));
        }
        found.extend(aggregate_deadline(self));
        found.extend(self.grants.iter().flat_map(grant));
        found.extend(self.log.validate().err().map(|invalid| invalid.within("log")));
        found
    }
}

fn shared_ports(config: &Config) -> Vec<Invalid> {
    let addresses = [
        ("listen", config.listen),
        ("operator_listen", config.operator_listen),
        ("admin_listen", config.admin_listen),
    ];
    let mut found = Vec::new();
    for (index, (key, address)) in addresses.iter().enumerate() {
        let same = addresses.iter().take(index).find(|(_, other)| other == address && address.port() != 0);
        if let Some((other, _)) = same {
            let problem = format!("got {address}, which `{other}` has: give each its own port");
            found.push(Invalid::new(*key, problem).against(*other));
        }
    }
    found
}

fn sessions(limits: &SessionLimits, shards: u64) -> Vec<Invalid> {
    let mut found = protocol(limits);
    found.extend(at_least("sessions_max", limits.sessions_max.into(), 1));
    found.extend(unauthenticated(limits));
    found.extend(at_least("ungreeted_per_device_max", limits.ungreeted_per_device_max.into(), 1));
    // One of a shard for a source, one that is left for the others.
    if u64::from(limits.handshakes_max) < 2 * shards {
        let problem = format!(
            "got {}, wanted at least {}: two for each of {shards} shards",
            limits.handshakes_max,
            2 * shards
        );
        found.push(Invalid::new("handshakes_max", problem).against("shards"));
    }
    found.extend(share(SHARE_OF_HANDSHAKES, limits.handshakes_per_source_max, limits.handshakes_max));
    let (of_source, of_all) = (limits.quic_handshakes_per_source_max, limits.quic_handshakes_max);
    found.extend(share(SHARE_OF_QUIC_HANDSHAKES, of_source, of_all));
    found.extend(share(SHARE_OF_WAITING, limits.waiting_per_source_max, limits.waiting_max));
    found.extend(not_zero("quic_idle", limits.quic_idle));
    found.extend(not_zero("first_byte_deadline", limits.first_byte_deadline));
    found.extend(at_least("backlog", limits.backlog.into(), 1));
    found.extend(not_zero("tls_deadline", limits.tls_deadline));
    found.extend(not_zero("upgrade_deadline", limits.upgrade_deadline));
    found.extend(not_zero("write_deadline", limits.write_deadline));
    // Smaller would close sessions for results that the protocol allows; larger is never decoded.
    let (min, max) = (limits::RESULT_BYTES_MAX + limits::FRAME_OVERHEAD_MAX, limits::FRAME_BYTES_MAX);
    found.extend(at_least_bytes("message_bytes_max", limits.message_bytes_max, bytes(min)));
    found.extend(at_least_bytes("unsent_bytes_max", limits.unsent_bytes_max, UNSENT_BYTES_MIN));
    found.extend(at_most_bytes("message_bytes_max", limits.message_bytes_max, bytes(max)));
    found
}

/// Devices without a certificate have some sessions where they are let in, and leave some for others where there are any.
fn unauthenticated(limits: &SessionLimits) -> Option<Invalid> {
    let most = match limits.client_certificate {
        ClientCertificate::Required => return None,
        ClientCertificate::Optional => limits.sessions_max.saturating_sub(1),
        ClientCertificate::None => limits.sessions_max,
    };
    let got = limits.unauthenticated_max;
    let problem = format!(
        "got {got}, wanted 1 to {most}: devices without a certificate (`client_certificate`) have a part of `sessions_max`"
    );
    (!(1..=most).contains(&got)).then(|| Invalid::new("unauthenticated_max", problem).against("sessions_max"))
}

/// What the protocol's half of a session says, under the names that these limits have as keys.
fn protocol(limits: &SessionLimits) -> Vec<Invalid> {
    let told = |error: &limits::LimitsError| {
        let key = match error.limit() {
            "outbound_bytes_max" => "queue_bytes_max",
            "results_credit_bytes" => "results_credit",
            "events_credit_bytes" => "events_credit",
            same => same,
        };
        let got = as_written(error.got());
        let min = match error.min() {
            Measure::Time(time) => human::duration::format(time),
            Measure::Bytes(bytes) => human::bytes::format_up(bytes),
        };
        let invalid = Invalid::new(key, format!("got {got}, wanted at least {min}: {}", error.why()));
        if key == "dead_after" { invalid.against("ping_interval") } else { invalid }
    };
    limits.protocol().findings().iter().map(told).collect()
}

fn operators(limits: &OperatorLimits) -> Vec<Invalid> {
    let found = [
        at_least("connections_max", limits.connections_max.into(), 1),
        at_least("connections_per_certificate_max", limits.connections_per_certificate_max.into(), 1),
        share(SHARE_OF_HANDSHAKES, limits.handshakes_per_source_max, limits.handshakes_max),
        share(SHARE_OF_WAITING, limits.waiting_per_source_max, limits.waiting_max),
        not_zero("first_byte_deadline", limits.first_byte_deadline),
        at_least("streams_max", limits.streams_max.into(), 1),
        at_least_bytes("message_bytes_max", limits.message_bytes_max, CALL_BYTES_MIN),
        at_least_bytes("header_bytes_max", limits.header_bytes_max, 4096),
        not_zero("call_deadline", limits.call_deadline),
        not_zero("tls_deadline", limits.tls_deadline),
    ];
    found.into_iter().flatten().collect()
}

fn engine(limits: &EngineLimits) -> Vec<Invalid> {
    let found = [
        at_least("batch_items_max", limits.batch_items_max.into(), 1),
        at_least("queue_items_max", limits.queue_items_max.into(), 1),
        at_least("shard_messages_max", limits.shard_messages_max.into(), 1),
        at_least("blocked_max", limits.blocked_max.into(), 1),
        at_least("stops_max", limits.stops_max.into(), 1),
        at_least("policy_asks_per_second", limits.policy_asks_per_second.into(), 1),
        at_least("unauthenticated_max", limits.unauthenticated_max.into(), 1),
        at_least("unauthenticated_new_per_minute", limits.unauthenticated_new_per_minute.into(), 1),
        at_least("unauthenticated_events_per_minute", limits.unauthenticated_events_per_minute.into(), 1),
        at_least("aggregates_max", limits.aggregates_max.into(), 1),
        at_least("aggregate_rows_max", limits.aggregate_rows_max.into(), 1),
        at_least_bytes("aggregate_memory", limits.aggregate_memory, 16 << 20),
        at_least("aggregate_answer_rows_max", limits.aggregate_answer_rows_max.into(), 1),
        not_zero("aggregate_deadline", limits.aggregate_deadline),
        not_zero("prepared_ttl", limits.prepared_ttl),
    ];
    found.into_iter().flatten().collect()
}

/// A call that ends first would say nothing of why.
fn aggregate_deadline(config: &Config) -> Option<Invalid> {
    let (got, most) = (config.engine.aggregate_deadline, config.operators.call_deadline);
    let problem = || {
        format!(
            "got {}, wanted less than {}, which a call may take",
            human::duration::format(got),
            human::duration::format(most)
        )
    };
    let is_late = got >= most && !most.is_zero();
    is_late.then(|| Invalid::new("engine.aggregate_deadline", problem()).against("operators.call_deadline"))
}

fn shutdown(limits: &ShutdownLimits) -> Vec<Invalid> {
    let mut found: Vec<Invalid> = not_zero("drain_timeout", limits.drain_timeout).into_iter().collect();
    if limits.reconnect_spread > limits::RECONNECT_AFTER_MAX {
        let problem = format!(
            "got {}, wanted at most {}, what a client may be told",
            human::duration::format(limits.reconnect_spread),
            human::duration::format(limits::RECONNECT_AFTER_MAX)
        );
        found.push(Invalid::new("reconnect_spread", problem));
    }
    found
}

fn grant(grant: &Grant) -> Vec<Invalid> {
    let mut found = Vec::new();
    if grant.operators.is_empty() {
        found.push(Invalid::new(
            "grant",
            "a grant without operators gives nothing: name them, or \"*\" for all",
        ));
    }
    let is_odd = |prefix: &&String| prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_alphanumeric());
    found.extend(grant.prefixes.iter().filter(is_odd).map(|prefix| {
        let problem = format!(
            "got the prefix `{prefix}`, wanted the first component of definitions' names, such as `Acme`"
        );
        Invalid::new("grant", problem)
    }));
    found
}

/// The keys of what one source may have, and of what all have.
type ShareKeys = (&'static str, &'static str);

const SHARE_OF_HANDSHAKES: ShareKeys = ("handshakes_per_source_max", "handshakes_max");
const SHARE_OF_QUIC_HANDSHAKES: ShareKeys = ("quic_handshakes_per_source_max", "quic_handshakes_max");
const SHARE_OF_WAITING: ShareKeys = ("waiting_per_source_max", "waiting_max");

/// One source must leave something for others: a share as large as the whole bounds nothing.
fn share((key, whole_key): ShareKeys, share: u32, whole: u32) -> Option<Invalid> {
    if whole < 2 {
        return Some(Invalid::new(
            whole_key,
            format!("got {whole}, wanted at least 2: one source leaves one"),
        ));
    }
    if (1..whole).contains(&share) {
        return None;
    }
    let problem = format!("got {share}, wanted 1 to {}: less than `{whole_key}`", whole - 1);
    Some(Invalid::new(key, problem).against(whole_key))
}

fn at_least(key: &str, got: u64, min: u64) -> Option<Invalid> {
    (got < min).then(|| Invalid::new(key, format!("got {got}, wanted at least {min}")))
}

fn at_most(key: &str, got: u64, max: u64) -> Option<Invalid> {
    (got > max).then(|| Invalid::new(key, format!("got {got}, wanted at most {max}")))
}

fn at_least_bytes(key: &str, got: u64, min: u64) -> Option<Invalid> {
    let wanted = human::bytes::format_up(min);
    let problem = || format!("got {}, wanted at least {wanted}", human::bytes::format(got));
    (got < min).then(|| Invalid::new(key, problem()))
}

fn at_most_bytes(key: &str, got: u64, max: u64) -> Option<Invalid> {
    let problem =
        || format!("got {}, wanted at most {}", human::bytes::format(got), human::bytes::format(max));
    (got > max).then(|| Invalid::new(key, problem()))
}

/// A limit as the configuration writes it.
fn as_written(measure: Measure) -> String {
    match measure {
        Measure::Time(time) => human::duration::format(time),
        Measure::Bytes(bytes) => human::bytes::format(bytes),
    }
}

fn not_zero(key: &str, got: Duration) -> Option<Invalid> {
    got.is_zero()
        .then(|| Invalid::new(key, "got 0s, wanted a duration such as \"10s\": every wait has an end"))
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
    fn durations_and_sizes_are_told_as_a_configuration_writes_them() {
        let mut config = Config::default();
        config.sessions.ping_interval = Duration::from_secs(10);
        config.sessions.dead_after = Duration::from_secs(10);
        config.sessions.results_credit = 1 << 10;
        config.operators.message_bytes_max = 64 << 10;
        config.shutdown.reconnect_spread = Duration::from_secs(3 * 3_600);

        let told: Vec<String> = config.findings().iter().map(|found| found.problem().to_owned()).collect();

        let wanted = [
            "got 10s, wanted at least 15s: ping_interval and a half, so that a ping and its answer fit in",
            "got 1 KiB, wanted at least 769 KiB: the largest result",
            "got 64 KiB, wanted at least 1 MiB",
            "got 3h, wanted at most 1h, what a client may be told",
        ];
        assert_eq!(told, wanted);
    }

    #[test]
    fn refuses_a_share_of_one_source_that_leaves_nothing_for_others() {
        check(
            |config| config.sessions.handshakes_per_source_max = 1024,
            "sessions.handshakes_per_source_max",
        );
        check(|config| config.sessions.quic_handshakes_max = 512, "sessions.quic_handshakes_per_source_max");
        check(|config| config.sessions.waiting_per_source_max = 9000, "sessions.waiting_per_source_max");
        check(
            |config| config.operators.handshakes_per_source_max = 64,
            "operators.handshakes_per_source_max",
        );
        check(|config| config.operators.waiting_per_source_max = 0, "operators.waiting_per_source_max");
    }

    #[test]
    fn c1_devices_without_a_certificate_leave_sessions_for_those_with_one() {
        let with = |asks, max| {
            move |config: &mut Config| {
                config.sessions.client_certificate = asks;
                (config.sessions.sessions_max, config.sessions.unauthenticated_max) = (10, max);
            }
        };
        for (asks, max) in [(ClientCertificate::Optional, 10), (ClientCertificate::None, 11)] {
            check(with(asks, max), "sessions.unauthenticated_max");
            check(with(asks, 0), "sessions.unauthenticated_max");
        }
        for (asks, max) in [
            (ClientCertificate::Optional, 9),
            (ClientCertificate::None, 10),
            (ClientCertificate::Required, 99),
        ] {
            let mut config = Config::default();
            with(asks, max)(&mut config);
            assert_eq!(config.validate(), Ok(()));
        }
    }

    #[test]
    fn refuses_fewer_handshakes_than_two_for_each_shard() {
        let few = |config: &mut Config| {
            config.shards = 8;
            (config.sessions.handshakes_max, config.sessions.handshakes_per_source_max) = (15, 4);
        };
        check(few, "sessions.handshakes_max");
    }

    #[test]
    fn refuses_an_aggregate_that_may_take_longer_than_its_call() {
        check(
            |config| config.engine.aggregate_deadline = Duration::from_secs(60),
            "engine.aggregate_deadline",
        );
        check(|config| config.operators.call_deadline = Duration::from_secs(20), "engine.aggregate_deadline");
        check(|config| config.engine.aggregate_memory = 1 << 10, "engine.aggregate_memory");
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

    #[test]
    fn every_value_that_cannot_work_is_told() {
        let mut config = Config { shards: 300, tenant: String::new(), ..Config::default() };
        config.admin_listen = "0.0.0.0:4002".parse().unwrap();
        config.operator_listen = config.listen;
        config.sessions.ping_interval = Duration::ZERO;
        config.sessions.dead_after = Duration::ZERO;
        config.sessions.queue_bytes_max = 0;
        config.sessions.results_credit = 0;
        config.sessions.events_credit = 0;
        config.sessions.hello_deadline = Duration::ZERO;
        config.sessions.sessions_max = 0;
        config.operators.waiting_max = 0;
        config.engine.prepared_ttl = Duration::ZERO;
        config.clock.settle = Duration::ZERO;
        config.revocation.fetching.alarm_after = 0;
        config.log.filter = "=,=".to_owned();

        let findings = config.findings();

        let keys: Vec<&str> = findings.iter().map(Invalid::key).collect();
        let wanted = [
            "tenant",
            "shards",
            "admin_listen",
            "operator_listen",
            "sessions.hello_deadline",
            "sessions.ping_interval",
            "sessions.dead_after",
            "sessions.queue_bytes_max",
            "sessions.results_credit",
            "sessions.events_credit",
            "sessions.sessions_max",
            "operators.waiting_max",
            "engine.prepared_ttl",
            "clock.settle",
            "revocation.fetching.alarm_after",
            "log.filter",
        ];
        assert_eq!(keys, wanted);
    }

    fn check(change: impl FnOnce(&mut Config), key: &str) {
        let mut config = Config::default();
        change(&mut config);

        assert_eq!(config.validate().unwrap_err().key(), key);
    }
}

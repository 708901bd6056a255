//! Variables that nobody set: Kubernetes gives every container some for each Service of its namespace, and a Service
//! named `muster-switch` gets those that begin as our keys do.
//!
//! | name after the prefix | value |
//! |---|---|
//! | `SERVICE_HOST` | an IP address |
//! | `SERVICE_PORT`, `SERVICE_PORT_NAME` | a number |
//! | `PORT`, `PORT_4000_TCP` | `tcp://10.0.0.1:4000` |
//! | `PORT_4000_TCP_PROTO`, `…_PORT`, `…_ADDR` | `tcp`, a number, an IP address |
//!
//! A Service named `muster-switch-operator` has `OPERATOR_` before each. Only name and value together are ignored: a
//! mistyped key is still refused. `enableServiceLinks: false` in the pod's specification keeps them all away.

use std::io::Write as _;
use std::net::IpAddr;

use crate::telemetry::escape_controls;

/// Leaves such variables out, and says so in one line to standard error: the log does not stand yet.
pub(super) fn without_injected(
    program: &str,
    prefix: &str,
    environment: impl IntoIterator<Item = (String, String)>,
) -> Vec<(String, String)> {
    let (mut injected, kept): (Vec<_>, Vec<_>) = environment.into_iter().partition(|(name, value)| {
        !prefix.is_empty() && name.strip_prefix(prefix).is_some_and(|rest| is_injected(rest, value))
    });
    injected.sort();
    if let Some((first, _)) = injected.first() {
        let (first, count) = (escape_controls(first), injected.len());
        // Who closed standard error does not want to know.
        drop(writeln!(
            std::io::stderr(),
            "{program}: warning: {count} environment variables are ignored, such as {first}: Kubernetes sets them for a \
             Service of that name, and they are no keys; `enableServiceLinks: false` keeps them away"
        ));
    }
    kept
}

/// Returns whether the rest of a variable's name and its value are of a Service.
fn is_injected(rest: &str, value: &str) -> bool {
    let words: Vec<&str> = rest.split('_').collect();
    if words.iter().any(|word| word.is_empty()) {
        // `__` is between the parts of a key; a Service's name has no such thing.
        return false;
    }
    match words.as_slice() {
        [.., "SERVICE", "HOST"] => is_address(value),
        [.., "PORT", port, protocol, "PROTO"] if is_port(port) && is_protocol(protocol) => is_protocol(value),
        [.., "PORT", port, protocol, "PORT"] if is_port(port) && is_protocol(protocol) => is_port(value),
        [.., "PORT", port, protocol, "ADDR"] if is_port(port) && is_protocol(protocol) => is_address(value),
        [.., "PORT", port, protocol] if is_port(port) && is_protocol(protocol) => is_link(value),
        [.., "PORT"] if is_link(value) => true,
        words => words.windows(2).any(|pair| pair == ["SERVICE", "PORT"]) && is_port(value),
    }
}

fn is_address(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok()
}

fn is_protocol(text: &str) -> bool {
    ["tcp", "udp", "sctp"].iter().any(|protocol| text.eq_ignore_ascii_case(protocol))
}

fn is_link(text: &str) -> bool {
    text.split_once("://").is_some_and(|(protocol, address)| is_protocol(protocol) && !address.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_sets_for_a_service_is_no_key_and_what_looks_like_it_is() {
        let injected = [
            ("SERVICE_HOST", "10.96.0.7"),
            ("SERVICE_HOST", "fd00::7"),
            ("SERVICE_PORT", "4000"),
            ("SERVICE_PORT_SESSIONS", "4000"),
            ("PORT", "tcp://10.96.0.7:4000"),
            ("PORT_4000_TCP", "tcp://10.96.0.7:4000"),
            ("PORT_4000_TCP_PROTO", "tcp"),
            ("PORT_4000_TCP_PORT", "4000"),
            ("PORT_4000_TCP_ADDR", "10.96.0.7"),
            ("OPERATOR_SERVICE_HOST", "10.96.0.8"),
            ("OPERATOR_PORT_4001_TCP_ADDR", "10.96.0.8"),
        ];
        let keys = [
            ("PORT", "4000"),
            ("PORT", "10.96.0.7:4000"),
            ("LISTEN", "tcp://10.96.0.7:4000"),
            ("SERVICE_HOST", "switch.example.org"),
            ("SERVICE_PORT", "many"),
            ("PORT_X_TCP", "tcp://10.96.0.7:4000"),
            ("TLS__PORT", "tcp://10.96.0.7:4000"),
            ("LIMITS__SESSIONS_MAX", "1000"),
            ("", "x"),
        ];

        for (name, value) in injected {
            assert!(is_injected(name, value), "{name}={value}");
        }
        for (name, value) in keys {
            assert!(!is_injected(name, value), "{name}={value}");
        }
    }
}

//! The same chains get the same verdict on every listener, over TLS 1.2 and 1.3, as from `muster pki check`.
//!
//! openssl makes them and shows them: rustls would not send some of them. A chain is made for each role: of a device for
//! WebSocket and HTTPS, of an operator for gRPC. That a refusal is the one that was meant, and not one by accident, shows in the
//! service's log, which must name every rule that `muster pki check` names.

mod lab;

use std::io::{Read as _, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;

use serde_json::Value;

use self::lab::{CHAINS, Chain, Lab, Verdict};
use crate::support::{PATIENCE, Place, Service, run, wait_until};

/// The HTTP/2 preface and empty SETTINGS, as every gRPC client begins.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
const UPGRADE: &[u8] = b"GET /v1/session HTTP/1.1\r\nhost: localhost\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
    sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: muster.v1\r\n\r\n";
const GET: &[u8] = b"GET /Background/v1/nothing HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// A port, whom it is for, what is said to it and how an answer begins.
struct Listener<'a> {
    name: &'static str,
    port: u16,
    service: &'a Service,
    /// The role for `muster pki check`, and its folder.
    role: [&'static str; 2],
    alpn: Option<&'static str>,
    said: &'static [u8],
    answer: fn(&[u8]) -> bool,
}

#[test]
fn every_listener_gives_each_chain_the_verdict_of_muster_pki_check() {
    let place = Place::with_pki(&[]);
    let labs = ["devices", "operators"].map(|folder| Lab::make(&place, folder));
    let lists: Vec<PathBuf> = labs.iter().flat_map(Lab::lists).collect();
    for config in [place.switch_config(""), place.background_config()] {
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, format!("crls = {lists:?}\ncertificates.trail = \"refusals\"\n{text}"))
            .unwrap();
    }
    let (switch, background) = (place.start_switch(), place.start_background());
    let listeners = listeners(&place, &switch, &background);
    let (mut wrong, mut verdicts) = (Vec::new(), 0);
    for chain in &CHAINS {
        for listener in &listeners {
            let [device, operator] = &labs;
            let lab = if listener.role[1] == "devices" { device } else { operator };
            let (checked, rules) = check(&place, lab, chain, listener.role);
            if checked != chain.verdict {
                wrong.push(format!(
                    "{}: muster pki check as {} says {checked:?}, {rules:?}",
                    chain.name, listener.role[0]
                ));
            }
            for version in ["-tls1_2", "-tls1_3"] {
                verdicts += 1;
                let before = listener.service.log().len();
                let (got, said) = show(lab, chain, listener, version);
                if got != checked {
                    wrong.push(format!("{} on {} {version}: {got:?}, {said}", chain.name, listener.name));
                } else if got == Verdict::Refused {
                    wait_until(
                        &format!(
                            "{} of {} {version} in the log of {}",
                            rules.join(" "),
                            chain.name,
                            listener.name
                        ),
                        || {
                            let log = listener.service.log();
                            let new = log.get(before..).unwrap_or_default();
                            rules.iter().all(|rule| new.contains(rule.as_str()))
                        },
                    );
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {verdicts} verdicts:\n{}", wrong.len(), wrong.join("\n"));
    eprintln!(
        "{} chains, {} listeners, TLS 1.2 and 1.3: {verdicts} verdicts agree",
        CHAINS.len(),
        listeners.len()
    );
}

fn listeners<'a>(place: &Place, switch: &'a Service, background: &'a Service) -> [Listener<'a>; 3] {
    let device = ["client", "devices"];
    [
        Listener {
            name: "WSS",
            port: place.ports.sessions,
            service: switch,
            role: device,
            alpn: None,
            said: UPGRADE,
            answer: |answer| answer.starts_with(b"HTTP/1.1 101"),
        },
        Listener {
            name: "gRPC",
            port: place.ports.operator,
            service: switch,
            role: ["operator", "operators"],
            alpn: Some("h2"),
            said: PREFACE,
            // The server's SETTINGS frame.
            answer: |answer| answer.get(3) == Some(&4),
        },
        Listener {
            name: "HTTPS",
            port: place.ports.background,
            service: background,
            role: device,
            alpn: Some("http/1.1"),
            said: GET,
            answer: |answer| answer.starts_with(b"HTTP/1.1 404"),
        },
    ]
}

/// What `muster pki check` says, and the rules that it refuses by.
fn check(place: &Place, lab: &Lab, chain: &Chain, [role, folder]: [&str; 2]) -> (Verdict, Vec<String>) {
    let mut command = place.command();
    command.args(["pki", "check", "-o", "json", "--role", role, "--ca"]);
    command.arg(place.home().join(format!("trust/{folder}.pem")));
    for list in lab.lists() {
        command.arg("--crl").arg(list);
    }
    let said = run(command.arg(lab.file(chain, "chain.pem")));
    let told: Value = said.json();
    let findings = told["findings"].as_array().unwrap();
    let refusals = findings.iter().filter(|finding| finding["severity"] == "refusal");
    let mut rules: Vec<String> =
        refusals.map(|finding| finding["rule"].as_str().unwrap().to_owned()).collect();
    rules.dedup();
    match said.code {
        0 => (Verdict::Accepted, rules),
        1 => (Verdict::Refused, rules),
        code => panic!("{}: exit {code}\n{}{}", chain.name, said.out, said.err),
    }
}

/// Shows a chain to a listener, and says something that is answered at once if the chain is accepted.
fn show(lab: &Lab, chain: &Chain, listener: &Listener<'_>, version: &str) -> (Verdict, String) {
    let mut command = Command::new("openssl");
    command.args(["s_client", "-quiet", "-no-CAfile", "-no-CApath", "-servername", "localhost", version]);
    // What openssl itself would rather not send.
    command.args(["-cipher", "DEFAULT@SECLEVEL=0", "-connect", &format!("127.0.0.1:{}", listener.port)]);
    command.arg("-cert").arg(lab.file(chain, "leaf.pem")).arg("-key").arg(lab.file(chain, "key"));
    if lab.has_above(chain) {
        command.arg("-cert_chain").arg(lab.file(chain, "above.pem"));
    }
    command.args(listener.alpn.iter().flat_map(|alpn| ["-alpn", alpn]));
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut client = command.spawn().unwrap();
    let mut input = client.stdin.take().unwrap();
    // A client that was refused reads no more.
    drop(input.write_all(listener.said).and_then(|()| input.flush()));
    let mut output = client.stdout.take().unwrap();
    let (teller, told) = mpsc::sync_channel(1);
    let reader = std::thread::spawn(move || {
        let mut answer = [0; 12];
        let is_whole = output.read_exact(&mut answer).is_ok();
        // Nobody listens any more after the deadline.
        let _told = teller.send(is_whole.then_some(answer));
    });
    let answer = told.recv_timeout(PATIENCE);
    drop(client.kill());
    let ended = client.wait_with_output().unwrap();
    drop((reader.join(), input));
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    match answer.unwrap_or_else(|_| panic!("{} {}: no answer\n{said}", chain.name, listener.name)) {
        Some(answer) if (listener.answer)(&answer) => (Verdict::Accepted, said),
        Some(answer) => panic!("{} {}: {:?}", chain.name, listener.name, String::from_utf8_lossy(&answer)),
        None => (Verdict::Refused, said),
    }
}

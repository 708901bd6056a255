//! Orders that prove nothing, so many that the client is never without one: what it does at times of its own, it does all the same.

use std::time::{Duration, Instant};

use muster_pki::authority::Authority;
use muster_pki::{Role, UnixTime};
use muster_proto::common::v1::{Refusal, TargetState};

use super::Lab;
use crate::support::orders::{issued, sign_order};
use crate::support::{PATIENCE, write};

/// What a client says when it has read changed roots.
const TAKEN: &str = "changed roots of signers are in use";

#[test]
fn attack_endless_data_of_garbage_keeps_no_root_in_use_that_was_taken_away_on_the_device() {
    let lab = Lab::new();
    let own = lab.place.path("own-orders.pem");
    std::fs::copy(lab.place.home().join("trust/orders.pem"), &own).expect("a copy");
    let path = lab.place.path(&format!("{}.toml", super::DEVICE));
    let config = std::fs::read_to_string(&path).expect("the configuration");
    let orders =
        |line: &str| if line.starts_with("orders =") { format!("orders = {own:?}") } else { line.to_owned() };
    write(&path, &config.lines().map(orders).collect::<Vec<String>>().join("\n"));
    let liar = lab.liar();
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    lab.goes_on(&mut session);
    let day = Duration::from_secs(86_400);
    let yesterday = UnixTime::since_unix_epoch(Duration::from_secs(UnixTime::now().as_secs()) - day);
    let newer = Authority::root("Newer orders", 2 * day, yesterday).expect("a root");

    write(&own, &newer.certificate_pem());
    let (begun, mut number) = (Instant::now(), 0_u64);
    while !client.log().contains(TAKEN) {
        assert!(
            begun.elapsed() < PATIENCE,
            "after {number} orders the root that was taken away still counts"
        );
        for _ in 0..1_000 {
            number += 1;
            session.deliver(format!("order {number}").as_bytes());
        }
    }

    let late = lab.order(&lab.honest);
    let told = lab.tried(&mut session, &late, &lab.signed(&late));
    assert_eq!(told, (TargetState::Refused, Refusal::UntrustedSigner), "by the root that was taken away");
    let order = lab.order(&lab.honest);
    lab.runs(&mut session, &order, &sign_order(&order, &issued(&newer, "operator", Role::OrderSigner)));
}

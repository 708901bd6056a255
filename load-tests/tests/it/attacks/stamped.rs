//! A signature that outlives its certificate: what a device and a Switch take once the author's certificate has ended.

use muster_pki::Role;
use muster_proto::common::v1::Refusal;
use muster_proto::order::v1::Order;

use super::clock::Clock;
use super::stolen::Stamps;
use super::{Lab, definition, instruction, text};
use crate::liar::{Liar, Welcome, now_ms};
use crate::support::orders::{MINUTE_MS, authority, issued};
use crate::support::{run, write};

/// Later than the end of the author's certificate, which has twelve hours.
const LATER_MS: i64 = 13 * 60 * MINUTE_MS;

#[test]
fn a_stamped_definition_outlives_its_authors_certificate_on_a_device_that_trusts_the_authority() {
    let lab = Lab::new();
    let roots = lab.place.home().join("trust/timestamps.pem");
    lab.configure("", &format!("timestamps = {roots:?}"), "");
    let liar = lab.liar();
    let Ended { plain, stamped, welcome } = Ended::new(&lab, &liar);
    let clock = Clock::new(&lab);
    clock.set("+13h");
    let _client = clock.start();
    let mut session = liar.accept(welcome);

    lab.refused(&mut session, &later(&lab, &plain), Refusal::UntrustedSigner, "nothing says when");
    let order = later(&lab, &stamped);
    lab.runs(&mut session, &order, &lab.signed(&order));
}

#[test]
fn a_stamped_definition_is_refused_by_a_device_without_roots_of_timestamps_which_says_what_is_missing() {
    let lab = Lab::new();
    let liar = lab.liar();
    let Ended { stamped, welcome, .. } = Ended::new(&lab, &liar);
    let clock = Clock::new(&lab);
    clock.set("+13h");
    let _client = clock.start();
    let mut session = liar.accept(welcome);

    let order = later(&lab, &stamped);
    session.deliver(&lab.signed(&order));
    let (_, refusal, detail) = session.result_with_detail(instruction(&order));

    assert_eq!(refusal, Refusal::UntrustedSigner, "{detail}");
    assert!(detail.contains("trust.timestamps") && detail.contains("timestamps.pem"), "{detail}");
    assert_eq!(lab.place.starts(), 0);
    let honest = later(&lab, &lab.honest);
    lab.runs(&mut session, &honest, &lab.signed(&honest));
}

#[test]
fn a_switch_imports_a_stamped_definition_after_its_authors_certificate_has_ended_if_it_trusts_the_authority()
{
    let lab = Lab::new();
    let Ended { plain, stamped, .. } = Ended::new(&lab, &lab.liar());
    let clock = Clock::new(&lab);
    clock.set("+13h");
    let place = &lab.place;
    let config = place.switch_config("");
    place.add_context();
    let import = |what: &str, bytes: &[u8]| {
        let path = place.path(&format!("{what}.cms"));
        std::fs::write(&path, bytes).unwrap();
        // The command line looks first, and has the time that the Switch has.
        run(place.command().envs(clock.environment()).args(["definition", "import"]).arg(path))
    };

    let switch = place.start_switch_with(&clock.environment());
    let refused = import("stamped", &stamped);
    switch.stop();
    let roots = place.home().join("trust/timestamps.pem");
    let trusting = std::fs::read_to_string(&config).unwrap();
    write(&config, &trusting.replace("[trust]\n", &format!("[trust]\ntimestamps = {roots:?}\n")));
    let switch = place.start_switch_with(&clock.environment());
    let (late, taken) = (import("plain", &plain), import("stamped", &stamped));

    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.err.contains("trust.timestamps"), "{refused:?}");
    assert_ne!(late.code, 0, "{late:?}");
    taken.with_code(0);
    switch.stop();
}

/// Definitions of an author whose certificate will have ended.
struct Ended {
    plain: Vec<u8>,
    stamped: Vec<u8>,
    /// With a licence that binds the author.
    welcome: Welcome,
}

impl Ended {
    fn new(lab: &Lab, liar: &Liar) -> Self {
        let author = issued(&authority(&lab.place, "authors"), "author", Role::Author);
        let plain = definition(&author, &text("Acme-Test-Plain", "1.0.0", ""));
        liar.shelve(&plain);
        let stamped = definition(&author, &text("Acme-Test-Stamped", "1.0.0", ""));
        let stamped = Stamps::new(lab).stamp(liar, "stamped", &stamped);
        let thumbprint = author.certificate().unwrap().thumbprint();
        let licence = lab.licence(2, |terms| {
            terms.prefixes.get_mut("Acme").unwrap().insert(thumbprint);
        });
        let licence = Some(liar.shelve(&licence));
        Self {
            plain,
            stamped,
            welcome: Welcome { licence, time_ms: Some(now_ms() + LATER_MS), ..lab.welcome() },
        }
    }
}

/// An order of that later time.
fn later(lab: &Lab, definition: &[u8]) -> Order {
    let now = now_ms() + LATER_MS;
    Order {
        not_before_ms: now - MINUTE_MS,
        expires_at_ms: now + 10 * MINUTE_MS,
        licence_serial: 2,
        ..lab.order(definition)
    }
}

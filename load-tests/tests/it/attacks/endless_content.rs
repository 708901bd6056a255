//! A Background Channel whose content has no end, is not the signed one, or does not come: no step begins, nothing beyond the signed size is
//! kept, and what needs nothing of it goes on meanwhile.

use bao_tree::BlockSize;
use bao_tree::io::outboard::PreOrderMemOutboard;
use muster_proto::common::v1::{Refusal, TargetState};
use muster_proto::order::v1::Order;

use super::endless::{UNREAD_BYTES_MAX, peak_kib, stays_small};
use super::{DEVICE, Lab, instruction, text};
use crate::liar::background::{Answer, LyingBackground, Then};
use crate::liar::{self, Liar, now_ms};
use crate::support::{wait_until, write};

/// Of a resource: groups of 16 KiB, and one that is not full.
const SIZE: usize = (1 << 20) + 5;

/// Far more than anybody may say that a resource has.
const FAR_TOO_MUCH: u64 = 1 << 40;

/// How long an order is for that waits for what does not come, in milliseconds.
const WINDOW_MS: i64 = 6_000;

/// A resource and the definition that needs it.
struct Resource {
    bytes: Vec<u8>,
    outboard: Vec<u8>,
    root: String,
    definition: Vec<u8>,
}

/// A device between a Switch and a Background Channel that lie.
struct Between {
    lab: Lab,
    liar: Liar,
    background: LyingBackground,
}

impl Between {
    fn new() -> Self {
        let lab = Lab::new();
        let more = "[resources]\nattempts = 2\nstall_timeout = \"2s\"\n[instructions]\nparallel = 8";
        lab.configure("", "", more);
        let path = lab.place.path(&format!("{DEVICE}.toml"));
        let here = format!(
            "background_channel = \"https://localhost:{}/Background/v1\"",
            lab.place.ports.background
        );
        let text = std::fs::read_to_string(&path).unwrap();
        write(&path, &text.replace("background_channel = \"\"", &here));
        let background = LyingBackground::listen(&lab.place, liar::identity(&lab.place));
        let liar = lab.liar();
        Self { lab, liar, background }
    }

    /// Makes a resource of which no other test has a byte, and a definition that names it.
    fn resource(&self, number: usize) -> Resource {
        let bytes: Vec<u8> =
            (0..SIZE).map(|at| u8::try_from((at / 7 + at * 31 + number * 101) % 251).unwrap()).collect();
        let outboard = PreOrderMemOutboard::create(&bytes, BlockSize::from_chunk_log(4));
        let root = outboard.root.to_hex().to_string();
        let named = format!("[[resource]]\nname = \"content\"\nsize = {SIZE}\nroot = \"{root}\"\n");
        let text = text(&format!("Acme-Test-Content{number}"), "1.0.0", &named);
        let definition = self.lab.publish(&self.liar, &text);
        let resource = Resource { bytes, outboard: outboard.into_inner_with_prefix(), root, definition };
        self.gives(&resource, Answer::honest(&resource.outboard), Answer::honest(&resource.bytes));
        resource
    }

    fn gives(&self, resource: &Resource, outboard: Answer, content: Answer) {
        self.background.gives(&format!("{}.obao", resource.root), outboard);
        self.background.gives(&resource.root, content);
    }
}

/// The last byte, in a group of its own, is another.
fn changed(bytes: &[u8]) -> Vec<u8> {
    let mut changed = bytes.to_vec();
    *changed.last_mut().unwrap() ^= 1;
    changed
}

/// The outboard and the content that are given of a resource.
type Lie = fn(&Resource) -> (Answer, Answer);

/// What is known for a lie from what came of it.
const LIES: [(&str, Lie); 9] = [
    ("bytes without end, the first of them wrong", |of| {
        (Answer::honest(&of.outboard), Answer::untold(&[], Then::GoesOn))
    }),
    ("a chunk without end, the last signed byte wrong", |of| {
        let content = Answer {
            head: "transfer-encoding: chunked\r\n".to_owned(),
            body: [b"fffffffffffffff\r\n", &changed(&of.bytes)[..]].concat(),
            then: Then::GoesOn,
        };
        (Answer::honest(&of.outboard), content)
    }),
    ("another last byte", |of| (Answer::honest(&of.outboard), Answer::honest(&changed(&of.bytes)))),
    ("a length of a TiB, and more bytes than were signed", |of| {
        (Answer::honest(&of.outboard), Answer::told(FAR_TOO_MUCH, &of.bytes, Then::GoesOn))
    }),
    ("a byte too few, and told", |of| (Answer::honest(&of.outboard), Answer::honest(&of.bytes[..SIZE - 1]))),
    ("a hash tree that is too long, and told", |of| {
        let longer = [&of.outboard[..], &[0; 64]].concat();
        (Answer::honest(&longer), Answer::honest(&of.bytes))
    }),
    ("a hash tree without end", |of| (Answer::untold(&of.outboard, Then::GoesOn), Answer::honest(&of.bytes))),
    ("a hash tree of a TiB", |of| {
        (Answer::told(FAR_TOO_MUCH, &of.outboard, Then::GoesOn), Answer::honest(&of.bytes))
    }),
    ("a hash tree of another content", |of| {
        (Answer::honest(&changed(&of.outboard)), Answer::honest(&of.bytes))
    }),
];

#[test]
fn attack_endless_data_of_a_background_channel_is_refused_at_the_signed_size_and_nothing_runs() {
    let between = Between::new();
    let Between { lab, liar, background } = &between;
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    lab.goes_on(&mut session);
    let before = peak_kib(&client);

    for (number, (what, lie)) in LIES.into_iter().enumerate() {
        let resource = between.resource(number);
        let (outboard, content) = lie(&resource);
        between.gives(&resource, outboard, content);
        let order = lab.order(&resource.definition);
        let envelope = lab.signed(&order);
        let starts = lab.place.starts();

        session.deliver(&envelope);
        let (state, refusal, detail) = session.result_with_detail(instruction(&order));

        assert_eq!((state, refusal), (TargetState::Refused, Refusal::Resource), "{what}: {detail}");
        assert!(detail.contains("the Background Channel gave"), "{what}: {detail}");
        assert_eq!(lab.place.starts(), starts, "{what}");
        // Two wrong answers are one too many (resources.attempts), and hashes that held are not asked for again.
        let asked = background.asked(&resource.root) + background.asked(&format!("{}.obao", resource.root));
        assert!((2..=3).contains(&asked), "{what}: asked {asked} times");
        lab.goes_on(&mut session);
    }

    let most = background.most_sent();
    assert!(most < SIZE as u64 + UNREAD_BYTES_MAX, "{most} bytes were taken, or lay unread, of one answer");
    stays_small(lab, &client, before, (LIES.len() * SIZE) as u64);
}

#[test]
fn attack_endless_data_behind_the_signed_bytes_is_cut_off_and_the_signed_bytes_are_used() {
    let between = Between::new();
    let Between { lab, liar, background } = &between;
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let before = peak_kib(&client);
    let size = SIZE as u64;

    let contents: [fn(&[u8]) -> Answer; 2] =
        [|bytes| Answer::untold(bytes, Then::GoesOn), |bytes| Answer::told(SIZE as u64, bytes, Then::GoesOn)];

    for (number, content) in contents.into_iter().enumerate() {
        let resource = between.resource(number);
        between.gives(&resource, Answer::honest(&resource.outboard), content(&resource.bytes));
        let order = lab.order(&resource.definition);
        lab.runs(&mut session, &order, &lab.signed(&order));

        let cached = lab.place.path(DEVICE).join("resources").join(&resource.root);
        assert_eq!(std::fs::read(cached).unwrap(), resource.bytes, "{number}");
    }
    assert!(background.most_sent() < size + UNREAD_BYTES_MAX, "{}", background.most_sent());
    stays_small(lab, &client, before, 2 * size);
    lab.goes_on(&mut session);
}

/// What may be a bad road as well as a lie: it is asked for again until the window ends.
const DELAYS: [(&str, Lie); 6] = [
    ("content byte by byte", |of| {
        (Answer::honest(&of.outboard), Answer::told(SIZE as u64, &of.bytes, Then::Trickles))
    }),
    ("hashes byte by byte", |of| {
        (Answer::told(of.outboard.len() as u64, &of.outboard, Then::Trickles), Answer::honest(&of.bytes))
    }),
    ("half of it, and silence", |of| {
        (Answer::honest(&of.outboard), Answer::told(SIZE as u64, &of.bytes[..SIZE / 2], Then::Waits))
    }),
    ("half of it, and the end", |of| {
        (Answer::honest(&of.outboard), Answer::told(SIZE as u64, &of.bytes[..SIZE / 2], Then::Ends))
    }),
    ("two lengths", |of| {
        let head = format!("content-length: {SIZE}\r\ncontent-length: {}\r\n", SIZE + 1);
        let content = Answer { head, ..Answer::honest(&of.bytes) };
        (Answer::honest(&of.outboard), content)
    }),
    ("a head without end", |of| (Answer::honest(&of.outboard), Answer::untold(&[], Then::EndlessHead))),
];

#[test]
fn attack_endless_data_that_trickles_ends_with_the_orders_window_and_keeps_nothing_else_waiting() {
    let between = Between::new();
    let Between { lab, liar, background } = &between;
    let client = lab.start();
    let mut session = liar.accept(lab.welcome());
    lab.goes_on(&mut session);
    let before = peak_kib(&client);

    let mut waiting = Vec::new();
    for (number, (what, lie)) in DELAYS.into_iter().enumerate() {
        let resource = between.resource(number);
        let (outboard, content) = lie(&resource);
        between.gives(&resource, outboard, content);
        let order = Order { expires_at_ms: now_ms() + WINDOW_MS, ..lab.order(&resource.definition) };
        session.deliver(&lab.signed(&order));
        waiting.push((what, resource, order));
    }
    // While all of them are under way, and with as many slots as there are.
    lab.goes_on(&mut session);

    for (what, resource, order) in &waiting {
        let (state, refusal, detail) = session.result_with_detail(instruction(order));
        assert_eq!((state, refusal), (TargetState::Expired, Refusal::Unspecified), "{what}: {detail}");
        assert!(detail.contains("window ended"), "{what}: {detail}");
        assert!(background.asked(&format!("{}.obao", resource.root)) > 0, "{what}: it was never asked for");
    }
    assert_eq!(lab.place.starts(), 2, "the two honest ones");
    let most = background.most_sent();
    assert!(most < SIZE as u64 + UNREAD_BYTES_MAX, "{most} bytes were taken, or lay unread, of one answer");
    stays_small(lab, &client, before, (waiting.len() * SIZE) as u64);

    // What comes in the end is used, also of those.
    for (what, resource, _) in &waiting {
        between.gives(resource, Answer::honest(&resource.outboard), Answer::honest(&resource.bytes));
        let order = lab.order(&resource.definition);
        session.deliver(&lab.signed(&order));
        let (state, _, detail) = session.result_with_detail(instruction(&order));
        assert_eq!(state, TargetState::Answered, "{what}: {detail}");
    }
}

#[test]
fn attack_endless_data_that_trickles_is_left_and_asked_for_anew_long_before_its_window_ends() {
    let between = Between::new();
    let Between { lab, liar, background } = &between;
    let _client = lab.start();
    let mut session = liar.accept(lab.welcome());
    let (hashes, content) = (between.resource(0), between.resource(1));
    let trickle = |bytes: &[u8]| Answer::told(bytes.len() as u64, bytes, Then::Trickles);
    between.gives(&hashes, trickle(&hashes.outboard), Answer::honest(&hashes.bytes));
    between.gives(&content, Answer::honest(&content.outboard), trickle(&content.bytes));
    let waiting = [(hashes, ".obao"), (content, "")].map(|(resource, of)| {
        let order = lab.order(&resource.definition);
        session.deliver(&lab.signed(&order));
        let taken_on = (instruction(&order), TargetState::Acked);
        session.until("it to be taken on", |told| told.progress.contains(&taken_on).then_some(()));
        (resource, of, order)
    });

    for (resource, of, _) in &waiting {
        let name = format!("{}{of}", resource.root);
        wait_until("it to be asked for", || background.asked(&name) > 0);
        between.gives(resource, Answer::honest(&resource.outboard), Answer::honest(&resource.bytes));
    }

    for (resource, of, order) in &waiting {
        let (state, _, detail) = session.result_with_detail(instruction(order));
        assert_eq!(state, TargetState::Answered, "{detail}");
        assert_eq!(background.asked(&format!("{}{of}", resource.root)), 2, "once in vain");
    }
}

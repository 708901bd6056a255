//! The fuzz bodies over their committed corpus, and over seeded changes of it; with MUSTER_TEST_FULL=yes, over many.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[path = "../../../fuzz/bodies.rs"]
mod bodies;

/// Changes tried of each body's corpus, so that `./test` stays short; and for `./test --full`.
const CHANGES: u64 = 400;
const CHANGES_FULL: u64 = 20_000;

/// Longest changed input in bytes.
const BYTES_MAX: usize = 16 * 1024;

#[test]
fn the_corpus_of_every_parser_breaks_no_promise() {
    for (name, body) in bodies::BODIES {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "no corpus of {name}");
        for bytes in &corpus {
            hold(name, body, bytes);
        }
        hold(name, body, &[]);
    }
}

#[test]
fn changes_of_the_corpus_break_no_promise() {
    let is_full = std::env::var("MUSTER_TEST_FULL").is_ok_and(|full| full == "yes");
    let changes = if is_full { CHANGES_FULL } else { CHANGES };
    for (name, body) in bodies::BODIES {
        let corpus = corpus(name);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..changes {
            hold(name, body, &changed(&corpus, &mut random));
        }
    }
}

/// Runs a body; a panic is told with its input, which belongs into the corpus then.
#[track_caller]
fn hold(name: &str, body: fn(&[u8]), bytes: &[u8]) {
    let held = catch_unwind(AssertUnwindSafe(|| body(bytes)));
    assert!(
        held.is_ok(),
        "{name} panicked; put this into signing/fuzz/corpus/{name}: {}",
        hex::encode(bytes)
    );
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Xorshift: the same changes in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 16).unwrap() % bound.max(1)
    }
}

/// One to four changes of an input: a bit, a byte, a piece cut out, doubled, or taken from another.
fn changed(corpus: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(64)).min(bytes.len());
        match random.below(6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.below(8),
            1 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff, b'"', b'\n', b'9'][random.below(8)],
            2 => drop(bytes.drain(at..end)),
            3 => {
                let piece = bytes[at..end].to_vec();
                bytes.splice(at..at, piece);
            }
            4 => {
                let other = &corpus[random.below(corpus.len())];
                let from = random.below(other.len() + 1);
                let piece = other[from..(from + random.below(200)).min(other.len())].to_vec();
                bytes.splice(at..end, piece);
            }
            _ => bytes.truncate(at.max(bytes.len() / 2)),
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

//! Which fault happens where: the same for the same seed, connection and direction, however the bytes are cut.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde::Serialize;

/// The stream is judged in pieces of so many bytes, about what a packet holds.
pub(crate) const PIECE_BYTES: usize = 1_400;
/// How long TCP waits before it sends again (RFC 6298 has at least a second, Linux this).
const RETRANSMISSION: Duration = Duration::from_millis(200);

/// What a network does.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Faults {
    /// Every piece is this late.
    pub(crate) delay: Duration,
    /// And up to so much more, by chance.
    pub(crate) jitter: Duration,
    /// The share of pieces that are lost once, and come a retransmission later, with all behind them.
    pub(crate) loss: f64,
    /// The share of bytes of which one bit is turned.
    pub(crate) corrupt: f64,
    /// Both directions end so long after the connection's beginning.
    pub(crate) cut_after: Option<Duration>,
    /// The direction to the client ends so long after the beginning, the other stays.
    pub(crate) half_close_after: Option<Duration>,
    /// The proxy reads so many bytes a second in each direction.
    pub(crate) slow_read: Option<u64>,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Direction {
    ToServer,
    ToClient,
}

/// The faults of one direction of one connection, piece by piece.
#[derive(Debug)]
pub(crate) struct Schedule {
    faults: Faults,
    chance: StdRng,
    /// The piece that is being judged, and where it ends in the stream.
    piece: Piece,
    ends_at: u64,
    position: u64,
}

/// What happens to a piece.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Piece {
    /// How late it is.
    pub(crate) late: Duration,
    /// Whether it was lost once.
    pub(crate) lost: bool,
    /// Bits that are turned: byte of the piece, mask.
    pub(crate) turned: Vec<(u64, u8)>,
}

impl Schedule {
    /// Of a connection, by its number since the proxy started.
    pub(crate) fn new(faults: Faults, seed: u64, connection: u64, direction: Direction) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&connection.to_le_bytes());
        key[16] = u8::from(direction == Direction::ToClient);
        let (chance, piece) = (StdRng::from_seed(key), Piece::default());
        Self { faults, chance, piece, ends_at: 0, position: 0 }
    }

    /// How many of so many bytes, which come next in the stream, are of one piece; what happens to it; and whether these are
    /// its first bytes, so that nothing happens to it twice.
    pub(crate) fn next(&mut self, available: usize) -> (usize, &Piece, bool) {
        let is_first = self.position == self.ends_at;
        if is_first {
            self.piece = self.judge();
            self.ends_at += PIECE_BYTES as u64;
        }
        let left = usize::try_from(self.ends_at - self.position).unwrap_or(PIECE_BYTES);
        let taken = available.min(left);
        self.position += taken as u64;
        (taken, &self.piece, is_first)
    }

    /// Turns the bits of the bytes that [`Schedule::next`] has just given; returns where in the stream.
    pub(crate) fn turn(&self, bytes: &mut [u8]) -> Vec<u64> {
        let start = self.position - bytes.len() as u64;
        let piece_start = self.ends_at - PIECE_BYTES as u64;
        let mut places = Vec::new();
        for (offset, mask) in &self.piece.turned {
            let place = piece_start + offset;
            let byte = place.checked_sub(start).and_then(|index| bytes.get_mut(usize::try_from(index).ok()?));
            if let Some(byte) = byte {
                *byte ^= mask;
                places.push(place);
            }
        }
        places
    }

    fn judge(&mut self) -> Piece {
        let Faults { delay, jitter, loss, corrupt, .. } = self.faults;
        // Each draw is made whatever the faults are, so that turning one on moves no other.
        let (jittered, lost) = (self.chance.random::<f64>(), self.chance.random::<f64>() < loss);
        let mut chance = StdRng::from_seed(self.chance.random());
        let mut turned = Vec::new();
        if corrupt > 0.0 {
            for offset in 0..PIECE_BYTES as u64 {
                if chance.random::<f64>() < corrupt {
                    turned.push((offset, 1 << chance.random_range(0..8)));
                }
            }
        }
        let late = delay + jitter.mul_f64(jittered) + if lost { RETRANSMISSION } else { Duration::ZERO };
        Piece { late, lost, turned }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAULTS: Faults = Faults {
        delay: Duration::from_millis(50),
        jitter: Duration::from_millis(10),
        loss: 0.1,
        corrupt: 0.001,
        cut_after: None,
        half_close_after: None,
        slow_read: None,
    };

    /// What arrives of a stream that is cut in steps, and what happened to its pieces.
    fn arrives(seed: u64, connection: u64, direction: Direction, step: usize) -> (Vec<u8>, Vec<Piece>) {
        let mut schedule = Schedule::new(FAULTS, seed, connection, direction);
        let (mut stream, mut pieces) = (vec![0_u8; 200_000], Vec::new());
        let mut rest = stream.as_mut_slice();
        while !rest.is_empty() {
            let available = rest.len().min(step);
            let (taken, piece, is_first) = schedule.next(available);
            if is_first {
                pieces.push(piece.clone());
            }
            let (now, later) = rest.split_at_mut(taken);
            schedule.turn(now);
            rest = later;
        }
        (stream, pieces)
    }

    #[test]
    fn the_same_seed_gives_the_same_faults_however_the_bytes_are_cut() {
        let whole = arrives(7, 3, Direction::ToServer, usize::MAX);

        for step in [1, 3, 1_399, 1_401, 5_000] {
            assert_eq!(arrives(7, 3, Direction::ToServer, step), whole, "{step}");
        }
        assert!(whole.1.iter().any(|piece| piece.lost) && whole.0.iter().any(|byte| *byte != 0));
    }

    #[test]
    fn another_seed_connection_or_direction_gives_others() {
        let one = arrives(7, 3, Direction::ToServer, 4_096);

        assert_ne!(arrives(8, 3, Direction::ToServer, 4_096), one);
        assert_ne!(arrives(7, 4, Direction::ToServer, 4_096), one);
        assert_ne!(arrives(7, 3, Direction::ToClient, 4_096), one);
    }

    #[test]
    fn shares_are_about_what_was_asked_for_and_pieces_are_as_late() {
        let (mut pieces, mut bytes) = (Vec::new(), 0);
        for connection in 0..20 {
            let (stream, of_this) = arrives(1, connection, Direction::ToServer, usize::MAX);
            bytes += stream.iter().filter(|byte| **byte != 0).count();
            pieces.extend(of_this);
        }

        let lost = pieces.iter().filter(|piece| piece.lost).count();
        assert!((pieces.len() / 15..pieces.len() / 7).contains(&lost), "{lost} of {}", pieces.len());
        assert!((3_200..4_800).contains(&bytes), "{bytes} of 4,000,000 bytes turned");
        for piece in &pieces {
            let late = piece.late - if piece.lost { RETRANSMISSION } else { Duration::ZERO };
            assert!((FAULTS.delay..=FAULTS.delay + FAULTS.jitter).contains(&late), "{piece:?}");
        }
    }
}

//! [`Arrival`]: the bytes of a pack, held against what its list says while they come.

use super::{ExchangeError, Listed};
use crate::pack::MemberHasher;

/// Takes a pack that is fetched, piece by piece: never more than the list says, and in the end those bytes.
#[derive(Debug, Clone)]
pub struct Arrival<'a> {
    listed: &'a Listed,
    got: u64,
    hasher: MemberHasher,
}

impl<'a> Arrival<'a> {
    /// Begins a pack.
    #[must_use]
    pub fn of(listed: &'a Listed) -> Self {
        Self { listed, got: 0, hasher: MemberHasher::default() }
    }

    /// Takes the next piece, of any length; only then is it kept.
    ///
    /// # Errors
    /// It is more than the list says.
    pub fn handle_piece(&mut self, piece: &[u8]) -> Result<(), ExchangeError> {
        self.got = self.got.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        if self.got > self.listed.size() {
            return Err(ExchangeError::TooLong { wanted: self.listed.size() });
        }
        self.hasher.update(piece);
        Ok(())
    }

    /// Ends the pack.
    ///
    /// # Errors
    /// It is not the one that the list says.
    pub fn finish(self) -> Result<(), ExchangeError> {
        let (size, sha256) = (self.listed.size(), self.listed.sha256());
        if self.got > size {
            return Err(ExchangeError::TooLong { wanted: size });
        }
        if self.got < size {
            return Err(ExchangeError::TooShort { got: self.got, wanted: size });
        }
        let got = self.hasher.finish().sha256;
        if got == sha256 { Ok(()) } else { Err(ExchangeError::Differs { got, wanted: sha256 }) }
    }
}

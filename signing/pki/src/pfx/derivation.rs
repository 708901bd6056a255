//! Keys from passwords: PKCS#12's own derivation (RFC 7292 §B.2) and PBKDF2, both within a bound of work.

use std::num::NonZeroU32;

use aws_lc_rs::{digest, hmac, pbkdf2};
use zeroize::Zeroizing;

use super::ROUNDS_MAX;
use super::encryption::DecryptError;

/// A password in the two forms that files use: PBES2 takes its UTF-8, PKCS#12's derivation UTF-16 with an end mark.
pub(super) struct Password<'a> {
    utf8: &'a str,
    utf16: Zeroizing<Vec<u8>>,
}

impl<'a> Password<'a> {
    /// Returns the forms to try, in order. An empty password has two: some programs leave the end mark out.
    pub(super) fn candidates(password: &'a str) -> Vec<Self> {
        let mut utf16 = Zeroizing::new(Vec::with_capacity(2 * password.len() + 2));
        utf16.extend(password.encode_utf16().flat_map(u16::to_be_bytes));
        utf16.extend([0, 0]);
        let mut candidates = vec![Self { utf8: password, utf16 }];
        if password.is_empty() {
            candidates.push(Self { utf8: password, utf16: Zeroizing::default() });
        }
        candidates
    }

    pub(super) fn utf8(&self) -> &'a str {
        self.utf8
    }
}

/// What may still be spent on one file: rounds of hashing, one for each iteration of each block of derived key.
#[derive(Debug, Default)]
pub(super) struct Budget {
    spent: u64,
}

impl Budget {
    /// Takes `iterations` for each of so many blocks of `of` bytes as `length` bytes of key need.
    fn spend(&mut self, iterations: u32, length: usize, of: usize) -> Result<(), DecryptError> {
        let blocks = u64::try_from(length.div_ceil(of)).unwrap_or(u64::MAX);
        self.spent = self.spent.saturating_add(blocks.saturating_mul(u64::from(iterations)));
        if self.spent > ROUNDS_MAX {
            return Err(DecryptError::Rounds { got: self.spent, iterations });
        }
        Ok(())
    }
}

/// What a derived key is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Use {
    Encryption,
    InitialVector,
    Mac,
}

impl Use {
    /// RFC 7292 §B.3.
    fn diversifier(self) -> u8 {
        match self {
            Self::Encryption => 1,
            Self::InitialVector => 2,
            Self::Mac => 3,
        }
    }
}

/// Salt and iterations of one derivation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Salted<'a> {
    pub(super) salt: &'a [u8],
    pub(super) iterations: u32,
}

/// Derives `length` bytes as RFC 7292 §B.2 does.
pub(super) fn pkcs12(
    hash: &'static digest::Algorithm,
    password: &Password<'_>,
    salted: Salted<'_>,
    use_for: Use,
    length: usize,
    budget: &mut Budget,
) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
    budget.spend(salted.iterations, length, hash.output_len())?;
    let block = hash.block_len();
    let diversifier = vec![use_for.diversifier(); block];
    let mut input = Zeroizing::new(repeated(salted.salt, block));
    input.extend(repeated(&password.utf16, block));
    let mut key = Zeroizing::new(Vec::with_capacity(length + hash.output_len()));
    while key.len() < length {
        let mut context = digest::Context::new(hash);
        context.update(&diversifier);
        context.update(&input);
        let mut hashed = context.finish();
        for _ in 1..salted.iterations {
            hashed = digest::digest(hash, hashed.as_ref());
        }
        key.extend_from_slice(hashed.as_ref());
        for chunk in input.chunks_exact_mut(block) {
            add_plus_one(chunk, hashed.as_ref());
        }
    }
    key.truncate(length);
    Ok(key)
}

/// Derives `length` bytes by PBKDF2 (RFC 8018 §5.2).
pub(super) fn pbkdf2(
    function: hmac::Algorithm,
    password: &Password<'_>,
    salted: Salted<'_>,
    length: usize,
    budget: &mut Budget,
) -> Result<Zeroizing<Vec<u8>>, DecryptError> {
    let algorithm = [
        (hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, pbkdf2::PBKDF2_HMAC_SHA1),
        (hmac::HMAC_SHA256, pbkdf2::PBKDF2_HMAC_SHA256),
        (hmac::HMAC_SHA384, pbkdf2::PBKDF2_HMAC_SHA384),
        (hmac::HMAC_SHA512, pbkdf2::PBKDF2_HMAC_SHA512),
    ];
    let algorithm =
        algorithm.into_iter().find(|(known, _)| *known == function).map(|(_, algorithm)| algorithm);
    let (Some(algorithm), Some(iterations)) = (algorithm, NonZeroU32::new(salted.iterations)) else {
        return Err(DecryptError::Malformed("PBKDF2 parameters".to_owned()));
    };
    budget.spend(salted.iterations, length, function.digest_algorithm().output_len())?;
    let mut key = Zeroizing::new(vec![0; length]);
    pbkdf2::derive(algorithm, iterations, salted.salt, password.utf8().as_bytes(), &mut key);
    Ok(key)
}

/// Repeats `bytes` up to the next multiple of `block`; nothing stays nothing.
fn repeated(bytes: &[u8], block: usize) -> Vec<u8> {
    let length = bytes.len().div_ceil(block) * block;
    bytes.iter().copied().cycle().take(length).collect()
}

/// `number = (number + addend repeated to its length + 1) mod 2^v`, big-endian.
fn add_plus_one(number: &mut [u8], addend: &[u8]) {
    let repeated: Vec<u8> = addend.iter().copied().cycle().take(number.len()).collect();
    let mut carry = true;
    for (digit, more) in number.iter_mut().zip(repeated).rev() {
        let (sum, first) = digit.overflowing_add(more);
        let (sum, second) = sum.overflowing_add(u8::from(carry));
        carry = first || second;
        *digit = sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c13_adds_with_carry_over_the_whole_block() {
        for (number, addend, expected) in [
            ([0, 0, 0, 0], [0, 0], [0, 0, 0, 1]),
            ([0, 0, 0xff, 0xff], [0, 0], [0, 1, 0, 0]),
            ([0xff; 4], [0xff, 0xff], [0xff; 4]),
            ([0xff; 4], [0, 0], [0; 4]),
            ([1, 2, 3, 4], [1, 1], [2, 3, 4, 6]),
        ] {
            let mut sum = number;

            add_plus_one(&mut sum, &addend);

            assert_eq!(sum, expected, "{number:?} + {addend:?} + 1");
        }
    }

    #[test]
    fn c13_an_empty_password_is_tried_with_and_without_its_end_mark() {
        let lengths =
            |password| Password::candidates(password).iter().map(|one| one.utf16.len()).collect::<Vec<_>>();

        assert_eq!(lengths(""), [2, 0]);
        assert_eq!(lengths("ab"), [6]);
        assert_eq!(lengths("\u{1f511}"), [6], "a surrogate pair and the mark");
    }

    #[test]
    fn c13_the_work_is_bounded_before_it_begins() {
        let mut budget = Budget::default();
        let password = Password::candidates("a").remove(0);
        let salted = Salted { salt: &[1; 8], iterations: u32::MAX };

        let pkcs12 = pkcs12(&digest::SHA256, &password, salted, Use::Mac, 32, &mut budget);
        let pbkdf2 = pbkdf2(hmac::HMAC_SHA256, &password, salted, 32, &mut Budget::default());

        assert!(matches!(pkcs12, Err(DecryptError::Rounds { iterations: u32::MAX, .. })));
        assert!(matches!(pbkdf2, Err(DecryptError::Rounds { iterations: u32::MAX, .. })));
    }
}

//! A cursor over strict DER that builds nothing: a CRL of a million entries is read where it lies.

pub(crate) const BOOLEAN: u8 = 0x01;
pub(crate) const INTEGER: u8 = 0x02;
pub(crate) const BIT_STRING: u8 = 0x03;
pub(crate) const OCTET_STRING: u8 = 0x04;
pub(crate) const OBJECT_IDENTIFIER: u8 = 0x06;
pub(crate) const ENUMERATED: u8 = 0x0a;
pub(crate) const UTC_TIME: u8 = 0x17;
pub(crate) const GENERALIZED_TIME: u8 = 0x18;
pub(crate) const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT`, before the extensions of a CRL.
pub(crate) const EXPLICIT_0: u8 = 0xa0;

/// One element.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tlv<'a> {
    pub(crate) tag: u8,
    /// What stands inside.
    pub(crate) value: &'a [u8],
    /// The whole of it: tag, length and value.
    pub(crate) bytes: &'a [u8],
}

/// Reads one element after the other.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

/// Why bytes are not strict DER, or not what should stand there; each with what was being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Malformed {
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("{what} has the tag {got:#04x}")]
    Tag { what: &'static str, got: u8 },
    #[error("{0} has a length that strict DER does not have")]
    Length(&'static str),
    #[error("{0} is longer than what holds it")]
    Short(&'static str),
    #[error("{0} is followed by more bytes")]
    Trailing(&'static str),
    #[error("{0} has a value that strict DER does not have")]
    Value(&'static str),
    #[error("{0} stands there twice")]
    Twice(&'static str),
}

impl<'a> Cursor<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Reads the next element, whatever its tag.
    pub(crate) fn any(&mut self, what: &'static str) -> Result<Tlv<'a>, Malformed> {
        let (tag, behind) = self.rest.split_first().ok_or(Malformed::Missing(what))?;
        if tag & 0x1f == 0x1f {
            return Err(Malformed::Tag { what, got: *tag }); // Tags of several bytes: nothing here has one.
        }
        let (first, behind) = behind.split_first().ok_or(Malformed::Short(what))?;
        let (length, behind) = match first {
            0..=0x7f => (usize::from(*first), behind),
            0x81..=0x84 => {
                let count = usize::from(first & 0x7f);
                let (digits, behind) = behind.split_at_checked(count).ok_or(Malformed::Short(what))?;
                let length = digits.iter().fold(0, |length, digit| (length << 8) | usize::from(*digit));
                if length < 0x80 || digits.first() == Some(&0) {
                    return Err(Malformed::Length(what));
                }
                (length, behind)
            }
            _ => return Err(Malformed::Length(what)),
        };
        let (value, behind) = behind.split_at_checked(length).ok_or(Malformed::Short(what))?;
        let (bytes, _) = self.rest.split_at(self.rest.len() - behind.len());
        self.rest = behind;
        Ok(Tlv { tag: *tag, value, bytes })
    }

    /// Reads the next element, which must have the tag.
    pub(crate) fn expect(&mut self, tag: u8, what: &'static str) -> Result<Tlv<'a>, Malformed> {
        let element = self.any(what)?;
        if element.tag == tag { Ok(element) } else { Err(Malformed::Tag { what, got: element.tag }) }
    }

    /// Reads the next element if it has one of the tags.
    pub(crate) fn optional(&mut self, tags: &[u8], what: &'static str) -> Result<Option<Tlv<'a>>, Malformed> {
        match self.rest.first() {
            Some(tag) if tags.contains(tag) => self.any(what).map(Some),
            Some(_) | None => Ok(None),
        }
    }

    /// Says that `what` ends here.
    pub(crate) const fn end(&self, what: &'static str) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed::Trailing(what)) }
    }
}

/// Returns the content of an INTEGER if it has no superfluous byte in front.
pub(crate) const fn integer<'a>(element: &Tlv<'a>, what: &'static str) -> Result<&'a [u8], Malformed> {
    match element.value {
        [] => Err(Malformed::Value(what)),
        [0x00, second, ..] if *second < 0x80 => Err(Malformed::Value(what)),
        [0xff, second, ..] if *second >= 0x80 => Err(Malformed::Value(what)),
        value => Ok(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_lengths_of_every_form_and_no_other() {
        for (bytes, length) in [
            (vec![0x04, 0x01, 0xaa], Ok(1)),
            (vec![0x04, 0x00], Ok(0)),
            ([vec![0x04, 0x81, 0x80], vec![0; 128]].concat(), Ok(128)),
            ([vec![0x04, 0x82, 0x01, 0x00], vec![0; 256]].concat(), Ok(256)),
            ([vec![0x04, 0x81, 0x7f], vec![0; 127]].concat(), Err(Malformed::Length("x"))),
            ([vec![0x04, 0x82, 0x00, 0x80], vec![0; 128]].concat(), Err(Malformed::Length("x"))),
            (vec![0x04, 0x80, 0, 0], Err(Malformed::Length("x"))),
            (vec![0x04, 0x85, 0, 0, 0, 0, 1, 0], Err(Malformed::Length("x"))),
            (vec![0x04, 0x84, 0xff, 0xff, 0xff, 0xff], Err(Malformed::Short("x"))),
            (vec![0x04, 0x02, 0xaa], Err(Malformed::Short("x"))),
            (vec![0x04], Err(Malformed::Short("x"))),
            (vec![], Err(Malformed::Missing("x"))),
            (vec![0x1f, 0x01, 0x00], Err(Malformed::Tag { what: "x", got: 0x1f })),
        ] {
            assert_eq!(Cursor::new(&bytes).any("x").map(|element| element.value.len()), length, "{bytes:x?}");
        }
    }

    #[test]
    fn refuses_integers_with_superfluous_bytes() {
        let read = |value: &'static [u8]| integer(&Tlv { tag: INTEGER, value, bytes: value }, "x");

        assert_eq!(read(&[0x00]), Ok(&[0x00][..]));
        assert_eq!(read(&[0x00, 0x80]), Ok(&[0x00, 0x80][..]));
        assert_eq!(read(&[0xff, 0x7f]), Ok(&[0xff, 0x7f][..]));
        assert!(read(&[]).is_err() && read(&[0x00, 0x7f]).is_err() && read(&[0xff, 0x80]).is_err());
    }
}

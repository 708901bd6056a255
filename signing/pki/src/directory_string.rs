//! The text of a name's attribute, in whichever string type its CA wrote it (RFC 5280 §4.1.2.4, `DirectoryString`).

use der::asn1::{Any, BmpString, Ia5StringRef, PrintableStringRef, Utf8StringRef};
use der::{Tag, Tagged};

/// Returns the text of an attribute's value; `None` where it is no string, or not one of its type.
///
/// TeletexString is read as Latin-1, which is what CAs have written into it whatever T.61 says. A UniversalString does not come here: `der`
/// parses no name that has one.
pub(crate) fn text(value: &Any) -> Option<String> {
    let utf8 = || Utf8StringRef::try_from(value).ok().map(|text| text.as_str().to_owned());
    let printable = || PrintableStringRef::try_from(value).ok().map(|text| text.as_str().to_owned());
    let ia5 = || Ia5StringRef::try_from(value).ok().map(|text| text.as_str().to_owned());
    let bmp = || value.decode_as::<BmpString>().ok().map(|text| text.to_string());
    let is_teletex = value.tag() == Tag::TeletexString;
    let teletex = || is_teletex.then(|| value.value().iter().copied().map(char::from).collect());
    utf8().or_else(printable).or_else(ia5).or_else(bmp).or_else(teletex)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(tag: Tag, value: &[u8]) -> Option<String> {
        text(&Any::new(tag, value).unwrap())
    }

    #[test]
    fn one_name_is_one_text_in_whichever_string_type_a_ca_wrote_it() {
        let in_latin_1 = b"J\xfcrgen Gro\xdf";
        let in_utf_16: Vec<u8> = "Jürgen Groß".encode_utf16().flat_map(u16::to_be_bytes).collect();

        for (tag, value) in [
            (Tag::Utf8String, "Jürgen Groß".as_bytes()),
            (Tag::TeletexString, &in_latin_1[..]),
            (Tag::BmpString, &in_utf_16),
        ] {
            assert_eq!(of(tag, value).as_deref(), Some("Jürgen Groß"), "{tag}");
        }
        for tag in [Tag::PrintableString, Tag::Ia5String] {
            assert_eq!(of(tag, b"Ann Lee").as_deref(), Some("Ann Lee"), "{tag}");
        }
    }

    #[test]
    fn what_is_no_string_of_its_type_has_no_text() {
        for (tag, value) in [
            (Tag::Utf8String, &b"\xff"[..]),
            (Tag::PrintableString, b"a@b"),
            (Tag::Ia5String, b"\xe4"),
            (Tag::BmpString, b"odd"),
            (Tag::OctetString, b"abc"),
        ] {
            assert_eq!(of(tag, value), None, "{tag}");
        }
    }
}

//! [`TokenUri`]: which token, and which object in it (RFC 7512).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use super::error::UriError;

const SCHEME: &str = "pkcs11:";

/// Longest URI that is read, in bytes.
const URI_BYTES_MAX: usize = 4096;

/// A PKCS#11 URI. What it leaves out matches everything; a PIN never stands in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenUri {
    text: String,
    pub(super) token: Option<String>,
    pub(super) manufacturer: Option<String>,
    pub(super) model: Option<String>,
    pub(super) serial: Option<String>,
    pub(super) slot: Option<u64>,
    pub(super) object: Option<String>,
    pub(super) id: Option<Vec<u8>>,
    pub(super) module: Option<PathBuf>,
    pub(super) pin: Option<PathBuf>,
}

impl TokenUri {
    /// Returns whether a text is meant as such a URI, rather than as a path.
    #[must_use]
    pub fn is_one(text: &str) -> bool {
        text.get(..SCHEME.len()).is_some_and(|start| start.eq_ignore_ascii_case(SCHEME))
    }

    /// Says which token is asked for.
    pub(super) fn wanted_token(&self) -> String {
        let texts = [
            ("token", &self.token),
            ("manufacturer", &self.manufacturer),
            ("model", &self.model),
            ("serial", &self.serial),
        ];
        let mut said: Vec<String> =
            texts.iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?))).collect();
        said.extend(self.slot.map(|slot| format!("slot-id={slot}")));
        if said.is_empty() { "any at all".to_owned() } else { said.join(";") }
    }

    /// Says which key is asked for.
    pub(super) fn wanted_key(&self) -> String {
        let label = self.object.as_ref().map(|object| format!("object={object}"));
        let id = self.id.as_ref().map(|id| format!("id={}", hex(id)));
        let said: Vec<String> = label.into_iter().chain(id).collect();
        if said.is_empty() { "at all".to_owned() } else { said.join(";") }
    }

    fn take(&mut self, name: &str, value: &str, part: Part) -> Result<(), UriError> {
        let text = || text(name, value);
        match (part, name) {
            (Part::Path, "token") => once(name, &mut self.token, text()?),
            (Part::Path, "manufacturer") => once(name, &mut self.manufacturer, text()?),
            (Part::Path, "model") => once(name, &mut self.model, text()?),
            (Part::Path, "serial") => once(name, &mut self.serial, text()?),
            (Part::Path, "object") => once(name, &mut self.object, text()?),
            (Part::Path, "id") => once(name, &mut self.id, decode(name, value)?),
            (Part::Path, "slot-id") => {
                let number = text()?.parse().map_err(|_| UriError(format!("slot-id={value} is no number")))?;
                once(name, &mut self.slot, number)
            }
            (Part::Path, "type") if value == "private" => Ok(()),
            (Part::Path, "type") => Err(UriError(format!("type={value}; a signature is made by type=private"))),
            (Part::Query, "module-path") => once(name, &mut self.module, text()?.into()),
            (Part::Query, "pin-source") => once(name, &mut self.pin, pin_file(&text()?)?),
            // The value is not repeated: it is a secret.
            (Part::Query, "pin-value") => Err(UriError(
                "pin-value shows the PIN to every process of the machine; put it into a file that only you can read and name that as pin-source"
                    .to_owned(),
            )),
            (Part::Path, _) => Err(UriError(format!(
                "unknown attribute {name:?} before the '?'; known are token, manufacturer, model, serial, slot-id, object, id, type"
            ))),
            (Part::Query, _) => Err(UriError(format!(
                "unknown attribute {name:?} after the '?'; known are module-path and pin-source"
            ))),
        }
    }
}

/// Where an attribute stands.
#[derive(Debug, Clone, Copy)]
enum Part {
    Path,
    Query,
}

impl FromStr for TokenUri {
    type Err = UriError;

    fn from_str(text: &str) -> Result<Self, UriError> {
        if text.len() > URI_BYTES_MAX {
            return Err(UriError(format!("{} bytes; at most {URI_BYTES_MAX} are read", text.len())));
        }
        if !Self::is_one(text) {
            return Err(UriError(format!("{text:?} does not begin with {SCHEME}")));
        }
        let rest = text.get(SCHEME.len()..).unwrap_or_default();
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut uri = Self { text: text.to_owned(), ..Self::default() };
        let attributes = path.split(';').map(|attribute| (attribute, Part::Path));
        let attributes = attributes.chain(query.split('&').map(|attribute| (attribute, Part::Query)));
        for (attribute, part) in attributes.filter(|(attribute, _)| !attribute.is_empty()) {
            let Some((name, value)) = attribute.split_once('=') else {
                return Err(UriError(format!("{attribute:?} is no NAME=VALUE")));
            };
            uri.take(name, value, part)?;
        }
        Ok(uri)
    }
}

impl fmt::Display for TokenUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Writes an id as people and other tools do.
pub(super) fn hex(id: &[u8]) -> String {
    id.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn once<T>(name: &str, place: &mut Option<T>, value: T) -> Result<(), UriError> {
    if place.replace(value).is_some() {
        return Err(UriError(format!("{name} stands there twice")));
    }
    Ok(())
}

/// A file: as a path, or as `file:` with one (RFC 7512 §2.4). Commands are not run.
fn pin_file(text: &str) -> Result<PathBuf, UriError> {
    let path = match text.strip_prefix("file:") {
        Some(rest) => rest.strip_prefix("//").unwrap_or(rest),
        None => text,
    };
    if path.is_empty() || path.starts_with('|') {
        return Err(UriError(format!("pin-source={text}; a file is read, as /PATH or file:/PATH")));
    }
    Ok(path.into())
}

fn text(name: &str, value: &str) -> Result<String, UriError> {
    let bytes = decode(name, value)?;
    String::from_utf8(bytes).map_err(|_| UriError(format!("{name}={value} is not UTF-8")))
}

/// Undoes percent-encoding.
fn decode(name: &str, value: &str) -> Result<Vec<u8>, UriError> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digit = |at: usize| rest.get(at).and_then(|byte| char::from(*byte).to_digit(16));
        let byte = digit(0).zip(digit(1)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
        bytes.push(byte.ok_or_else(|| {
            UriError(format!("{name}={value}: '%' without two hex digits behind it (a '%' itself is %25)"))
        })?);
        rest = rest.get(2..).unwrap_or_default();
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g7_reads_what_rfc_7512_writes() {
        let uri: TokenUri = "PKCS11:token=My%20token;serial=1;slot-id=3;object=a%3Bb;id=%00%a1x;type=private\
                             ?pin-source=file:/etc/pin&module-path=/usr/lib/x.so"
            .parse()
            .unwrap();

        assert_eq!(uri.token.as_deref(), Some("My token"));
        assert_eq!(uri.object.as_deref(), Some("a;b"));
        assert_eq!(uri.id.as_deref(), Some(&[0, 0xa1, b'x'][..]));
        assert_eq!((uri.slot, uri.serial.as_deref()), (Some(3), Some("1")));
        assert_eq!((uri.pin, uri.module), (Some("/etc/pin".into()), Some("/usr/lib/x.so".into())));
        assert_eq!("pkcs11:".parse::<TokenUri>().unwrap().wanted_token(), "any at all");
    }

    #[test]
    fn g7_says_what_is_wrong_with_a_uri_and_never_repeats_a_pin() {
        for (wrong, said) in [
            ("pkcs11:token=a?pin-value=1234", "pin-source"),
            ("pkcs11:token=a;token=b", "twice"),
            ("pkcs11:tokn=a", "unknown attribute \"tokn\""),
            ("pkcs11:token=a?module-name=p11", "after the '?'"),
            ("pkcs11:token=%4", "two hex digits"),
            ("pkcs11:token=%ff", "UTF-8"),
            ("pkcs11:token", "NAME=VALUE"),
            ("pkcs11:slot-id=x", "no number"),
            ("pkcs11:object=a;type=public", "type=private"),
            ("pkcs11:object=a?pin-source=|cat%20/etc/pin", "a file is read"),
            ("author.key", "does not begin"),
        ] {
            let error = wrong.parse::<TokenUri>().unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("wanted such as"), "{wrong}: {error}");
            assert!(!error.contains("1234"), "{error}");
        }
        assert!(format!("pkcs11:token={}", "a".repeat(5_000)).parse::<TokenUri>().is_err());
    }
}

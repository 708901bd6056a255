//! What stands in a token: the private key of a URI, and the certificates beside it.

use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session;
use cryptoki::slot::TokenInfo;
use muster_pki::text::is_misleading;
use muster_pki::{Certificate, authorities_above};

use super::super::error::{KeyError, TokenError};
use super::super::uri::{TokenUri, hex};
use super::failed;

/// Most objects of a class that are looked at; a token holds a handful, a network HSM a few hundred.
const OBJECTS_MAX: usize = 10_000;

/// Objects that an error lists.
const LISTED_MAX: usize = 20;

/// A private key in a token.
#[derive(Debug)]
pub(super) struct PrivateKey {
    pub(super) handle: ObjectHandle,
    /// RSA or EC; `None`: anything else.
    pub(super) kind: Option<KeyType>,
    /// It wants the PIN for each signature.
    pub(super) always_authenticate: bool,
    /// How errors name it.
    pub(super) name: String,
    id: Vec<u8>,
    may_sign: bool,
}

/// Finds the one private key that the URI names.
pub(super) fn private_key(
    session: &Session,
    token: &TokenInfo,
    uri: &TokenUri,
) -> Result<PrivateKey, TokenError> {
    let template = [Attribute::Class(ObjectClass::PRIVATE_KEY)];
    let mut keys = Vec::new();
    for handle in objects(session, &template)? {
        keys.push(read_key(session, handle)?);
    }
    let label_of = |key: &(PrivateKey, Vec<u8>)| key.1.clone();
    let is_wanted = |key: &&(PrivateKey, Vec<u8>)| {
        uri.object.as_ref().is_none_or(|object| object.as_bytes() == label_of(key))
            && uri.id.as_ref().is_none_or(|id| *id == key.0.id)
    };
    let count = keys.iter().filter(is_wanted).count();
    let names = |names: &mut dyn Iterator<Item = &(PrivateKey, Vec<u8>)>| {
        listed(names.map(|(key, _)| key.name.clone()))
    };
    let (name, wanted) = (token.label().to_owned(), uri.wanted_key());
    match count {
        0 => Err(TokenError::KeyAbsent { token: name, wanted, found: names(&mut keys.iter()) }),
        1 => {
            let at = keys.iter().position(|key| is_wanted(&key)).unwrap_or_default();
            let (key, _) = keys.swap_remove(at);
            if key.may_sign { Ok(key) } else { Err(TokenError::MayNotSign { key: key.name }) }
        }
        count => {
            let found = names(&mut keys.iter().filter(is_wanted));
            Err(TokenError::SeveralKeys { token: name, wanted, count, found })
        }
    }
}

/// Returns the certificate of a key, which stands under the same id, and the CAs above it that stand beside it.
pub(super) fn certificates_of(
    session: &Session,
    token: &TokenInfo,
    key: &PrivateKey,
) -> Result<Vec<Certificate>, KeyError> {
    let template = [Attribute::Class(ObjectClass::CERTIFICATE)];
    let (mut own, mut all, mut names) = (Vec::new(), Vec::new(), Vec::new());
    for handle in objects(session, &template)? {
        let Read { id, label, value, .. } = read(session, handle)?;
        names.push(name(&label, &id));
        // What is no X.509 certificate that can be read is nobody's here.
        if let Some(certificate) = value.and_then(|der| Certificate::from_der(&der).ok()) {
            if id == key.id {
                own.push(certificate.clone());
            }
            all.push(certificate);
        }
    }
    // Of two for one key, the one that is valid longer: it is the renewed one.
    let Some(leaf) = own.into_iter().max_by_key(Certificate::not_after) else {
        let (token, key) = (token.label().to_owned(), key.name.clone());
        return Err(TokenError::NoCertificate { token, key, found: listed(names.into_iter()) }.into());
    };
    let above = authorities_above(&leaf, &all);
    Ok(std::iter::once(leaf).chain(above).collect())
}

fn objects(session: &Session, template: &[Attribute]) -> Result<Vec<ObjectHandle>, TokenError> {
    let step = "list the token's objects";
    let mut handles = Vec::new();
    for handle in session.iter_objects(template).map_err(failed(step))?.take(OBJECTS_MAX) {
        handles.push(handle.map_err(failed(step))?);
    }
    Ok(handles)
}

/// The attributes of an object; those that it lacks are empty.
#[derive(Default)]
struct Read {
    id: Vec<u8>,
    label: Vec<u8>,
    value: Option<Vec<u8>>,
    kind: Option<KeyType>,
    sign: Option<bool>,
    always_authenticate: bool,
}

fn read(session: &Session, handle: ObjectHandle) -> Result<Read, TokenError> {
    let wanted = [AttributeType::Id, AttributeType::Label, AttributeType::Value];
    attributes(session, handle, &wanted)
}

fn read_key(session: &Session, handle: ObjectHandle) -> Result<(PrivateKey, Vec<u8>), TokenError> {
    // Never CKA_VALUE or any other part of the key itself (G7).
    let wanted = [
        AttributeType::Id,
        AttributeType::Label,
        AttributeType::KeyType,
        AttributeType::Sign,
        AttributeType::AlwaysAuthenticate,
    ];
    let read = attributes(session, handle, &wanted)?;
    let key = PrivateKey {
        handle,
        kind: read.kind,
        always_authenticate: read.always_authenticate,
        name: name(&read.label, &read.id),
        id: read.id,
        // A token that does not say so lets it be tried.
        may_sign: read.sign.unwrap_or(true),
    };
    Ok((key, read.label))
}

fn attributes(session: &Session, handle: ObjectHandle, wanted: &[AttributeType]) -> Result<Read, TokenError> {
    let mut read = Read::default();
    let found = session.get_attributes(handle, wanted).map_err(failed("read an object of the token"))?;
    for attribute in found {
        if let Attribute::Id(id) = attribute {
            read.id = id;
        } else if let Attribute::Label(label) = attribute {
            read.label = label;
        } else if let Attribute::Value(value) = attribute {
            read.value = Some(value);
        } else if let Attribute::KeyType(kind) = attribute {
            read.kind = Some(kind);
        } else if let Attribute::Sign(sign) = attribute {
            read.sign = Some(sign);
        } else if let Attribute::AlwaysAuthenticate(always) = attribute {
            read.always_authenticate = always;
        }
    }
    Ok(read)
}

fn name(label: &[u8], id: &[u8]) -> String {
    // A token's labels come from anyone: what of them would mislead a person does not reach the terminal.
    let label: String = String::from_utf8_lossy(label).chars().filter(|c| !is_misleading(*c)).collect();
    format!("object={label};id={}", hex(id))
}

/// Lists names in their own order; tokens have none that lasts.
fn listed(names: impl Iterator<Item = String>) -> String {
    let mut list: Vec<String> = names.collect();
    list.sort_unstable();
    let more = list.len().saturating_sub(LISTED_MAX);
    list.truncate(LISTED_MAX);
    if more > 0 {
        list.push(format!("and {more} more"));
    }
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

//! Keys in PKCS#11 tokens: found by their URI, used where they are.
//!
//! What stands here calls the token maker's library through `cryptoki`, which has the `unsafe` of it. A call takes as long as the
//! library takes, the touch of a button by a person included: there is no way to call it off.

mod objects;
mod signing;

use std::path::{Path, PathBuf};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::{Slot, TokenInfo};
use cryptoki::types::AuthPin;
use muster_signing::envelope::Signer;
use zeroize::Zeroizing;

use self::objects::{certificates_of, private_key};
use self::signing::TokenKey;
use super::error::{KeyError, TokenError};
use super::uri::TokenUri;
use super::{SignerSource, file, secret};
use crate::{FileKind, read_file};

/// Makes a signer of a token's key.
pub(super) fn open(uri: &TokenUri, source: &SignerSource) -> Result<Signer, KeyError> {
    let chain = match &source.certificate {
        Some(path) => Some(file::certificates(path, &read_file(path, FileKind::KEY)?)?),
        None => None,
    };
    let module = uri.module.as_ref().or(source.module.as_ref()).ok_or(TokenError::NoModule)?;
    let library = load(module)?;
    let (slot, token) = slot(&library, uri)?;
    let session = library.open_ro_session(slot).map_err(failed("open a session with the token"))?;
    let pin = log_in(&session, &token, uri, source)?;
    // The flags say how many tries are left, so they are read again where one failed.
    let pin = match pin {
        Ok(pin) => pin,
        Err(error) => return Err(refused_pin(error, &library, slot, &token).into()),
    };
    let key = private_key(&session, &token, uri)?;
    let chain = match chain {
        Some(chain) => chain,
        None => certificates_of(&session, &token, &key)?,
    };
    let mechanisms = library.get_mechanism_list(slot).map_err(failed("list the token's mechanisms"))?;
    let leaf = chain.first().map(|leaf| leaf.key_algorithm()).unwrap_or_default();
    let key = TokenKey::new(session, key, pin, &mechanisms, &leaf, token.label())?;
    Signer::with_remote_key(chain, Box::new(key))
        .map_err(|problem| KeyError::Unfit { key: uri.to_string(), problem })
}

/// Turns an error of the library into ours.
fn failed(step: &'static str) -> impl Fn(Error) -> TokenError {
    move |error| TokenError::Call { step, problem: in_words(&error) }
}

/// Says what a library's error is; the first sentence of what it means is enough.
fn in_words(error: &Error) -> String {
    let text = error.to_string();
    text.split(".  ").next().unwrap_or_default().trim_end_matches('.').to_owned()
}

/// Loads the library of the token's maker.
fn load(module: &Path) -> Result<Pkcs11, TokenError> {
    let refused = |path: &Path, problem: String| TokenError::Module { path: path.to_owned(), problem };
    // A path that is whole, so that no folder of the loader's stands in for the one that was named.
    let path: PathBuf = std::fs::canonicalize(module).map_err(|error| refused(module, error.to_string()))?;
    let library = Pkcs11::new(&path).map_err(|error| {
        let problem = if let Error::LibraryLoading(error) = error {
            error.to_string()
        } else {
            format!("no PKCS#11 library: {error}")
        };
        refused(&path, problem)
    })?;
    match library.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        // The one library of a process stays as it is.
        Ok(()) | Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => Ok(library),
        Err(error) => Err(refused(&path, in_words(&error))),
    }
}

/// Finds the one token that the URI names.
fn slot(library: &Pkcs11, uri: &TokenUri) -> Result<(Slot, TokenInfo), TokenError> {
    let slots = library.get_slots_with_token().map_err(failed("list the tokens"))?;
    let mut tokens = Vec::new();
    for slot in slots {
        // One that was pulled out in between is none.
        if let Ok(token) = library.get_token_info(slot)
            && token.token_initialized()
        {
            tokens.push((slot, token));
        }
    }
    let listed = |tokens: &[(Slot, TokenInfo)]| {
        let each = tokens.iter().map(|(slot, token)| {
            let (label, serial) = (token.label(), token.serial_number());
            format!("token={label};serial={serial};slot-id={}", slot.id())
        });
        let all: Vec<String> = each.collect();
        if all.is_empty() { "none".to_owned() } else { all.join(", ") }
    };
    let is_wanted = |(slot, token): &&(Slot, TokenInfo)| {
        let is =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        is(&uri.token, token.label())
            && is(&uri.manufacturer, token.manufacturer_id())
            && is(&uri.model, token.model())
            && is(&uri.serial, token.serial_number())
            && uri.slot.is_none_or(|wanted| wanted == slot.id())
    };
    let found: Vec<(Slot, TokenInfo)> = tokens.iter().filter(is_wanted).cloned().collect();
    let wanted = uri.wanted_token();
    match <[_; 1]>::try_from(found) {
        Ok([one]) => Ok(one),
        Err(none) if none.is_empty() => Err(TokenError::Absent { wanted, found: listed(&tokens) }),
        Err(several) => {
            Err(TokenError::SeveralTokens { wanted, count: several.len(), found: listed(&several) })
        }
    }
}

/// The PIN as it was given; none where the token asks for it itself, or for none at all.
type Pin = Option<Zeroizing<String>>;

/// Opens the token. What the token says to the PIN is the inner result.
fn log_in(
    session: &Session,
    token: &TokenInfo,
    uri: &TokenUri,
    source: &SignerSource,
) -> Result<Result<Pin, Error>, KeyError> {
    if !token.login_required() {
        return Ok(Ok(None));
    }
    let name = token.label();
    if token.user_pin_locked() {
        return Err(TokenError::PinLocked { token: name.to_owned() }.into());
    }
    if token.protected_authentication_path() {
        return Ok(session.login(UserType::User, None).map(|()| None));
    }
    if !token.user_pin_initialized() {
        return Err(TokenError::NoPin { token: name.to_owned() }.into());
    }
    let pin = match &uri.pin {
        Some(path) => secret::from_file(path)?,
        None => match secret::given(source.password_file.as_deref())? {
            Some(pin) => pin,
            None => secret::ask(&format!("the PIN of token {name}"))?,
        },
    };
    let answer = match session.login(UserType::User, Some(&as_pin(&pin))) {
        // Another session of this process was there before.
        Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(()),
        answer => answer,
    };
    Ok(answer.map(|()| Some(pin)))
}

fn as_pin(pin: &str) -> AuthPin {
    AuthPin::from(pin.to_owned())
}

fn refused_pin(error: Error, library: &Pkcs11, slot: Slot, token: &TokenInfo) -> TokenError {
    let name = token.label().to_owned();
    let Error::Pkcs11(code, _) = &error else { return failed("log in to the token")(error) };
    let code = *code;
    if code == RvError::PinLocked {
        return TokenError::PinLocked { token: name };
    }
    let is_wrong = [RvError::PinIncorrect, RvError::PinLenRange, RvError::PinInvalid].contains(&code);
    if !is_wrong {
        return failed("log in to the token")(error);
    }
    let left = match library.get_token_info(slot) {
        Ok(token) if token.user_pin_locked() => return TokenError::PinLocked { token: name },
        Ok(token) if token.user_pin_final_try() => "ONE try is left before it locks itself",
        Ok(token) if token.user_pin_count_low() => "few tries are left before it locks itself",
        Ok(_) | Err(_) => "it does not tell how many tries are left before it locks itself",
    };
    TokenError::PinWrong { token: name, left }
}

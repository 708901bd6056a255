// Fuzz bodies: one plain function for each parser of foreign bytes. `signing/tool/tests/it/fuzz.rs` replays the corpus and
// mutates it on stable; a `cargo fuzz` target is one call of the same function:
// `fuzz_target!(|bytes: &[u8]| bodies::definition(bytes));`. A body panics where its parser breaks a promise.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_pki::{CertificateDer, DeviceId, Facts, RevocationIndex, Role, Roots, UnixTime, pem, pfx};
use muster_sign::key::TokenUri;
use muster_signing::admit::{self, Trust};
use muster_signing::audience::Expression;
use muster_signing::definition::{Definition, Severity};
use muster_signing::envelope::{self, Anchors, ContentType, Detached};
use muster_signing::exchange::{Arrival, Exchange};
use muster_signing::licence::{Licence, LicenceRequest};
use muster_signing::pack::{Index, PackError, Reader};
use muster_signing::policy::Policy;
use muster_signing::timestamp::{Request, Token};
use muster_signing::{merkle, order};

/// Takes foreign bytes; panics where a promise is broken.
type Body = fn(&[u8]);

/// Every body by the name of its corpus.
pub(crate) const BODIES: [(&str, Body); 17] = [
    ("envelope", envelope),
    ("definition", definition),
    ("licence", licence),
    ("policy", policy),
    ("order", order),
    ("audience", audience),
    ("merkle", merkle),
    ("crl", crl),
    ("chain", chain),
    ("pfx", pfx),
    ("pem", pem),
    ("timestamp", timestamp),
    ("pack", pack),
    ("exchange", exchange),
    ("request", request),
    ("detached", detached),
    ("uri", uri),
];

/// The root that signed the corpus, and a moment at which it is valid.
const ROOT: &[u8] = include_bytes!("corpus/root.pem");
const NOW: u64 = 1_800_000_000;

/// What the root's signers signed. Whatever else verifies is forged.
const SIGNED: [&[u8]; 4] = [
    include_bytes!("corpus/definition/small.toml"),
    include_bytes!("corpus/order/small.bin"),
    include_bytes!("corpus/licence/small.toml"),
    include_bytes!("corpus/policy/small.toml"),
];

/// What the key of the request in the corpus signed.
const REQUEST: &str = "licensee = \"Acme Ltd\"\ntenant = \"acme\"\nprefixes = [\"Acme\"]\n";

fn now() -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(NOW))
}

fn roots() -> Roots {
    Roots::from_pem(ROOT, "root.pem").unwrap_or_default()
}

/// Looks at an envelope, and verifies it as every type there is: only what was signed comes out.
pub(crate) fn envelope(bytes: &[u8]) {
    drop(envelope::inspect(bytes));
    let roots = roots();
    let trust = Trust {
        authors: &roots,
        orders: &roots,
        licences: &roots,
        timestamps: Some(&roots),
        revocation: None,
    };
    drop(admit::definition(bytes, &trust, now()));
    drop(admit::order(bytes, &trust, now()));
    drop(admit::licence(bytes, &trust, now()));
    for kind in ContentType::ALL {
        let role = match kind {
            ContentType::Definition | ContentType::Pack | ContentType::File | ContentType::LicenceRequest => {
                Role::Author
            }
            ContentType::Order => Role::OrderSigner,
            ContentType::Licence => Role::Licensor,
            ContentType::Policy => Role::Policy,
        };
        let anchors = Anchors { signers: &roots, timestamps: Some(&roots) };
        if let Ok(verified) = envelope::verify(bytes, kind, role, &anchors, &Facts::at(now())) {
            assert!(SIGNED.contains(&verified.content.as_slice()), "forged: {:?}", verified.content);
        }
    }
}

/// Reads a definition; lint has an error exactly where it does not parse.
pub(crate) fn definition(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let found = Definition::lint(text);
    let has_error = found.iter().any(|finding| finding.severity() == Severity::Error);
    match Definition::parse(text) {
        Ok(definition) => {
            assert!(!has_error, "{found:?}");
            drop(definition.bind(&[]));
        }
        Err(error) => assert!(has_error, "{error}"),
    }
}

/// Reads a licence; what is read is written and read again as the same.
pub(crate) fn licence(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(licence) = Licence::parse(text) {
        let written = licence.to_text().unwrap_or_default();
        assert_eq!(Licence::parse(&written).as_ref(), Ok(&licence), "{written}");
    }
}

/// Reads a policy.
pub(crate) fn policy(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(policy) = Policy::parse(text)
    {
        assert!(!policy.is_for("no tenant", &BTreeMap::new()), "{policy:?}");
    }
}

/// Decodes an order; what is taken encodes to the same bytes.
pub(crate) fn order(bytes: &[u8]) {
    if let Ok(decoded) = order::decode(bytes) {
        assert_eq!(order::encode(&decoded), bytes);
        drop(decoded.audience.as_ref().map(order::expression));
    }
}

/// Parses an expression and evaluates it on nothing.
pub(crate) fn audience(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(expression) = Expression::parse(text)
    {
        let _ = (expression.matches(&BTreeMap::new()), expression.admits_member(&BTreeMap::new()));
        assert_eq!(Expression::parse(&expression.to_string()).as_ref(), Ok(&expression));
    }
}

/// An inclusion proof of the given bytes: index, count and hashes. Nobody guesses one under a root of zeros.
pub(crate) fn merkle(bytes: &[u8]) {
    let number = |from: usize| {
        let bytes = bytes.get(from..from + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    let Ok(device) = "web1.acme.example".parse::<DeviceId>() else { return };
    let mut proof = merkle::Tree::new(std::slice::from_ref(&device)).proof(0).unwrap_or_default();
    proof.leaf_index = number(0);
    proof.hashes = bytes.get(16..).unwrap_or_default().chunks(32).map(<[u8]>::to_vec).collect();
    assert!(!merkle::verify(&device, &proof, &[0; 32], number(8)));
}

/// Reads CRLs of the root.
pub(crate) fn crl(bytes: &[u8]) {
    let issuers: Vec<_> = roots().iter().cloned().collect();
    drop(RevocationIndex::default().with_crl(bytes, &issuers, now()));
}

/// Checks a chain for every role: certificates as they come, each with its length in two bytes before it.
pub(crate) fn chain(bytes: &[u8]) {
    let mut chain = Vec::new();
    let mut rest = bytes;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (one, after) = after.split_at(length);
        chain.push(CertificateDer::from(one.to_vec()));
        rest = after;
    }
    for role in Role::ALL {
        drop(muster_pki::check(role, &chain, &roots(), &Facts::at(now())));
    }
}

/// Reads a PFX file, without its password and with it.
pub(crate) fn pfx(bytes: &[u8]) {
    drop(pfx::read(bytes, None, "a.pfx"));
    drop(pfx::read(bytes, Some("password"), "a.pfx"));
}

/// Reads PEM files of each kind.
pub(crate) fn pem(bytes: &[u8]) {
    drop(pem::read(bytes, "a.pem"));
    drop(pem::certificates(bytes, "a.pem"));
    drop(pem::private_key(bytes, "a.pem"));
    drop(pem::crls(bytes, "a.pem"));
}

/// Reads the index of a pack, which is written and read again as the same; and an archive, which nobody here signed.
pub(crate) fn pack(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(index) = Index::parse(text)
    {
        let written = index.to_text().unwrap_or_default();
        assert_eq!(Index::parse(&written).as_ref(), Ok(&index), "{written}");
    }
    let roots = roots();
    let anchors = Anchors { signers: &roots, timestamps: Some(&roots) };
    let facts = Facts::at(now());
    let mut reader = Reader::new(anchors, facts);
    let read: Result<(), PackError> = bytes.chunks(700).try_for_each(|piece| reader.handle_piece(piece));
    assert!(read.and_then(|()| reader.finish()).is_err(), "a forged pack");
}

/// Reads a list of packs, which is written and read again as the same; none of its packs lies outside of its folder, and the list
/// itself is none of them.
pub(crate) fn exchange(bytes: &[u8]) {
    let Ok(exchange) = Exchange::parse(bytes) else { return };
    let written = exchange.to_text().unwrap_or_default();
    assert_eq!(Exchange::parse(written.as_bytes()).as_ref(), Ok(&exchange), "{written}");
    for pack in exchange.packs() {
        let url = pack.url().as_str();
        let is_below = |part: &str| !part.is_empty() && !part.starts_with('.');
        assert!(url.split('/').all(is_below) && !url.contains([':', '\\', '%', '?', '#', '@']), "{url}");
        let mut arrival = Arrival::of(pack);
        let taken = arrival.handle_piece(bytes);
        assert!(taken.and_then(|()| arrival.finish()).is_err(), "a list that names itself");
    }
}

/// Verifies a publisher's request, which needs no root: what its signer's key signed is what comes out, and reads back as the same.
pub(crate) fn request(bytes: &[u8]) {
    if let Ok(verified) = LicenceRequest::verify(bytes, now()) {
        assert_eq!(verified.text, REQUEST, "forged: {:?}", verified.signer);
        let written = verified.request.to_text().unwrap_or_default();
        assert_eq!(LicenceRequest::parse(&written), Ok(verified.request));
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        drop(LicenceRequest::parse(text));
    }
}

/// Reads a file's signature; no signer of the root here signed that file.
pub(crate) fn detached(bytes: &[u8]) {
    let Ok(signature) = Detached::read(bytes) else { return };
    let mut digester = signature.digester();
    digester.update(b"content");
    let roots = roots();
    let anchors = Anchors { signers: &roots, timestamps: Some(&roots) };
    let verdict = signature.verify(&digester.finish(), Role::Author, &anchors, &Facts::at(now()));
    assert!(verdict.is_err(), "a forged signature");
}

/// Reads a PKCS#11 URI, which reads back from what it shows.
pub(crate) fn uri(bytes: &[u8]) {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(uri) = text.parse::<TokenUri>()
    {
        assert_eq!(uri.to_string().parse::<TokenUri>().as_ref(), Ok(&uri));
    }
}

/// Reads a timestamp token, an authority's answer and a request; what is read of a token is written and read again.
pub(crate) fn timestamp(bytes: &[u8]) {
    if let Ok(token) = Token::read(bytes) {
        let claimed = token.claimed();
        let again = token.to_der().and_then(|written| Token::read(&written));
        assert_eq!(again.map(|again| again.claimed()).ok(), Some(claimed));
    }
    drop(Request::nonce_of(bytes));
    drop(Request::new(b"signature", [7; 16]).map(|request| request.token(bytes)));
}

//! Certificate rules, revocation, PEM reading and the development CA.
//!
//! This crate says whether a certificate may play a [`Role`], and names **every** rule that it breaks. It never opens a
//! file, a socket or a clock: bytes and `now` go in, a [`Verdict`] comes out. Rule numbers (`C3`, `G5`, …) are those of
//! `spec/trust.md` and `spec/signing.md`.
//!
//! Start with [`check()`]; [`Roots`] and [`Facts`] are what it needs, [`Verdict`] what it answers. [`authority`] makes
//! certificates for development and tests. [`Identity`] reads what a person has of their own, PEM or PFX; [`trust_store`]
//! is what a client trusts.

pub mod authority;
mod certificate;
mod check;
mod describe;
mod device_id;
pub mod device_key;
mod directory_string;
mod finding;
mod format;
mod identity;
mod instant;
pub mod pem;
pub mod pfx;
mod revocation;
mod role;
mod roots;
pub mod select;
mod shape;
pub mod text;
mod thumbprint;
mod trail;
pub mod trust_store;
mod usage;
mod verdict;

pub use certificate::{Certificate, CertificateError};
pub use check::{
    CHAIN_CERTIFICATES_MAX, Facts, KeyEncipherment, Policy, check, check_server_pinned, check_with,
    verify_path,
};
pub use describe::{CrlSummary, EnvelopeSummary, ITEMS_MAX, Item, KeySummary, RequestSummary, describe};
pub use device_id::{DeviceId, DeviceIdError};
pub use device_key::DeviceKey;
pub use finding::{Finding, Rule, Severity};
pub use format::Format;
pub use identity::{
    IDENTITY_CERTIFICATES_MAX, Identity, IdentityError, IdentityFiles, NamedBytes, authorities_above,
};
pub use revocation::{
    CRL_BYTES_MAX, CRL_ENTRIES_MAX, CRLS_PER_ISSUER_MAX, Coverage, CrlError, CrlSources, CrlUrl, CrlUrlError,
    CrlWarning, Fetch, FetchError, FetchLimits, FetchRequest, FetchResponse, Fetched, GRACE, IssuerRule,
    Loaded, REDIRECTS_MAX, REFRESH_MAX, RETRY_MAX, RevocationIndex, RevocationMode, RevokedSerial,
    SERIAL_BYTES_MAX, Serial, Standing, URLS_PER_ISSUER_MAX, Validators, newly_revoked,
};
pub use role::{Role, RoleError};
pub use roots::{Roots, RootsError};
pub use shape::{SET_ELEMENTS_MAX, has_short_sets};
pub use thumbprint::{AnyThumbprint, Thumbprint, ThumbprintError};
pub use trail::{Trail, TrailElement, TrailOf};
pub use usage::ExtendedKeyUsage;
pub use verdict::{Refused, Verdict};

pub use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

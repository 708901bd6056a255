//! Certificate rules, revocation, PEM reading and the development CA.
//!
//! This crate says whether a certificate may play a [`Role`], and names **every** rule that it breaks. It never opens a
//! file, a socket or a clock: bytes and `now` go in, a [`Verdict`] comes out. Rule numbers (`C3`, `G5`, …) are those of
//! `spec/trust.md` and `spec/signing.md`.
//!
//! Start with [`check()`]; [`Roots`] and [`Facts`] are what it needs, [`Verdict`] what it answers. [`authority`] makes
//! certificates for development and tests.

pub mod authority;
mod certificate;
mod check;
mod describe;
mod device_id;
mod finding;
mod instant;
pub mod pem;
mod revocation;
mod role;
mod roots;
mod thumbprint;
mod usage;
mod verdict;

pub use certificate::{Certificate, CertificateError};
pub use check::{CHAIN_CERTIFICATES_MAX, Facts, KeyEncipherment, Policy, check, check_with};
pub use describe::{CrlSummary, EnvelopeSummary, ITEMS_MAX, Item, KeySummary, RequestSummary, describe};
pub use device_id::{DeviceId, DeviceIdError};
pub use finding::{Finding, Rule, Severity};
pub use revocation::{Coverage, CrlError, RevocationIndex};
pub use role::{Role, RoleError};
pub use roots::{Roots, RootsError};
pub use thumbprint::{Thumbprint, ThumbprintError};
pub use usage::ExtendedKeyUsage;
pub use verdict::{Refused, Verdict};

pub use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

//! The whole engine, with real signatures and a clock turned by hand. `world` has what the tests share.

mod abandon;
mod aggregate;
mod approvals;
mod audience;
mod blocking;
mod damage;
mod expiry;
mod files;
mod history;
mod intake;
mod issue;
mod licensing;
mod packs;
mod parts;
mod policies;
mod presence;
mod removal;
mod reserve;
mod restart;
mod retention;
mod standing;
mod stops;
mod unauthenticated;
mod world;

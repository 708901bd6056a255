//! `muster-load proxy`: a TCP proxy that behaves as bad networks do, and as badly again with the same seed.
//!
//! What happens to which byte is decided by [`schedule`], from the seed, the number of the connection, the direction and
//! the place in the stream, and by nothing else; [`relay`] carries it out. TCP repairs loss by sending again later, and that
//! is what a lost piece is here, too: a pause of a retransmission.

pub(crate) mod relay;
pub(crate) mod schedule;
mod teller;

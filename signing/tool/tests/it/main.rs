//! `muster-sign` from outside: its commands over files, and `openssl cms` as the judge of its envelopes both ways.

#[cfg(test)]
mod commands;
#[cfg(test)]
mod openssl;

//! `muster-sign` from outside: its commands over files, and `openssl cms` as the judge of its envelopes both ways, `openssl ts` of timestamps.

#[cfg(test)]
mod approval;
#[cfg(test)]
mod authority;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod exchange;
#[cfg(test)]
mod exhaustive;
#[cfg(test)]
mod file;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod keys;
#[cfg(test)]
mod lint;
#[cfg(test)]
mod openssl;
#[cfg(test)]
mod outputs;
#[cfg(test)]
mod pack;
#[cfg(test)]
mod renewal;
#[cfg(test)]
mod request;
#[cfg(test)]
mod signers;
#[cfg(test)]
mod sizes;
#[cfg(test)]
mod timestamp;

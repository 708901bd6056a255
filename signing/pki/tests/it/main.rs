//! Tests of the certificate rules, against our own CA and against the `openssl` command line.

#[cfg(test)]
mod arbitrary;
#[cfg(test)]
mod authority;
#[cfg(test)]
mod describe;
#[cfg(test)]
mod fail_closed;
#[cfg(test)]
mod named;
#[cfg(test)]
mod openssl;
#[cfg(test)]
mod pem;
#[cfg(test)]
mod revocation;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod support;

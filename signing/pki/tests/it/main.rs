//! Tests of the certificate rules, against our own CA and against the `openssl` command line.

#[cfg(test)]
mod arbitrary;
#[cfg(test)]
mod authority;
#[cfg(test)]
mod crl_maker;
#[cfg(test)]
mod describe;
#[cfg(test)]
mod fail_closed;
#[cfg(test)]
mod fetch;
#[cfg(test)]
mod forge;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod named;
#[cfg(test)]
mod openssl;
#[cfg(test)]
mod openssl_table;
#[cfg(test)]
mod pem;
#[cfg(test)]
mod pfx;
#[cfg(test)]
mod pkits;
#[cfg(test)]
mod revocation;
#[cfg(test)]
mod revocation_der;
#[cfg(test)]
mod revocation_many;
#[cfg(test)]
mod revocation_modes;
#[cfg(test)]
mod revocation_openssl;
#[cfg(test)]
mod rules;
#[cfg(test)]
mod select;
#[cfg(test)]
mod support;
#[cfg(test)]
mod trust_store;
#[cfg(test)]
mod verify_path;

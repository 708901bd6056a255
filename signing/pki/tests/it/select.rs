//! Certificate selection (S1–S7, N2, N5).

mod chosen;
mod lab;
mod openssl;
mod oracle;
mod server;
mod table;
mod wait;

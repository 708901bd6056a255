//! SQL tables over the live machine and the sandboxed helper process that queries them.

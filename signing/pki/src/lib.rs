//! Certificate rules, selection, revocation index, key parsing and the development CA.

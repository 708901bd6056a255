//! The Switch: sessions, audiences, instructions, ledger, results, events, operator API.

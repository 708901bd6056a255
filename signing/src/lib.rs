//! What is trusted, and by whom: envelopes, definitions, orders, licence, audiences.

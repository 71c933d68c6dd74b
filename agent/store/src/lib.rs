//! kinewatch-store.

//! kinewatch.
